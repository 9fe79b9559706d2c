"""Files to frames: where labels are found, in which unit, and what is refused."""

import gzip
import shutil
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect
from ase.stress import full_3x3_to_voigt_6_stress
from pydantic import ValidationError

from surefoot.data.file_units import FileUnits
from surefoot.data.images import UnreadableFile, read_images
from surefoot.data.read import (
    GROUP_BLOCK,
    Frame,
    Keys,
    describe_labels,
    read_frames,
    read_state,
)
from surefoot.units import HARTREE, KCAL_PER_MOL

FORCES = np.array([[0.1, -0.2, 0.3], [-0.4, 0.5, -0.6]])
STRESS = np.array([[1.0, 4.0, 5.0], [4.0, 2.0, 6.0], [5.0, 6.0, 3.0]])
CELL = np.diag([2.0, 3.0, 4.0])  # 24 Å³
PLACES = {
    "own": lambda atoms: atoms.info.update(mine=-1.0) or atoms.set_array("my_forces", 1 * FORCES),
    "REF": lambda atoms: (
        atoms.info.update(REF_energy=-2.0) or atoms.set_array("REF_forces", 2 * FORCES)
    ),
    "known": lambda atoms: (
        atoms.info.update(dft_energy=-3.0) or atoms.set_array("dft_forces", 3 * FORCES)
    ),
    "calculator": lambda atoms: setattr(
        atoms, "calc", SinglePointCalculator(atoms, energy=-4.0, forces=4 * FORCES)
    ),
}
FACTORS = {name: number for number, name in enumerate(PLACES, 1)}
KEYS = {
    "own": {"energy": "mine", "forces": "my_forces"},
    "REF": {"energy": "REF_energy", "forces": "REF_forces"},
    "known": {"energy": "dft_energy", "forces": "dft_forces"},
    "calculator": {"energy": "calculator", "forces": "calculator"},
}


def hydrogen() -> Atoms:
    return Atoms("H2", positions=[[0, 0, 0], [0, 0, 0.74]])


def reread(
    folder: Path,
    images: list[Atoms] | Atoms,
    keys: Keys = Keys(),
    units: FileUnits = FileUnits(),
    name: str = "file.extxyz",
) -> list[Frame]:
    ase.io.write(folder / name, images)
    return read_frames([folder / name], keys, units)


def crystal(**info: object) -> Atoms:
    atoms = Atoms("H", cell=CELL, pbc=True)
    atoms.info |= info
    return atoms


# --- where labels stand ---------------------------------------------------------------------


def labelled(*places: str) -> Atoms:
    atoms = hydrogen()
    for place in places:
        PLACES[place](atoms)
    return atoms


@pytest.mark.parametrize(
    ("keys", "places", "taken"),
    [
        (Keys(energy="mine", forces="my_forces"), ("own", "REF", "known", "calculator"), "own"),
        (Keys(), ("own", "REF", "known", "calculator"), "REF"),
        (Keys(), ("known", "calculator"), "known"),
        (Keys(), ("calculator",), "calculator"),
        (Keys(energy="dft_energy", forces="dft_forces"), ("REF", "known"), "known"),
        (Keys(energy="calculator", forces="calculator"), ("REF", "calculator"), "calculator"),
        (Keys(energy="energy", forces="forces"), ("REF", "calculator"), "calculator"),
    ],
)
def test_order_in_which_labels_are_looked_for(tmp_path, keys, places, taken) -> None:
    (frame,) = reread(tmp_path, labelled(*places), keys)
    assert frame.energy == pytest.approx(-FACTORS[taken])
    np.testing.assert_allclose(frame.forces, FACTORS[taken] * FORCES, atol=1e-8)
    assert frame.keys == KEYS[taken]
    assert frame.atoms.calc is None


def test_a_label_that_is_ignored_is_absent(tmp_path) -> None:
    (frame,) = reread(tmp_path, labelled("REF", "calculator"), Keys(energy="none"))
    assert frame.energy is None
    np.testing.assert_allclose(frame.forces, 2 * FORCES, atol=1e-8)


def test_unknown_keys_are_no_labels(tmp_path) -> None:
    (frame,) = reread(tmp_path, labelled("own"))
    assert frame.energy is None
    assert frame.forces is None
    assert frame.stress is None


@pytest.mark.parametrize("keys", [Keys(), Keys(energy="energy", forces="forces")])
def test_plain_columns_of_extended_xyz_are_found(tmp_path, keys) -> None:
    """ASE moves them to a calculator."""
    path = tmp_path / "plain.xyz"
    path.write_text(
        "2\nProperties=species:S:1:pos:R:3:forces:R:3 energy=-1.5 "
        'stress="1 4 5 4 2 6 5 6 3" Lattice="2 0 0 0 3 0 0 0 4"\n'
        "H 0 0 0 0.1 -0.2 0.3\nH 0 0 0.74 -0.4 0.5 -0.6\n"
    )
    (frame,) = read_frames([path], keys)
    assert frame.energy == -1.5
    np.testing.assert_array_equal(frame.forces, FORCES)
    np.testing.assert_array_equal(frame.stress, STRESS)


def test_order_of_files_and_frames_and_their_places(tmp_path) -> None:
    for name, count in (("b.xyz", 2), ("a.xyz", 1)):
        images = [hydrogen() for _ in range(count)]
        for number, atoms in enumerate(images):
            atoms.info["REF_energy"] = float(number + 10 * count)
        ase.io.write(tmp_path / name, images)
    files = [str(tmp_path / "b.xyz"), str(tmp_path / "a.xyz")]
    frames = read_frames(files)
    assert [frame.energy for frame in frames] == [20.0, 21.0, 10.0]
    assert [(frame.file, frame.index) for frame in frames] == [
        (files[0], 0),
        (files[0], 1),
        (files[1], 0),
    ]
    assert frames[1].place == f"{files[0]}, frame 1"


# --- units and stress -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("units", "energy", "length"),
    [
        (FileUnits(), 1.0, 1.0),
        (FileUnits(energy="meV", length="nm"), 1e-3, 10.0),
        (FileUnits(energy="kcal/mol"), 0.0433641, 1.0),
        (FileUnits(energy="kJ/mol", length="Angstrom"), 0.01036427, 1.0),
        (FileUnits(energy="Hartree", length="Bohr"), 27.211386, 0.52917721),
        (FileUnits(energy="Rydberg", length="Bohr"), 13.605693, 0.52917721),
    ],
)
def test_units(tmp_path, units, energy, length) -> None:
    atoms = hydrogen()
    atoms.cell = CELL
    atoms.info |= {"REF_energy": -2.0, "REF_stress": full_3x3_to_voigt_6_stress(STRESS)}
    atoms.set_array("REF_forces", FORCES)
    (frame,) = reread(tmp_path, atoms, units=units)
    assert frame.energy == pytest.approx(-2.0 * energy, rel=1e-6)
    np.testing.assert_allclose(frame.forces, FORCES * energy / length, rtol=1e-6)
    np.testing.assert_allclose(frame.stress, STRESS * energy / length**3, rtol=1e-6)
    np.testing.assert_allclose(frame.atoms.positions, hydrogen().positions)


def test_unknown_units_are_refused() -> None:
    with pytest.raises(ValidationError, match="kcal/mol"):
        FileUnits.model_validate({"energy": "kcal"})


@pytest.mark.parametrize(
    ("unit", "order", "factor"),
    [
        ("GPa", [0, 1, 2, 3, 4, 5], 0.00624150907446),
        ("kbar", [0, 1, 2, 3, 4, 5], 0.000624150907446),
        ("VASP", [0, 1, 2, 5, 3, 4], -0.000624150907446),
    ],
)
def test_stress_in_a_unit_of_its_own(tmp_path, unit, order, factor) -> None:
    """VASP prints a pressure in the order xx yy zz xy yz zx; ASE's is xx yy zz yz xz xy."""
    atoms = Atoms("He2", positions=[[0, 0, 0], [1, 1, 1]], cell=CELL, pbc=True)
    atoms.info["REF_stress"] = full_3x3_to_voigt_6_stress(STRESS)[order]
    units = FileUnits.model_validate({"stress": unit, "energy": "Hartree"})
    frame = reread(tmp_path, atoms, units=units)[0]
    np.testing.assert_allclose(frame.stress, STRESS * factor, rtol=1e-10)


@pytest.mark.parametrize("order", ["xx yy zz xy xz yz", "zz yy xx YZ ZX yx"])
def test_stress_in_another_order(tmp_path, order) -> None:
    places = {"xx": 0, "yy": 1, "zz": 2, "yz": 3, "xz": 4, "zx": 4, "xy": 5, "yx": 5}
    atoms = Atoms("He2", positions=[[0, 0, 0], [1, 1, 1]], cell=CELL, pbc=True)
    voigt = full_3x3_to_voigt_6_stress(STRESS)
    atoms.info["REF_stress"] = [voigt[places[name.lower()]] for name in order.split()]
    units = FileUnits.model_validate({"stress": "GPa", "stress_order": order})
    frame = reread(tmp_path, atoms, units=units)[0]
    np.testing.assert_allclose(frame.stress, STRESS * 0.00624150907446, rtol=1e-10)


@pytest.mark.parametrize("order", ["xx yy zz", "xx yy zz xy xy yz", "a b c d e f"])
def test_an_order_that_is_none_is_refused(order) -> None:
    with pytest.raises(ValidationError, match="does not name the six components"):
        FileUnits.model_validate({"stress_order": order})


@pytest.mark.data
def test_shear_stress_of_copper_agrees_with_emt(data_folder) -> None:
    """The order of components in this file is nowhere stated, and is not that of VASP."""
    units = FileUnits.model_validate({"stress": "VASP", "stress_order": "xx yy zz xy xz yz"})
    file = data_folder / "mlearn" / "Cu_train.extxyz.gz"
    found, expected = [], []
    for frame in read_frames([file], Keys(stress="virial_stress_kbar"), units)[::8]:
        frame.atoms.calc = EMT()
        expected.append(frame.atoms.get_stress())
        found.append(full_3x3_to_voigt_6_stress(frame.stress))
    for component in range(6):
        pair = np.array(found)[:, component], np.array(expected)[:, component]
        assert np.corrcoef(*pair)[0, 1] > 0.95


@pytest.mark.parametrize("name", ["IsolatedAtom", "isolated_atom", "Isolated_Atom"])
def test_reference_atoms_are_spelled_in_several_ways(tmp_path, name) -> None:
    atom = Atoms("H", info={"REF_energy": -13.6, "config_type": name})
    assert reread(tmp_path, atom)[0].config_type == "IsolatedAtom"


@pytest.mark.parametrize("value", [full_3x3_to_voigt_6_stress(STRESS), STRESS, STRESS.reshape(9)])
@pytest.mark.parametrize("key", [None, "REF_stress", "my_stress"])
def test_stress_in_six_or_nine_numbers(tmp_path, value, key) -> None:
    atoms = crystal(**{key or "dft_stress": value})
    (frame,) = reread(tmp_path, atoms, Keys(stress=key))
    np.testing.assert_array_equal(frame.stress, STRESS)


def test_stress_of_another_shape_is_refused(tmp_path) -> None:
    with pytest.raises(UnreadableFile, match=r"file\.extxyz, frame 0: stress has shape \(4,\)"):
        reread(tmp_path, crystal(REF_stress=np.arange(4.0)))


@pytest.mark.parametrize("key", [None, "virial"])
def test_virial_is_minus_stress_times_volume(tmp_path, key) -> None:
    (frame,) = reread(tmp_path, crystal(virial=-24.0 * STRESS), Keys(stress=key))
    np.testing.assert_allclose(frame.stress, STRESS)
    assert frame.keys == {"stress": "virial"}


def test_virial_is_an_energy_whatever_the_length_of_the_forces(tmp_path) -> None:
    units = FileUnits(energy="Hartree", length="Bohr")
    (frame,) = reread(tmp_path, crystal(REF_virial=-24.0 * STRESS), units=units)
    np.testing.assert_allclose(frame.stress, STRESS * HARTREE)


def test_stress_goes_before_virial_and_a_molecule_has_neither(tmp_path) -> None:
    both = crystal(REF_stress=STRESS, virial=STRESS)
    molecule = hydrogen()
    molecule.info["virial"] = STRESS
    first, second = reread(tmp_path, [both, molecule])
    np.testing.assert_array_equal(first.stress, STRESS)
    assert second.stress is None


def test_an_own_key_of_the_stress_hides_the_virial(tmp_path) -> None:
    images = [crystal(mine=STRESS), crystal(virial=STRESS)]
    first, second = reread(tmp_path, images, Keys(stress="mine"))
    assert first.stress is not None
    assert second.stress is None


# --- formats --------------------------------------------------------------------------------


def test_packed_files(tmp_path) -> None:
    reread(tmp_path, labelled("REF"))
    with (
        (tmp_path / "file.extxyz").open("rb") as plain,
        gzip.open(tmp_path / "file.extxyz.gz", "wb") as packed,
    ):
        shutil.copyfileobj(plain, packed)
    (frame,) = read_frames([tmp_path / "file.extxyz.gz"])
    assert frame.energy == -2.0
    assert frame.file.endswith("file.extxyz.gz")


def test_traj_is_read_by_ase(tmp_path) -> None:
    frames = reread(tmp_path, [labelled("calculator")] * 2, name="file.traj")
    assert [frame.energy for frame in frames] == [-4.0, -4.0]
    np.testing.assert_array_equal(frames[1].forces, 4 * FORCES)


@pytest.mark.parametrize(
    ("numbers", "coordinates", "energies", "forces"),
    [("nuclear_charges", "coords", "energies", "forces"), ("z", "R", "E", "F")],
)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_npz(tmp_path, rng, numbers, coordinates, energies, forces, suffix) -> None:
    arrays = {
        numbers: np.array([8, 1, 1], np.uint8),
        coordinates: rng.normal(size=(4, 3, 3)),
        energies: rng.normal(size=(4, 1)),  # as sGDML has it; rMD17 has (4,)
        forces: rng.normal(size=(4, 3, 3)),
    }
    path = tmp_path / "file.npz"
    np.savez(path, **arrays)
    if suffix:
        path = tmp_path / f"file.npz{suffix}"
        path.write_bytes(gzip.compress((tmp_path / "file.npz").read_bytes()))
    frames = read_frames([path], units=FileUnits(energy="kcal/mol"))
    assert len(frames) == 4
    for index, frame in enumerate(frames):
        assert frame.atoms.get_chemical_formula() == "H2O"
        np.testing.assert_array_equal(frame.atoms.positions, arrays[coordinates][index])
        assert frame.energy == pytest.approx(arrays[energies][index, 0] * KCAL_PER_MOL)
        np.testing.assert_allclose(frame.forces, arrays[forces][index] * KCAL_PER_MOL)
        assert not frame.atoms.pbc.any()


def test_npz_without_labels_or_structures(tmp_path) -> None:
    path = tmp_path / "file.npz"
    np.savez(path, z=np.array([1]), R=np.zeros((2, 1, 3)))
    assert [(frame.energy, frame.forces) for frame in read_frames([path])] == [(None, None)] * 2
    np.savez(path, z=np.array([1]), E=np.zeros(2))
    with pytest.raises(UnreadableFile, match=r"file\.npz: .*coords \(or R\)"):
        read_frames([path])


def test_npz_with_pickled_content_is_refused(tmp_path) -> None:
    path = tmp_path / "file.npz"
    energies = np.array([{"code": "anything"}], dtype=object)
    np.savez(path, z=np.array([1]), R=np.zeros((1, 1, 3)), E=energies)
    with pytest.raises(UnreadableFile, match=r"file\.npz: can not be read \(.*allow_pickle"):
        read_frames([path])


@pytest.mark.data
def test_rmd17(data_folder) -> None:
    path = data_folder / "rmd17" / "rmd17_ethanol_train_01.npz"
    frames = read_frames([path], units=FileUnits(energy="kcal/mol"))
    assert describe_labels(frames).startswith(
        "energy 1000/1000 (REF_energy), forces 1000/1000 (REF_forces), stress 0/1000"
    )
    assert {frame.atoms.get_chemical_formula() for frame in frames} == {"C2H6O"}
    assert frames[0].energy == pytest.approx(-97079.92222179 * KCAL_PER_MOL)
    # The same potential energy surface in eV, as another group published it.
    other = read_frames([data_folder / "ethanol" / "train.xyz.gz"])
    energies, others = (np.array([f.energy for f in fs], float) for fs in (frames, other))
    assert energies.mean() == pytest.approx(others.mean(), abs=0.05)
    assert energies.std() == pytest.approx(others.std(), rel=0.1)
    rms, others_rms = (np.sqrt(np.mean([f.forces**2 for f in fs])) for fs in (frames, other))
    assert rms == pytest.approx(others_rms, rel=0.03)


# --- charge and spin ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("info", "charge", "spin"),
    [
        ({}, None, None),
        ({"charge": -1, "spin": 2}, -1, 2),
        ({"total_charge": 0.0, "multiplicity": 3.0}, 0, 3),
        ({"charge": 1, "total_charge": 5, "spin_multiplicity": 1, "total_spin": 7}, 1, 1),
        ({"total_spin": np.int64(4)}, None, 4),
    ],
)
def test_charge_and_spin_under_their_names(tmp_path, info, charge, spin) -> None:
    atoms = hydrogen()
    atoms.info |= info
    assert read_state(atoms.info) == (charge, spin)
    (frame,) = reread(tmp_path, atoms)
    assert (frame.charge, frame.spin) == (charge, spin)


@pytest.mark.parametrize("name", ["charge", "total_charge", "spin", "spin_multiplicity"])
@pytest.mark.parametrize("value", [0.5, np.nan, np.inf, "doublet"])
def test_charge_and_spin_are_whole_numbers(tmp_path, name, value) -> None:
    atoms = hydrogen()
    atoms.info[name] = value
    with pytest.raises(
        UnreadableFile, match=rf"file\.extxyz, frame 1: {name} is {value}; a whole number"
    ):
        reread(tmp_path, [hydrogen(), atoms])


def stated(*spins: int | None, charge: int = 0, atoms: Atoms | None = None) -> list[Atoms]:
    """Structures, by default of two electrons, with these numbers under spin_multiplicity."""
    images = []
    for spin in spins:
        images.append((atoms or hydrogen()).copy())
        images[-1].info |= {"total_charge": charge}
        if spin is not None:
            images[-1].info["spin_multiplicity"] = spin
    return images


@pytest.mark.parametrize(
    ("images", "meaning", "spins"),
    [
        (stated(0, 2, 0), "auto", [1, 3, 1]),  # 0 is no multiplicity, and all electrons fit
        (stated(0, None, 2), "auto", [1, None, 3]),
        (stated(1, 3), "auto", [1, 3]),
        (stated(2, 2), "auto", [2, 2]),  # nothing assumed; the data doctor names it
        (stated(0, 1), "auto", [0, 1]),  # 1 fits as a multiplicity only, so 0 is a mistake
        (stated(0, -2), "auto", [0, -2]),
        (stated(0, 4), "auto", [0, 4]),  # more unpaired electrons than there are
        (stated(0, charge=1), "auto", [0]),
        (stated(1, charge=1) + stated(0), "auto", [2, 1]),
        (stated(0, 1, atoms=crystal()), "auto", [1, 2]),  # a cell has no parity
        (stated(2, 2), "unpaired", [3, 3]),
        (stated(1), "unpaired", [2]),
        (stated(0, 2), "multiplicity", [0, 2]),
    ],
)
def test_what_a_spin_counts(tmp_path, images, meaning, spins) -> None:
    frames = reread(tmp_path, images, units=FileUnits(spin=meaning))
    assert [frame.spin for frame in frames] == spins
    # What uses the structure later, and what is written from it, means the same.
    assert [read_state(frame.atoms.info)[1] for frame in frames] == spins


def test_each_file_is_judged_alone(tmp_path) -> None:
    ase.io.write(tmp_path / "a.xyz", stated(0, 2))
    ase.io.write(tmp_path / "b.xyz", stated(3, 1))
    frames = read_frames([tmp_path / "a.xyz", tmp_path / "b.xyz"])
    assert [frame.spin for frame in frames] == [1, 3, 3, 1]
    assert describe_labels(frames).endswith(
        "spin 4/4 (spin_multiplicity, read as unpaired electrons: 0 occurs, which no 2S+1 is)"
    )
    told = describe_labels(reread(tmp_path, stated(2), units=FileUnits(spin="unpaired")))
    assert told.endswith("spin 1/1 (spin_multiplicity, read as unpaired electrons: as set)")


def test_unknown_meanings_of_a_spin_are_refused() -> None:
    with pytest.raises(ValidationError, match="unpaired"):
        FileUnits.model_validate({"spin": "electrons"})


# --- databases of ASE -----------------------------------------------------------------------


def in_data(energy: float, **data: object) -> dict[str, object]:
    """A row as SchNetPack writes it: everything an array."""
    forces = (energy * FORCES).astype(np.float32)
    return {"energy": np.array([energy], np.float32), "forces": forces, **data}


def test_labels_and_states_in_the_data_of_a_database(tmp_path) -> None:
    path = tmp_path / "file.db"
    with connect(path) as database:
        for spin in (0, 2):
            state = {"total_charge": np.array([0.0]), "spin_multiplicity": np.array([spin])}
            more = {"dipole_moment": np.ones((1, 3)), "note": {"deep": 1}}
            database.write(hydrogen(), data=in_data(-spin - 0.5, **state, **more))
    before = path.read_bytes()
    frames = read_frames([path])
    assert [frame.energy for frame in frames] == [-0.5, -2.5]
    np.testing.assert_allclose(frames[1].forces, -2.5 * FORCES, rtol=1e-6)
    assert [(frame.charge, frame.spin) for frame in frames] == [(0, 1), (0, 3)]
    assert describe_labels(frames) == (
        "energy 2/2 (calculator), forces 2/2 (calculator), stress 0/2, charge 2/2, "
        "spin 2/2 (spin_multiplicity, read as unpaired electrons: 0 occurs, which no 2S+1 is)"
    )
    assert set(frames[0].atoms.info) == {"total_charge", "spin_multiplicity", "dipole_moment"}
    assert path.read_bytes() == before


def test_key_value_pairs_and_own_names_in_a_database(tmp_path) -> None:
    path = tmp_path / "file.db"
    with connect(path) as database:
        database.write(
            hydrogen(),
            key_value_pairs={"group": "a", "target": -3.0, "spin": 3},
            data={"gradient": FORCES, "more": np.arange(5)},
        )
    (frame,) = read_frames([path], Keys(energy="target", forces="gradient"))
    assert (frame.energy, frame.group, frame.charge, frame.spin) == (-3.0, "a", None, 3)
    np.testing.assert_array_equal(frame.forces, FORCES)
    with pytest.raises(UnreadableFile, match=r"info group, info target.*array gradient"):
        read_frames([path], Keys(energy="mine"))


def test_results_that_ase_stored_in_a_database(tmp_path) -> None:
    """They go before labels of the same name in `data`, and an atom alone has forces too."""
    path = tmp_path / "file.db"
    with connect(path) as database:
        database.write(labelled("calculator"), data=in_data(-1.0))
        atom = Atoms("H")
        database.write(atom, data={"energy": np.array([-13.6]), "forces": np.zeros((1, 3))})
    first, second = read_frames([path])
    assert (first.energy, second.energy) == (-4.0, -13.6)
    np.testing.assert_allclose(first.forces, 4 * FORCES)
    assert second.forces is not None
    assert second.forces.shape == (1, 3)


@pytest.mark.parametrize("content", [b"", b"no database", b"SQLite format 3\0 torn"])
def test_what_is_no_database_is_refused_and_left_alone(tmp_path, content) -> None:
    path = tmp_path / "file.db"
    path.write_bytes(content)
    with pytest.raises(UnreadableFile, match=r"file\.db: can not be read \(.+\)"):
        read_frames([path])
    assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


def test_a_database_in_another_length_is_refused(tmp_path) -> None:
    path = tmp_path / "file.db"
    with connect(path) as database:
        database.write(hydrogen())
        database.metadata = {"_distance_unit": "Bohr"}
    with pytest.raises(UnreadableFile, match="lengths are in Bohr; Å is needed"):
        read_frames([path])


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "states"),
    [("ag3", {(-1, 1): -13.19, (1, 1): 4.47}), ("carbene", {(0, 1): -10.45, (0, 3): -9.69})],
)
def test_charge_spin(data_folder, name, states) -> None:
    frames = read_frames([data_folder / "charge_spin" / f"ase_{name}_2200.db"])
    assert "2200/2200 (spin_multiplicity, read as unpaired" in describe_labels(frames)
    assert all(frame.forces is not None for frame in frames)
    for state, mean in states.items():
        energies = [frame.energy for frame in frames if (frame.charge, frame.spin) == state]
        assert len(energies) == 1100
        assert np.mean(energies) == pytest.approx(mean, abs=0.005)


# --- groups ---------------------------------------------------------------------------------


def test_groups_are_compositions_in_blocks_unless_stated(tmp_path) -> None:
    water = Atoms("HOH", positions=np.diag([1.0, 2.0, 3.0]))
    images = []
    for _ in range(GROUP_BLOCK + 1):
        images += [hydrogen(), water]
    named = hydrogen()
    named.info |= {"group": 7, "config_type": "rare"}
    frames = reread(tmp_path, [*images, named])
    assert [frame.group for frame in frames[:4]] == ["H2#0", "H2O#0", "H2#0", "H2O#0"]
    assert [frame.group for frame in frames[-5:]] == ["H2#0", "H2O#0", "H2#1", "H2O#1", "7"]
    assert sum(frame.group == "H2#0" for frame in frames) == GROUP_BLOCK == 50
    assert frames[0].config_type == "Default"
    assert frames[-1].config_type == "rare"


# --- what is refused, and with which facts --------------------------------------------------


def test_missing_files(tmp_path) -> None:
    with pytest.raises(UnreadableFile, match=r"absent\.xyz: there is no such file"):
        read_frames([tmp_path / "absent.xyz"])
    with pytest.raises(
        UnreadableFile, match="this is a folder without structures; name a file in it"
    ):
        read_images(tmp_path)


@pytest.mark.parametrize("name", ["file.xyz", "file.npz", "file.unknown", "file.xyz.gz"])
@pytest.mark.parametrize("content", [b"", b"3\nthis is no structure\n"])
def test_files_that_can_not_be_read(tmp_path, name, content) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UnreadableFile, match=rf"{name}: can not be read \(.+\)"):
        read_frames([tmp_path / name])


def test_torn_packed_file(tmp_path) -> None:
    path = tmp_path / "file.xyz.gz"
    path.write_bytes(gzip.compress(b"1\n\nH 0 0 0\n" * 100)[:-20])
    with pytest.raises(UnreadableFile, match=r"file\.xyz\.gz: can not be read"):
        read_frames([path])


def test_no_files_no_frames() -> None:
    with pytest.raises(UnreadableFile, match="no frames"):
        read_frames([])


def test_energy_that_is_no_number(tmp_path) -> None:
    atoms = hydrogen()
    atoms.info["REF_energy"] = "low"
    with pytest.raises(UnreadableFile, match=r"file\.extxyz, frame 0: .*low"):
        reread(tmp_path, atoms)


@pytest.mark.parametrize(
    ("label", "key"), [("energy", "E_dft"), ("forces", "calculator"), ("stress", "sigma")]
)
def test_asked_key_that_no_frame_has(tmp_path, label, key) -> None:
    with pytest.raises(UnreadableFile) as caught:
        reread(tmp_path, labelled("own", "REF"), Keys.model_validate({label: key}))
    message = str(caught.value)
    assert f"no frame has the key '{key}' that is set for {label}" in message
    assert "file.extxyz" in message
    for held in ("info mine", "info REF_energy", "array my_forces", "array REF_forces"):
        assert held in message


def test_what_ase_moved_to_a_calculator_is_among_the_facts(tmp_path) -> None:
    with pytest.raises(UnreadableFile, match="calculator energy"):
        reread(tmp_path, labelled("calculator"), Keys(energy="E_dft"))


def test_asked_key_that_only_some_frames_have(tmp_path) -> None:
    frames = reread(tmp_path, [labelled("REF"), labelled("own")], Keys(energy="mine"))
    assert [frame.energy for frame in frames] == [None, -1.0]


def test_labels_are_counted(tmp_path) -> None:
    charged = labelled("REF")
    charged.info["charge"] = 1
    frames = reread(tmp_path, [charged, labelled("calculator"), hydrogen()])
    assert describe_labels(frames) == (
        "energy 2/3 (REF_energy 1, calculator 1), forces 2/3 (REF_forces 1, calculator 1), "
        "stress 0/3, charge 1/3, spin 0/3"
    )


def test_a_prediction_is_no_label(tmp_path) -> None:
    predicted = labelled("calculator")
    predicted.info["predicted_by"] = "surefoot"
    (frame,) = reread(tmp_path, [predicted])
    assert frame.energy is None
    assert frame.forces is None
