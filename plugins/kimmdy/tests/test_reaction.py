# SPDX-License-Identifier: GPL-3.0-or-later
"""The reaction beside surefoot's own readers, and KIMMDY's beside the recipes."""

import csv
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("kimmdy", reason="kimmdy is not installed: pip install kimmdy")

from kimmdy.kmc import extrande_mod, rf_kmc
from kimmdy.recipe import RecipeCollection, Relax
from surefoot.barriers.paths import read_paths
from surefoot.data.read import read_frames
from surefoot.hat.frames import Search, search_frames
from surefoot.hat.protein_files import read_structure
from surefoot.hat.recipes import HydrogenRecipe, write_recipes
from surefoot.hat.valence import guess_radicals

from kimmdy_peptides import load, write_xtc
from surefoot_kimmdy.structure import read_topology, read_trajectory


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "predictions.csv").open() as file:
        return list(csv.DictReader(file))


def test_candidates_are_those_of_surefoot(hexalanine, ask) -> None:
    topology, frames = read_structure(hexalanine.gro)
    radicals = [(one, None) for one in guess_radicals(topology)]
    findings = search_frames(topology, frames, radicals, Search(radius=6.0))
    wanted = sorted((*row.source, *row.candidate.end) for row in findings.rows if row.cutout)
    collection, folder = ask(hexalanine.top, hexalanine.gro, radius=6.0)
    found = sorted(
        (place.ix_to_place, broken.atom_ix_1, bound.atom_ix_2, *place.new_coords)
        for broken, place, bound in (one.recipe_steps for one in collection.recipes)
    )
    assert wanted
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert len(table(folder)) == len(wanted)


def test_recipes_of_a_trajectory(hexalanine, ask, tmp_path: Path) -> None:
    times = write_xtc(hexalanine, tmp_path / "md.xtc", 12)
    collection, folder = ask(hexalanine.top, tmp_path / "md.xtc", radius=6.0, polling_rate=5)
    rows = table(folder)
    spans = {"0": (times[0], times[5]), "5": (times[5], times[10]), "10": (times[10], times[11])}
    assert {row["frame"] for row in rows} == spans.keys()
    assert len(collection.recipes) == len(rows)
    for recipe, row in zip(collection.recipes, rows, strict=True):
        broken, place, bound = recipe.recipe_steps
        assert (broken.atom_id_1, broken.atom_id_2) == (row["donor_id"], row["hydrogen_id"])
        assert (place.id_to_place, bound.atom_id_2) == (row["hydrogen_id"], row["acceptor_id"])
        assert bound.atom_id_1 == row["hydrogen_id"]
        assert recipe.timespans == [spans[row["frame"]]]
        assert recipe.rates == [pytest.approx(float(row["rate_per_ps"]), rel=1e-5)]
        height = float(row["barrier_kcal"])
        arrhenius = 0.288 * np.exp(-height / (1.9872159e-3 * 300))
        assert recipe.rates[0] == pytest.approx(arrhenius, rel=1e-2)
        assert float(row["low_kcal"]) <= height <= float(row["high_kcal"])


def test_kimmdy_reads_and_chooses(hexalanine, ask, tmp_path: Path) -> None:
    write_xtc(hexalanine, tmp_path / "md.xtc", 3)
    collection, _ = ask(hexalanine.top, tmp_path / "md.xtc", radius=6.0, polling_rate=1)
    collection.to_csv(tmp_path / "theirs.csv")
    ours = [
        HydrogenRecipe(
            hydrogen=place.ix_to_place, donor=broken.atom_ix_1, acceptor=bound.atom_ix_2,
            end=place.new_coords, rate=one.rates[0], span=one.timespans[0],
        )
        for one in collection.recipes
        for broken, place, bound in [one.recipe_steps]
    ]  # fmt: skip
    write_recipes(tmp_path / "ours.csv", ours)
    for name in ("theirs.csv", "ours.csv"):
        read, picked = RecipeCollection.from_csv(tmp_path / name)
        assert read == collection
        assert picked is None
    text = [(tmp_path / name).read_text().splitlines() for name in ("theirs.csv", "ours.csv")]
    assert text[0] == text[1]
    possible = [one.recipe_steps for one in collection.recipes]
    # A scale of time that short lets something happen within the trajectory at any rate.
    for chosen in (rf_kmc(collection), extrande_mod(collection, tau_scale=1e-200)):
        assert chosen.recipe.recipe_steps in possible


def test_uncertain_scans_are_labelled_first(hexalanine, ask) -> None:
    strict = {"interval_limit": 1e-6, "uncertain": "label_first", "radius": 6.0}
    collection, folder = ask(hexalanine.top, hexalanine.gro, **strict)
    rows = table(folder)
    assert collection.recipes == []
    assert {row["decision"] for row in rows} == {"label_first"}
    assert all(row["doubts"] and not row["rate_per_ps"] for row in rows)
    paths = read_paths(read_frames([str(folder / "to_label.xyz")]))
    ways = [path.translation for path in paths]
    np.testing.assert_allclose(ways, [float(row["translation_A"]) for row in rows], atol=1e-3)


def test_slow_growth_needs_no_place(hexalanine, ask) -> None:
    collection, _ = ask(hexalanine.top, hexalanine.gro, radius=6.0, change_coords="lambda")
    assert collection.recipes
    for recipe in collection.recipes:
        broken, bound, relaxed = recipe.recipe_steps
        assert broken.atom_ix_2 == bound.atom_ix_1
        assert isinstance(relaxed, Relax)


def test_unknown_molecules_have_no_recipe(peptides: Path, ask, tmp_path: Path) -> None:
    met = load(peptides, "kimmdy_IMREE_charged_peptide", tmp_path)
    removed = next(nr for nr, a in met.top.atoms.items() if (a.residue, a.atom) == ("MET", "HA"))
    met = load(peptides, "kimmdy_IMREE_charged_peptide", tmp_path, removed=removed)
    collection, folder = ask(met.top, met.gro, radius=5.0)
    rows = table(folder)
    assert rows
    assert {row["decision"] for row in rows} == {"unknown"}
    assert all("element S " in row["doubts"] for row in rows)
    assert collection.recipes == []


def test_no_radical_no_recipe(peptides: Path, ask, tmp_path: Path) -> None:
    whole = load(peptides, "kimmdy_hexalanine", tmp_path)
    collection, folder = ask(whole.top, whole.gro)
    assert collection.recipes == []
    assert not list(folder.iterdir())


def test_a_hydrogen_that_has_moved_is_in_its_new_residue(hexalanine) -> None:
    top = hexalanine.top  # atom 9 is the radical, 18 and 19 are CA and HA of the next residue
    donor, hydrogen = "18", "19"
    assert (top.atoms[donor].atom, top.atoms[hydrogen].atom) == ("CA", "HA")
    top.break_bond((donor, hydrogen))
    top.bind_bond((hydrogen, "9"))
    topology = read_topology(top, "x", 71)
    moved = int(np.flatnonzero(topology.source == 18)[0])
    assert topology.residue(moved).number == top.atoms["9"].resnr
    assert topology.bonded(moved).tolist() == [int(np.flatnonzero(topology.source == 8)[0])]
    assert (np.diff(topology.owner) >= 0).all()
    assert sorted(topology.source) == list(range(71))
    assert [int(topology.source[one.atom]) for one in guess_radicals(topology)] == [17]


def test_bad_trajectories(hexalanine, ask, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no such file"):
        read_trajectory(tmp_path / "none.xtc", 71)
    with pytest.raises(ValueError, match="71 atoms, but the topology has 72"):
        read_trajectory(hexalanine.gro, 72)
    (tmp_path / "bad.xtc").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"can not be read as \.xtc"):
        read_trajectory(tmp_path / "bad.xtc", 71)
    with pytest.raises(ValueError, match=r"there is no \.trr file"):
        ask(hexalanine.top, hexalanine.gro, trajectory_format="trr")
