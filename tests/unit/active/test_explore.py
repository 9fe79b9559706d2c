from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.constraints import FixAtoms
from pydantic import ValidationError

from surefoot.active.explore import EXPLORERS, Bands, Modes, Pool, Rattle
from surefoot.active.explore.explorer import Explorer, Scene, draw_starts
from surefoot.active.explore.rattle import is_sound
from surefoot.barriers.bands import BandSettings
from surefoot.barriers.vibrations import Vibrations
from surefoot.data.convert import Sample
from surefoot.posteriors.predictor import Predictor
from surefoot.units import BOLTZMANN, DALTON, LIGHT


@pytest.fixture
def scene(predictor: Predictor, tmp_path: Path) -> Scene:
    starts = [molecule(name) for name in ("CH3OH", "CH4", "H2O")]
    for atoms in starts:
        atoms.info |= {"charge": 0, "spin": 1, "group": str(atoms.symbols), "REF_energy": 1.0}
    return Scene(
        predictor=predictor,
        potential=tmp_path / "none",
        number=0,
        starts=starts,
        folder=tmp_path,
        generator=np.random.default_rng(4),
    )


def test_every_explorer_is_one() -> None:
    for name, kind in EXPLORERS.items():
        assert kind.model_fields["name"].default == name
        assert callable(getattr(kind, "explore", None))
    assert isinstance(Rattle(), Explorer)


def test_starts_take_turns_and_carry_no_labels(scene: Scene) -> None:
    drawn = draw_starts(scene, 7)
    counts = [
        sum(str(one.symbols) == str(start.symbols) for one in drawn) for start in scene.starts
    ]
    assert sorted(counts) == [2, 2, 3]
    assert all(set(one.info) == {"charge", "spin", "group"} for one in drawn)


def test_a_pool_is_what_the_files_hold(scene: Scene, tmp_path: Path) -> None:
    images = [molecule("CH4"), Atoms("H"), molecule("H2O")]
    images[0].info |= {"charge": 1, "spin": 2, "REF_energy": -3.0}
    images[1].info["config_type"] = "IsolatedAtom"
    ase.io.write(tmp_path / "pool.xyz", images)
    found = Pool(files=(str(tmp_path / "pool.xyz"),)).explore(scene)
    assert [str(atoms.symbols) for atoms in found] == ["CH4", "OH2"]
    assert found[0].info["charge"] == 1
    assert "REF_energy" not in found[0].info


def test_a_pool_in_other_units(scene: Scene, tmp_path: Path) -> None:
    radical = molecule("CH3")
    radical.info |= {"charge": 0, "spin": 1}
    ase.io.write(tmp_path / "pool.xyz", [radical])
    pool = {"name": "pool", "files": [str(tmp_path / "pool.xyz")], "units": {"spin": "unpaired"}}
    (found,) = Pool.model_validate(pool).explore(scene)
    assert found.info["spin"] == 2


def test_rattled_structures_are_sound_and_fixed_atoms_stay(scene: Scene) -> None:
    slab = bulk("Cu", cubic=True)
    slab.set_constraint(FixAtoms([0]))
    slab.positions[0] += 0.01
    scene = Scene(**{**vars(scene), "starts": [slab]})
    settings = Rattle(count=20, width=0.3)
    found = settings.explore(scene)
    assert 10 < len(found) <= 20
    for atoms in found:
        np.testing.assert_array_equal(atoms.positions[0], slab.positions[0])
        assert np.abs(atoms.positions - slab.positions).max() > 1e-3
        assert is_sound(atoms, settings.closest)
    strained = Rattle(count=5, strain=0.02).explore(scene)
    assert all(abs(atoms.get_volume() - slab.get_volume()) > 1e-6 for atoms in strained)


def test_atoms_that_are_too_close_are_not_sound() -> None:
    assert is_sound(molecule("H2O"), 0.6)
    assert not is_sound(Atoms("OH", positions=[[0, 0, 0], [0, 0, 0.4]]), 0.6)


def test_displacements_are_those_of_heat(scene: Scene) -> None:
    """⟨x²⟩ of a spring is k_B T / k: one atom on three springs of known stiffness."""
    stiff, mass, temperature = np.array([2.0, 5.0, 20.0]), 15.999, 300.0
    omega = np.sqrt(stiff / (mass * DALTON))
    vibrations = Vibrations(
        frequencies=omega / (2 * np.pi * LIGHT), modes=np.eye(3)[:, None, :].copy()
    )
    minimum = Atoms("O", masses=[mass])
    settings = Modes(softest=1.0)
    moved = [
        settings._displace(minimum, vibrations, temperature, scene.generator).positions[0]
        for _ in range(4000)
    ]
    np.testing.assert_allclose(np.var(moved, axis=0), BOLTZMANN * temperature / stiff, rtol=0.1)
    soft = Modes(softest=1e5)._displace(minimum, vibrations, temperature, scene.generator)
    assert np.abs(soft.positions).max() < 1e-2


def test_images_of_bands_begin_and_end_where_the_paths_do(scene: Scene, tmp_path: Path) -> None:
    images = []
    for point, share in enumerate((0.0, 0.5, 1.0)):
        radical = molecule("CH3")
        radical.translate((0, 0, 4.0))
        atoms = molecule("CH4") + radical
        atoms.positions[1] = [0.63 * (1 - share), 0.63 * (1 - share), 0.63 + 2.2 * share]
        atoms.info |= {"charge": 0, "spin": 2, "system": "one", "path_point": point, "moving_h": 1}
        images.append(atoms)
    ase.io.write(tmp_path / "paths.xyz", images, format="extxyz")
    explorer = Bands(
        files=(str(tmp_path / "paths.xyz"),), band=BandSettings(images=5, steps=2), ends=None
    )
    found = explorer.explore(scene)
    assert len(found) == 5
    np.testing.assert_allclose(found[0].positions, images[0].positions, atol=1e-8)
    assert found[2].info == {"charge": 0, "spin": 2}
    ways = [np.linalg.norm(a.positions - b.positions) for a, b in pairwise(found)]
    assert min(ways) > 0.1


def test_transfers_are_one_split_without_paths() -> None:
    splits = {"new": {"residues": ["GLY"], "frames": 3}}
    EXPLORERS["transfers"].model_validate({"build": {"splits": splits}})
    splits["other"] = splits["new"]
    with pytest.raises(ValidationError, match="one split with `frames`"):
        EXPLORERS["transfers"].model_validate({"build": {"splits": splits}})


@pytest.mark.slow
def test_transfers_follow_the_seed_of_the_campaign(scene: Scene) -> None:
    smiles = {"methanol": "CO"}
    explorer = EXPLORERS["transfers"].model_validate(
        {
            "build": {
                "splits": {"new": {"smiles": smiles, "frames": 2}},
                "radicals": ["methyl"],
                "conformers": {"count": 1},
                "pairing": {"radical": 1.0},
            }
        }
    )
    assert isinstance(explorer, Explorer)
    first, same, other, later = (
        {
            atoms.positions.round(3).tobytes()
            for atoms in explorer.explore(Scene(**{**vars(scene), "seed": seed, "number": number}))
        }
        for seed, number in ((0, 0), (0, 0), (1, 0), (0, 1))
    )
    assert len(first) == 2
    assert first == same
    assert first.isdisjoint(other | later)


def test_the_same_seed_finds_the_same(
    scene: Scene, rattled: Callable[[int, float], list[Sample]]
) -> None:
    again = Scene(**{**vars(scene), "generator": np.random.default_rng(4)})
    first, second = (Rattle(count=4).explore(one) for one in (scene, again))
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one.positions, other.positions)
