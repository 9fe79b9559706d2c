"""The data doctor on damaged files, each made from a sound one, and on real data sets."""

import os
from dataclasses import replace
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.emt import EMT
from ase.cluster import Icosahedron

from surefoot.blocks.conditioning import Conditioning
from surefoot.data.check import Finding, Severity, check_frames, check_states
from surefoot.data.consistency import fit_slope
from surefoot.data.file_units import FileUnits
from surefoot.data.read import Frame, Keys, read_frames
from surefoot.data.scales import atomic_energies
from surefoot.units import BOHR, HARTREE, KCAL_PER_MOL

DATA = os.environ.get("SUREFOOT_DATA")
needs_data = pytest.mark.skipif(DATA is None, reason="SUREFOOT_DATA does not name the data sets")
FRAMES = 30
PLAIN: dict[str, str] = {"group": "g", "config_type": "Default", "file": "made"}


@pytest.fixture(scope="module")
def sound() -> list[Atoms]:
    """Rattled clusters of 13 Cu and Al atoms with EMT labels."""
    rng = np.random.default_rng(7)
    cluster = Icosahedron("Cu", noshells=2)
    cluster.numbers[::3] = 13
    images = []
    for _ in range(FRAMES):
        atoms = cluster.copy()
        atoms.positions += rng.normal(scale=0.05, size=(13, 3))
        atoms.calc = EMT()
        atoms.info["REF_energy"] = atoms.get_potential_energy()
        atoms.arrays["REF_forces"] = atoms.get_forces()
        atoms.info |= {"charge": 0, "spin": 1 + int(atoms.numbers.sum()) % 2}
        atoms.calc = None
        turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
        turn *= np.linalg.det(turn)
        atoms.positions = atoms.positions @ turn
        atoms.arrays["REF_forces"] = atoms.arrays["REF_forces"] @ turn
        images.append(atoms)
    return images


def reread(
    folder: Path,
    images: list[Atoms],
    name: str = "train.extxyz",
    keys: Keys = Keys(),
    units: FileUnits = FileUnits(),
) -> list[Frame]:
    """Write the images and read them back, as a user's file would come."""
    ase.io.write(folder / name, images, format="extxyz")
    return read_frames([folder / name], keys, units)


def copies(images: list[Atoms]) -> list[Atoms]:
    return [atoms.copy() for atoms in images]


def scaled(images: list[Atoms], energy: float = 1.0, forces: float = 1.0) -> list[Atoms]:
    damaged = copies(images)
    for atoms in damaged:
        atoms.info["REF_energy"] *= energy
        atoms.arrays["REF_forces"] *= forces
    return damaged


def only(findings: list[Finding], code: str) -> Finding:
    """The finding of this code; it must be the only finding at all, but for forces out of balance.

    Whoever moves one atom or one force of a sound frame throws its forces out of balance.
    """
    told = [finding for finding in findings if not finding.code.startswith("net-")]
    assert [finding.code for finding in told] == [code], findings
    assert told[0].message.endswith(".")
    return told[0]


def examine(folder: Path, images: list[Atoms], code: str) -> Finding:
    return only(check_frames({"train": reread(folder, images)}), code)


def test_nothing_is_found_in_sound_frames(sound, tmp_path):
    assert check_frames({"train": reread(tmp_path, sound)}) == []
    assert check_frames({}) == []
    assert check_frames({"train": []}) == []


def test_no_labels(sound, tmp_path):
    damaged = copies(sound)
    for atoms in damaged:
        atoms.info["U0"] = atoms.info.pop("REF_energy")
        del atoms.arrays["REF_forces"]
    finding = examine(tmp_path, damaged, "no-labels")
    assert finding.severity is Severity.ERROR
    assert (finding.count, finding.file) == (FRAMES, str(tmp_path / "train.extxyz"))
    for fact in ("REF_energy", "REF_forces", "U0", "keys: {energy: NAME", "--energy-key NAME"):
        assert fact in finding.message


def test_partly_missing_labels(sound, tmp_path):
    damaged = copies(sound)
    del damaged[4].arrays["REF_forces"]
    del damaged[6].arrays["REF_forces"]
    finding = examine(tmp_path, damaged, "missing-forces")
    assert finding.severity is Severity.WARNING
    assert (finding.frame, finding.count) == (4, 2)
    assert "28 of 30 frames" in finding.message


def test_isolated_atoms_need_no_forces(sound, tmp_path):
    atom = Atoms("Cu", info={"REF_energy": 3.5, "config_type": "IsolatedAtom"})
    frames = reread(tmp_path, sound) + reread(tmp_path, [atom], "atom.extxyz")
    assert check_frames({"train": frames}) == []
    assert check_frames({"train": frames, "valid": frames[-1:]}) == []


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_force_that_is_not_finite(sound, tmp_path, value):
    damaged = copies(sound)
    damaged[11].arrays["REF_forces"][5, 1] = value
    finding = examine(tmp_path, damaged, "not-finite")
    assert finding.severity is Severity.ERROR
    assert (finding.frame, finding.atom) == (11, 5)
    np.testing.assert_equal(finding.value, value)
    assert f"frame 11: forces of atom 5 is {value}" in finding.message


def test_energy_position_and_cell_that_are_not_finite(sound, tmp_path):
    frames = reread(tmp_path, sound)
    frames[0].atoms.positions[3, 2] = np.nan
    frames[1].atoms.cell[0, 0] = np.nan
    frames[2] = reread(tmp_path, [sound[2]], "one.extxyz")[0]
    object.__setattr__(frames[2], "energy", float("inf"))
    finding = only(check_frames({"train": frames}), "not-finite")
    assert (finding.frame, finding.atom, finding.count) == (0, 3, 3)


def test_forces_of_the_wrong_shape(sound, tmp_path):
    frames = reread(tmp_path, sound)
    object.__setattr__(frames[8], "forces", np.zeros((12, 3)))
    finding = only(check_frames({"train": frames}), "forces-shape")
    assert (finding.severity, finding.frame) == (Severity.ERROR, 8)
    assert "(12, 3) for 13 atoms" in finding.message


def test_gradients_instead_of_forces(sound, tmp_path):
    finding = examine(tmp_path, scaled(sound, forces=-1.0), "forces-sign")
    assert finding.severity is Severity.ERROR
    assert finding.value == pytest.approx(-1, abs=0.15)
    assert "wrong sign" in finding.message
    assert "train.extxyz" in finding.message


@pytest.mark.parametrize(
    ("energy", "forces", "slope", "fact"),
    [
        (1, 1 / KCAL_PER_MOL, KCAL_PER_MOL, "energies in eV beside forces in kcal/mol/Å (0.0434)"),
        (1 / HARTREE, 1, 1 / HARTREE, "energies in Hartree beside forces in eV/Å (0.0367)"),
        (1, BOHR / HARTREE, HARTREE / BOHR, "forces in Hartree/Bohr (51.4)"),
        (1, BOHR, 1 / BOHR, "set `units: {length: Bohr}`"),
        (1 / 13, 1, 1 / 13, "energies per atom beside forces of the whole structure (0.0769)"),
        (1, 1 / 400, 400, "no known units"),
    ],
)
def test_units_that_do_not_fit(sound, tmp_path, energy, forces, slope, fact):
    finding = examine(tmp_path, scaled(sound, energy, forces), "unit-mismatch")
    assert finding.severity is Severity.ERROR
    assert finding.value == pytest.approx(slope, rel=0.15)
    assert fact in finding.message
    assert f"{finding.value:.3g} times" in finding.message


def test_the_advised_length_heals_forces_per_bohr(sound, tmp_path):
    damaged = scaled(sound, forces=BOHR)
    healed = reread(tmp_path, damaged, units=FileUnits(length="Bohr"))
    assert check_frames({"train": healed}) == []


def test_signs_of_periodic_frames_across_the_cell_border(tmp_path):
    rng = np.random.default_rng(3)
    box = Atoms("Cu4", [(0, 0, 0), (0, 1.9, 1.9), (1.9, 0, 1.9), (1.9, 1.9, 0)], cell=[3.8] * 3)
    box = (box * 2).copy()
    box.pbc = True
    images = []
    for _ in range(20):
        atoms = box.copy()
        atoms.positions += rng.normal(scale=0.05, size=(32, 3))
        atoms.calc = EMT()
        atoms.info["REF_energy"] = atoms.get_potential_energy()
        atoms.arrays["REF_forces"] = atoms.get_forces()
        atoms.calc = None
        atoms.wrap()
        images.append(atoms)
    assert check_frames({"train": reread(tmp_path, images)}) == []
    finding = examine(tmp_path, scaled(images, forces=-1.0), "forces-sign")
    assert finding.value == pytest.approx(-1, abs=0.15)


def test_one_bad_file_beside_a_larger_sound_one(sound, tmp_path):
    good = reread(tmp_path, sound, "good.extxyz")
    moved = copies(sound[:15])
    for atoms in moved:
        atoms.positions += 1.0
    bad = reread(tmp_path, scaled(moved, forces=-1.0), "bad.extxyz")
    finding = next(f for f in check_frames({"train": good + bad}) if f.code == "forces-sign")
    assert finding.file == str(tmp_path / "bad.extxyz")


def test_too_few_or_unrelated_frames_say_nothing(sound, tmp_path):
    assert check_frames({"train": reread(tmp_path, scaled(sound[:4], forces=-1.0))}) == []
    shuffled = copies(sound)
    energies = np.random.default_rng(0).permutation([a.info["REF_energy"] for a in sound])
    for atoms, energy in zip(shuffled, energies, strict=True):
        atoms.info["REF_energy"] = energy
    assert check_frames({"train": reread(tmp_path, shuffled)}) == []


def test_slope_is_not_turned_by_an_outlier():
    work = np.array([1.0, 2.0, -1.0, 3.0, -2.0])
    difference = 2 * work
    slope, scatter = fit_slope(work, difference)
    assert (slope, scatter) == pytest.approx((2.0, 0.0))
    difference[1] = -50.0
    assert fit_slope(work, difference)[0] == pytest.approx(2.0)


def water(count: int = 12) -> list[Atoms]:
    """Water with energies near −76.4 Hartree, in kcal/mol."""
    rng = np.random.default_rng(5)
    images = []
    for _ in range(count):
        atoms = Atoms("OH2", [(0, 0, 0), (0.96, 0, 0), (-0.24, 0.93, 0)])
        atoms.positions += rng.normal(scale=0.02, size=(3, 3))
        hartree = -76.4 + 0.01 * rng.random()
        atoms.info["REF_energy"] = hartree * HARTREE / KCAL_PER_MOL
        images.append(atoms)
    return images


def test_energies_in_kcal_read_as_ev(tmp_path):
    findings = check_frames({"train": reread(tmp_path, water())})
    finding = next(finding for finding in findings if finding.code == "energy-unit")
    assert (finding.severity, finding.count) == (Severity.ERROR, 12)
    assert finding.value == pytest.approx(-76.4 * HARTREE / KCAL_PER_MOL, rel=1e-3)
    assert "23.06" in finding.message
    assert "units: {energy: kcal/mol}" in finding.message
    right = reread(tmp_path, water(), units=FileUnits(energy="kcal/mol"))
    assert [finding.code for finding in check_frames({"train": right})] == ["missing-forces"]


def test_positive_energies_of_most_frames(sound, tmp_path):
    damaged = reread(tmp_path, scaled(sound, energy=1e3, forces=1e3))
    codes = {finding.code: finding for finding in check_frames({"train": damaged})}
    assert set(codes) == {"energy-unit", "force-outlier"}
    assert (codes["energy-unit"].severity, codes["energy-unit"].count) == (Severity.ERROR, FRAMES)
    assert "eV/atom" in codes["energy-unit"].message


def test_energies_of_all_electrons_in_hartree(tmp_path):
    molecules = [
        Atoms("H2", [(0, 0, 0), (0, 0, 0.74)], info={"REF_energy": -1.17}),
        Atoms("N2", [(0, 0, 0), (0, 0, 1.10)], info={"REF_energy": -109.5}),
        Atoms("CO", [(0, 0, 0), (0, 0, 1.13)], info={"REF_energy": -113.3}),
        Atoms("F2", [(0, 0, 0), (0, 0, 1.41)], info={"REF_energy": -199.5}),
    ]
    codes = {f.code: f for f in check_frames({"train": reread(tmp_path, molecules)})}
    assert codes["energy-hartree"].severity is Severity.WARNING
    assert "units: {energy: Hartree}" in codes["energy-hartree"].message
    right = reread(tmp_path, molecules, units=FileUnits(energy="Hartree"))
    assert [f.code for f in check_frames({"train": right})] == ["missing-forces"]


def test_atomic_energies_against_hartree_fock():
    known = {1: -0.5, 2: -2.8617, 6: -37.689, 8: -74.809, 29: -1638.96, 79: -17865.4}
    hartree = atomic_energies(np.array(list(known))) / HARTREE
    np.testing.assert_allclose(hartree[:2], list(known.values())[:2], rtol=0.08)
    np.testing.assert_allclose(hartree[2:], list(known.values())[2:], rtol=0.005)


def test_placeholder_energies(sound, tmp_path):
    finding = examine(tmp_path, scaled(sound, energy=0.0), "energy-placeholder")
    assert (finding.severity, finding.count, finding.value) == (Severity.ERROR, FRAMES, 0.0)
    assert "keys: {energy: none}" in finding.message
    healed = reread(tmp_path, scaled(sound, energy=0.0), keys=Keys(energy="none"))
    assert only(check_frames({"train": healed}), "missing-energy").severity is Severity.WARNING


def test_placeholder_forces(sound, tmp_path):
    finding = examine(tmp_path, scaled(sound, forces=0.0), "forces-placeholder")
    assert (finding.severity, finding.count) == (Severity.ERROR, FRAMES)
    assert "keys: {forces: none}" in finding.message


def test_zero_forces_of_symmetric_crystals_are_sound(tmp_path):
    images = []
    for a in np.linspace(3.5, 3.8, 5):
        cell = a / 2 * np.array([(0, 1, 1), (1, 0, 1), (1, 1, 0)])
        atoms = Atoms("Cu", cell=cell, pbc=True) * (2, 1, 1)
        atoms.info["REF_energy"] = -7.4 + (a - 3.6) ** 2
        atoms.arrays["REF_forces"] = np.zeros((2, 3))
        images.append(atoms)
    assert check_frames({"train": reread(tmp_path, images)}) == []


def test_overlapping_atoms(sound, tmp_path):
    damaged = copies(sound)
    damaged[9].positions[7] = damaged[9].positions[2] + (0.0, 0.0, 0.31)
    finding = examine(tmp_path, damaged, "close-atoms")
    assert finding.severity is Severity.ERROR
    assert (finding.frame, finding.atom) == (9, 2)
    assert finding.value == pytest.approx(0.31, abs=1e-6)
    assert "atoms 2 and 7 are 0.3100 Å apart" in finding.message


def test_overlap_through_the_cell_border(tmp_path):
    atoms = Atoms("Cu2", [(0.1, 2, 2), (4.9, 2, 2)], cell=[5.0] * 3, pbc=True)
    atoms.info["REF_energy"] = -1.0
    atoms.arrays["REF_forces"] = np.ones((2, 3))
    finding = examine(tmp_path, [atoms], "close-atoms")
    assert finding.value == pytest.approx(0.2)


@pytest.mark.parametrize("edge", [0.3, 1e-6, 0.0])
def test_cells_that_are_too_thin(tmp_path, edge):
    frames = reread(tmp_path, [Atoms("Cu", cell=[3.0, 3.0, 3.0], pbc=True)])
    frames[0].atoms.cell[2, 2] = edge
    codes = {finding.code: finding for finding in check_frames({"train": frames})}
    finding = codes["broken-cell"]
    assert (finding.severity, finding.frame) == (Severity.ERROR, 0)
    assert finding.value == pytest.approx(edge, abs=1e-12)


def test_scanned_pairs_of_atoms_may_be_close(tmp_path):
    pair = Atoms("H2", [(0, 0, 0), (0, 0, 0.35)])
    pair.info["REF_energy"] = -10.0
    pair.arrays["REF_forces"] = np.array([[0, 0, -1.0], [0, 0, 1.0]])
    assert check_frames({"train": reread(tmp_path, [pair])}) == []


def test_energy_outlier(sound, tmp_path):
    damaged = copies(sound)
    damaged[17].info["REF_energy"] += 40.0
    finding = examine(tmp_path, damaged, "energy-outlier")
    assert (finding.severity, finding.frame, finding.count) == (Severity.WARNING, 17, 1)
    assert "+3.0" in finding.message


def test_force_outlier(sound, tmp_path):
    damaged = copies(sound)
    damaged[3].arrays["REF_forces"][12, 0] = -250.0
    finding = examine(tmp_path, damaged, "force-outlier")
    assert (finding.severity, finding.frame, finding.atom) == (Severity.WARNING, 3, 12)
    assert finding.value == pytest.approx(250)


def test_duplicates_in_one_split(sound, tmp_path):
    finding = examine(tmp_path, [*sound, sound[4], sound[5]], "duplicate")
    assert finding.severity is Severity.WARNING
    assert (finding.frame, finding.count) == (FRAMES, 2)
    assert "frame 4" in finding.message
    assert "1 more frame" in finding.message


def test_duplicates_across_splits(sound, tmp_path):
    train = reread(tmp_path, sound[:20])
    test = reread(tmp_path, [*sound[20:], sound[6]], "test.extxyz")
    finding = only(check_frames({"train": train, "test": test}), "leakage")
    assert finding.severity is Severity.ERROR
    assert (finding.file, finding.frame) == (str(tmp_path / "test.extxyz"), 10)
    for fact in ("train.extxyz, frame 6", "'train'", "'test'"):
        assert fact in finding.message


def test_one_structure_with_two_energies(sound, tmp_path):
    twice = sound[4].copy()
    twice.info["REF_energy"] += 2.0
    codes = {f.code: f for f in check_frames({"train": reread(tmp_path, [*sound, twice])})}
    assert set(codes) == {"duplicate", "duplicate-conflict"}
    assert codes["duplicate-conflict"].severity is Severity.ERROR
    assert codes["duplicate-conflict"].value == pytest.approx(2.0 / 13)


@pytest.mark.parametrize(
    ("charge", "spin", "fact"),
    [
        (0, 2, "spin is 2 with 10 electrons at charge 0"),
        (1, 1, "spin is 1 with 9 electrons at charge 1"),
        (0, 0, "spin is 0 with 10 electrons"),
        (0, 13, "more unpaired electrons"),
        (11, 1, "takes away more electrons"),
    ],
)
def test_impossible_states(tmp_path, charge, spin, fact):
    images = water()
    for atoms in images:
        atoms.info |= {"charge": 0, "spin": 1}
    images[7].info |= {"charge": charge, "spin": spin}
    frames = reread(tmp_path, images, units=FileUnits(energy="kcal/mol"))
    finding = next(f for f in check_frames({"train": frames}) if f.code == "impossible-spin")
    assert (finding.severity, finding.frame, finding.count) == (Severity.ERROR, 7, 1)
    assert fact in finding.message


def test_unpaired_electrons_that_are_read_as_multiplicities(tmp_path):
    """Triplets only: no 0 gives it away, but 2 is no multiplicity of ten electrons."""
    images = water()
    for atoms in images:
        atoms.info |= {"charge": 0, "spin": 2}
    frames = reread(tmp_path, images, units=FileUnits(energy="kcal/mol"))
    finding = next(f for f in check_frames({"train": frames}) if f.code == "impossible-spin")
    assert finding.count == 12
    assert "`units: {spin: unpaired}`" in finding.message
    right = reread(tmp_path, images, units=FileUnits(energy="kcal/mol", spin="unpaired"))
    codes = {finding.code for finding in check_frames({"train": right})}
    assert not codes & {"impossible-spin", "open-shell-unstated"}


def test_states_that_are_stated_here_and_there(sound, tmp_path):
    damaged = copies(sound)
    del damaged[2].info["spin"]
    codes = {f.code: f for f in check_frames({"train": reread(tmp_path, damaged)})}
    assert codes["spin-partly-stated"].severity is Severity.WARNING
    assert (codes["spin-partly-stated"].frame, codes["spin-partly-stated"].count) == (2, 1)


def test_open_shell_without_a_state(tmp_path):
    radical = Atoms("OH", [(0, 0, 0), (0, 0, 0.97)], info={"REF_energy": -2060.0})
    radical.arrays["REF_forces"] = np.array([[0, 0, -1.0], [0, 0, 1.0]])
    finding = examine(tmp_path, [radical], "open-shell-unstated")
    assert finding.severity is Severity.WARNING
    assert "HO has 9 electrons at charge 0" in finding.message
    radical.info |= {"charge": 0, "spin": 2}
    assert check_frames({"train": reread(tmp_path, [radical])}) == []


def test_two_states_of_one_composition(sound, tmp_path):
    damaged = copies(sound)
    damaged[13].info["charge"] = 2
    frames = reread(tmp_path, damaged)
    finding = only(check_states(frames), "two-states")
    assert (finding.severity, finding.frame) == (Severity.ERROR, 13)
    assert finding in check_frames({"train": frames})
    for fact in ("charge 2", "charge 0", "set `conditioning: {name: charge_spin}` in the config"):
        assert fact in finding.message
    told = Conditioning(name="charge_spin")
    assert check_frames({"train": frames}, told) == []
    assert check_states(reread(tmp_path, sound)) == []


@pytest.mark.parametrize(("key", "value"), [("charge", 1), ("spin", 3)])
def test_a_state_beside_frames_that_state_none(tmp_path, key, value):
    """To the model they are one surface: what nobody states is 0, or the lowest multiplicity."""
    frames = [Frame(atoms=Atoms("CH2", np.eye(3)), index=i, **PLAIN) for i in range(4)]
    stated = [replace(frame, **{key: value}) if frame.index > 1 else frame for frame in frames]
    finding = only(check_states(stated), "two-states")
    assert (finding.severity, finding.count) == (Severity.ERROR, 4)
    for fact in (f"{key} {value} ", f"{key} not stated (so {value % 2 if key == 'spin' else 0})"):
        assert fact in finding.message
    usual = [replace(frame, **{key: value // 2 if key == "spin" else 0}) for frame in frames[:2]]
    assert check_states([*usual, *frames[2:]]) == []


@pytest.mark.slow
def test_five_thousand_frames():
    rng = np.random.default_rng(0)
    grid = 2.5 * np.stack(np.meshgrid(*[range(3)] * 3, indexing="ij"), -1).reshape(-1, 3)
    places = [grid + rng.normal(scale=0.1, size=(27, 3)) for _ in range(5000)]
    frames = [
        Frame(
            atoms=Atoms("Cu27", place),
            energy=-20.0 + rng.normal(),
            forces=rng.normal() * (place - place.mean(0)),  # balanced
            group="Cu27",
            config_type="Default",
            file="made",
            index=index,
        )
        for index, place in enumerate(places)
    ]
    codes = [finding.code for finding in check_frames({"train": frames})]
    assert codes == ["open-shell-unstated"]


@needs_data
@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("3bpa/train_300K.xyz.gz", "eV"),
        ("acac/train_300K.xyz.gz", "eV"),
        ("ethanol/isolated_atoms.xyz", "eV"),
        ("ethanol/train_eth_meth.xyz.gz", "eV"),
        ("rmd17/rmd17_aspirin_train_01.npz", "kcal/mol"),
        ("mlearn/Mo_train.extxyz.gz", "eV"),
        ("catalysis/oxides.db", "eV"),
        ("catalysis/toy_c3h8_relax_EMT.extxyz.gz", "eV"),
        ("water/water192_pbe0ts_320.extxyz.gz", "eV"),
        ("xtb_solvents/solvent_xtb_train_200.xyz.gz", "eV"),
        ("small/carbon_reduced_100.xyz", "eV"),
        ("small/SPICE_small_with_charges.xyz", "eV"),
    ],
)
def test_nothing_is_found_in_sound_data_sets(name, unit):
    frames = read_frames([Path(DATA or "") / name], units=FileUnits(energy=unit))
    assert check_frames({"all": frames}) == []


@needs_data
@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("rmd17/rmd17_aspirin_train_01.npz", "energy-unit"),
        ("n2_feco/deal_0.15_selected_forces_only.xyz.gz", "energy-placeholder"),
        ("small/qm9_reduced_100.xyz", "no-labels"),
    ],
)
def test_known_damage_of_data_sets(name, code):
    findings = check_frames({"all": read_frames([Path(DATA or "") / name])})
    assert code in {f.code for f in findings if f.severity is Severity.ERROR}


@needs_data
@pytest.mark.data
def test_quirks_of_data_sets():
    """Forces that do not balance, shears in another order, copies; their README says none of it."""
    folder = Path(DATA or "")
    copper = read_frames([folder / "formate_cu/deal_old_0.05_extra.xyz.gz"])
    assert [one.code for one in check_frames({"all": copper})] == ["net-force"]
    keys = Keys(stress="virial_stress_kbar")
    for order, codes in (("auto", ["stress-order"]), ("xx yy zz xy xz yz", [])):
        units = FileUnits(stress="VASP", stress_order=order)
        nickel = read_frames([folder / "mlearn/Ni_train.extxyz.gz"], keys, units)
        assert [one.code for one in check_frames({"all": nickel})] == codes
    splits = {
        part: read_frames([folder / f"mlearn/Ni_{part}.extxyz.gz"]) for part in ("train", "test")
    }
    (finding,) = check_frames(splits)
    assert (finding.code, finding.count) == ("near-leakage", 13)


@needs_data
@pytest.mark.data
def test_gradients_of_comp6_are_found():
    h5py = pytest.importorskip("h5py")
    frames = []
    with h5py.File(Path(DATA or "") / "comp6/s66x8_wb97x6-31gd.h5") as file:
        for molecule in file["s66x8"].values():
            species = [symbol.decode() for symbol in molecule["species"][:]]
            for x, e, f in zip(
                molecule["coordinates"][:],
                molecule["energies"][:],
                molecule["forces"][:],
                strict=True,
            ):
                frames.append(
                    Frame(
                        atoms=Atoms(species, positions=x),
                        energy=float(e) * HARTREE,
                        forces=np.array(f, float) * HARTREE,
                        group="s66x8",
                        config_type="Default",
                        file="s66x8.h5",
                        index=len(frames),
                    )
                )
    finding = only(check_frames({"all": frames}), "forces-sign")
    assert finding.value == pytest.approx(-1, abs=0.1)
