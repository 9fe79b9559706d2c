"""The data doctor on balance, stress, boxes, likeness and reach: each damage on a sound set."""

import json
from dataclasses import replace
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from scipy.spatial.transform import Rotation

from surefoot.data.check import Finding, Severity, check_frames
from surefoot.data.file_units import FileUnits
from surefoot.data.mend import mend, to_images
from surefoot.data.read import Frame, Keys, read_frames
from surefoot.units import BOHR, HARTREE, STRESS_UNITS

COUNT = 16


def label(atoms: Atoms, index: int, file: str = "made.xyz") -> Frame:
    atoms = atoms.copy()
    atoms.calc = EMT()
    periodic = atoms.pbc.all()
    frame = Frame(
        atoms=atoms,
        energy=atoms.get_potential_energy(),
        forces=atoms.get_forces(),
        stress=atoms.get_stress(voigt=False) if periodic else None,
        charge=0,
        spin=1 + int(atoms.numbers.sum()) % 2,
        group="g",
        config_type="Default",
        file=file,
        index=index,
    )
    atoms.calc = None
    return frame


@pytest.fixture(scope="module")
def clusters() -> list[Frame]:
    """A trajectory in small steps of a cluster of 10 atoms without symmetry."""
    rng = np.random.default_rng(3)
    atoms = bulk("Cu", cubic=True).repeat((2, 2, 1))[:10]
    atoms.pbc, atoms.cell = False, np.zeros((3, 3))
    atoms.numbers[::3] = 13
    atoms.positions += rng.normal(scale=0.1, size=(10, 3))
    base, frames = atoms.positions.copy(), []
    for index in range(COUNT):
        atoms.positions = base + rng.normal(scale=0.05, size=(10, 3))
        frames.append(label(atoms, index))
    return frames


@pytest.fixture(scope="module")
def crystals() -> list[Frame]:
    """Cells of 4 atoms, strained in all six ways at random."""
    return strain(np.ones((3, 3)))


def strain(size: np.ndarray) -> list[Frame]:
    rng = np.random.default_rng(4)
    frames = []
    for index in range(COUNT):
        atoms = bulk("Cu", a=3.6, cubic=True)
        strain = 0.02 * size * rng.normal(size=(3, 3))
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + strain + strain.T), scale_atoms=True)
        atoms.positions += rng.normal(scale=0.03, size=(4, 3))
        frames.append(label(atoms, index))
    return frames


def changed(frames: list[Frame], number: int, **parts: object) -> list[Frame]:
    return [replace(f, **parts) if i == number else f for i, f in enumerate(frames)]


def moved(frame: Frame, **parts: object) -> Frame:
    """The frame with other atoms: positions, numbers, pbc or cell."""
    atoms = frame.atoms.copy()
    for name, value in parts.items():
        setattr(atoms, name, value)
    return replace(frame, atoms=atoms)


def only(frames: list[Frame], code: str, test: list[Frame] | None = None) -> Finding:
    splits = {"train": frames} | ({"test": test} if test else {})
    findings = check_frames(splits)
    told = [one for one in findings if one.code == code or not one.code.startswith("net-")]
    assert [finding.code for finding in told] == [code], findings
    assert told[0].message.endswith(".")
    return told[0]


def test_nothing_is_found_in_sound_frames(clusters, crystals) -> None:
    assert check_frames({"train": clusters}) == []
    assert check_frames({"train": crystals}) == []
    assert check_frames({"train": clusters[:12], "test": clusters[12:]}) == []


def test_net_force(clusters, crystals) -> None:
    for frames in (clusters, crystals):
        pull = np.array([0.3, 0.0, 0.0])
        found = only(changed(frames, 5, forces=frames[5].forces + pull), "net-force")
        assert (found.frame, found.count, found.severity) == (5, 1, Severity.WARNING)
        assert found.value == pytest.approx(0.3 * len(frames[5].atoms))


def test_held_atoms_take_up_a_net_force(clusters) -> None:
    held = clusters[5].atoms.copy()
    held.set_constraint(FixAtoms([0]))
    pulled = replace(clusters[5], atoms=held, forces=clusters[5].forces + 0.3)
    assert check_frames({"train": [*clusters[:5], pulled, *clusters[6:]]}) == []


def test_net_torque(clusters) -> None:
    turned = clusters[7].forces @ Rotation.from_euler("z", 90, degrees=True).as_matrix()
    found = only(changed(clusters, 7, forces=turned), "net-torque")
    assert (found.frame, found.count) == (7, 1)


def test_zeroed_forces(clusters) -> None:
    forces = clusters[4].forces.copy()
    forces[[2, 6]] = 0.0
    findings = check_frames({"train": changed(clusters, 4, forces=forces)})
    found = next(one for one in findings if one.code == "zeroed-forces")
    assert (found.frame, found.atom, found.count) == (4, 2, 1)
    assert "2 of 10 atoms" in found.message
    whole = check_frames({"train": changed(clusters, 4, forces=0 * forces)})
    assert "zeroed-forces" in [one.code for one in whole]


def test_isolated_atoms_of_another_unit(clusters) -> None:
    sound = [
        replace(
            label(Atoms(symbol), 100 + number),
            energy=3.0,
            forces=None,
            spin=None,
            charge=None,
            config_type="IsolatedAtom",
        )
        for number, symbol in enumerate(("Cu", "Al"))
    ]
    assert check_frames({"train": [*clusters, *sound]}) == []
    other = [replace(one, energy=-1000.0 / HARTREE) for one in sound]
    found = only([*clusters, *other], "references-unfit")
    assert found.severity is Severity.ERROR
    assert found.frame == 100


def test_full_box_without_pbc(crystals) -> None:
    wide = [label(one.atoms.repeat((2, 1, 1)), number) for number, one in enumerate(crystals)]
    assert check_frames({"train": wide}) == []
    off = [replace(moved(one, pbc=False), stress=None) for one in wide]
    found = only(off, "box-without-pbc")
    assert found.count == COUNT
    roomy = [
        replace(moved(one, pbc=False, cell=one.atoms.cell.array + 10 * np.eye(3)), stress=None)
        for one in wide
    ]
    codes = [one.code for one in check_frames({"train": roomy})]
    assert codes == [
        "net-torque"
    ]  # of the labels of a crystal; the box is no trouble, as many files state a box for a molecule


def test_one_frame_without_pbc(crystals) -> None:
    off = replace(moved(crystals[3], pbc=False), stress=None)
    found = only([*crystals[:3], off, *crystals[4:]], "pbc-differs")
    assert (found.frame, found.count) == (3, 1)


@pytest.mark.parametrize(
    ("scale", "code", "fact"),
    [
        (-1.0, "stress-sign", "pressure"),
        (1 / STRESS_UNITS["kbar"], "stress-unit", "stress: kbar"),
        (1 / STRESS_UNITS["VASP"], "stress-sign", "stress: VASP"),
        (1 / STRESS_UNITS["GPa"], "stress-unit", "stress: GPa"),
    ],
)
def test_stress_of_the_wrong_sign_or_unit(crystals, scale: float, code: str, fact: str) -> None:
    found = only([replace(one, stress=scale * one.stress) for one in crystals], code)
    assert found.value == pytest.approx(1 / scale, rel=0.2)
    assert fact in found.message


def test_shears_in_another_order() -> None:
    frames = []
    for one in strain(2.0 * (1 - np.eye(3))):  # shears are all that tells
        stress = np.diag(np.diag(one.stress))
        stress += np.array(
            [[0, one.stress[1, 2], one.stress[0, 1]],
             [one.stress[1, 2], 0, one.stress[0, 2]],
             [one.stress[0, 1], one.stress[0, 2], 0]]
        )  # fmt: skip
        frames.append(replace(one, stress=stress))
    # In the file xy holds σ_yz, xz holds σ_xy, yz holds σ_xz.
    found = only(frames, "stress-order")
    assert "read xy as yz, yz as xz, xz as xy" in found.message


def test_stress_that_is_none_or_enormous(crystals) -> None:
    only([replace(one, stress=0 * one.stress) for one in crystals], "stress-placeholder")
    one_cell = [replace(f, stress=np.eye(3) * 40.0) for f in crystals[:3]]
    only(one_cell, "stress-unit")


def test_a_turned_copy_in_another_split(clusters) -> None:
    rng = np.random.default_rng(0)
    source = clusters[2]
    order = rng.permutation(10)
    turn = Rotation.random(random_state=1).as_matrix()
    copy = moved(
        source,
        numbers=source.atoms.numbers[order],
        positions=source.atoms.positions[order] @ turn + 3.0,
    )
    copy = replace(copy, forces=source.forces[order] @ turn, file="test.xyz", index=0)
    found = only(clusters, "near-leakage", [copy])
    assert (found.file, found.count) == ("test.xyz", 1)
    assert "made.xyz, frame 2" in found.message
    exact = only(clusters, "leakage", [replace(source, file="test.xyz", index=0)])
    assert exact.count == 1  # an exact copy is told once


def test_nearly_one_structure_with_two_energies(clusters) -> None:
    near = moved(clusters[2], positions=clusters[2].atoms.positions + 5.0)
    near = replace(near, energy=clusters[2].energy + 4.0, index=COUNT)
    found = only([*clusters, near], "near-conflict")
    assert found.value == pytest.approx(0.4)


def test_atoms_in_another_order(clusters) -> None:
    order = np.arange(10)
    order[[1, 2]] = [2, 1]  # both Cu
    damaged = list(clusters)
    one = clusters[9]
    shuffled = moved(one, positions=one.atoms.positions[order], numbers=one.atoms.numbers[order])
    damaged[9] = replace(shuffled, forces=one.forces[order])
    found = only(damaged, "shuffled-atoms")
    assert (found.frame, found.count, found.value) == (9, 1, 2.0)


def test_elements_that_nobody_learns(clusters) -> None:
    strange = moved(clusters[12], numbers=[29] * 9 + [47])
    strange = replace(strange, spin=None, charge=None)
    findings = check_frames({"train": clusters[:12], "test": [strange]})
    found = next(one for one in findings if one.code == "unknown-element")
    assert (found.severity, found.frame, found.value) == (Severity.WARNING, 12, 47)
    assert "Ag" in found.message


def test_structures_beyond_the_training_frames(clusters) -> None:
    train, test = clusters[:12], clusters[12:]
    squeezed = moved(test[0], positions=0.85 * test[0].atoms.positions)
    squeezed = replace(squeezed, file="test.xyz")
    found = only(train, "extrapolation", [squeezed, *test[1:]])
    assert (found.file, found.frame, found.count) == ("test.xyz", 12, 1)
    assert "training frames have none below" in found.message
    hot = replace(test[3], forces=4.0 * test[3].forces)
    found = only(train, "extrapolation", [hot])
    assert "the largest of the training frames" in found.message


def test_mending_guesses_nothing(clusters, tmp_path: Path) -> None:
    broken = moved(clusters[1], positions=np.full((10, 3), np.nan))
    damaged = [clusters[0], broken, *clusters[2:], replace(clusters[4], index=COUNT)]
    damaged = [replace(one, forces=-one.forces) for one in damaged]
    findings = check_frames({"train": damaged})
    assert [one.code for one in findings] == ["not-finite", "forces-sign", "duplicate"]
    mended = mend(damaged, findings)
    assert len(mended.done) == 3
    ase.io.write(tmp_path / "mended.xyz", to_images(mended.frames), format="extxyz")
    again = read_frames([tmp_path / "mended.xyz"])
    assert len(again) == COUNT - 1
    assert check_frames({"train": again}) == []
    sound = [one for i, one in enumerate(clusters) if i != 1]
    for one, other in zip(again, sound, strict=True):
        np.testing.assert_allclose(one.forces, other.forces, atol=1e-7)
        assert one.energy == pytest.approx(other.energy)
    # Which of two energies is right, and what was meant by another unit, is not for us to say.
    conflict = [*clusters, replace(clusters[4], energy=clusters[4].energy + 1.0, index=COUNT)]
    assert len(mend(conflict, check_frames({"train": conflict})).frames) == COUNT + 1
    unit = [replace(one, energy=one.energy / HARTREE) for one in clusters]
    assert mend(unit, check_frames({"train": unit})).done == []


def test_labels_of_other_names_and_units_are_mended_to_ours(crystals, tmp_path: Path) -> None:
    images = []
    for one in crystals[:4]:
        atoms = one.atoms.copy()
        atoms.info |= {"dft_energy": one.energy / HARTREE, "note": "kept"}
        atoms.arrays["dft_forces"] = one.forces / HARTREE
        images.append(atoms)
    ase.io.write(tmp_path / "in.xyz", images, format="extxyz")
    frames = read_frames([tmp_path / "in.xyz"], Keys(), FileUnits(energy="Hartree"))
    (image, *_) = to_images(frames)
    assert "dft_energy" not in image.info
    assert "dft_forces" not in image.arrays
    assert image.info["note"] == "kept"
    assert image.info["REF_energy"] == pytest.approx(crystals[0].energy)


def test_check_writes_json_and_what_it_mends(clusters, tmp_path: Path, capsys) -> None:
    from surefoot.cli import check
    from surefoot.cli.options import LabelOptions

    images = []
    for one in [*clusters, clusters[4]]:
        atoms = one.atoms.copy()
        atoms.calc = SinglePointCalculator(atoms, energy=one.energy, forces=one.forces)
        images.append(atoms)
    ase.io.write(tmp_path / "in.xyz", images, format="extxyz")
    target = tmp_path / "out.xyz"
    check.run([str(tmp_path / "in.xyz")], fix=target, as_json=True, labels=LabelOptions())
    held = json.loads(capsys.readouterr().out)
    assert held["frames"] == {"train": COUNT + 1}
    assert "duplicate" in [one["code"] for one in held["findings"]]
    assert len(read_frames([target])) == COUNT
    with pytest.raises(ValueError, match="one of the files to be read"):
        check.run([str(target)], fix=target, labels=LabelOptions())


def test_an_atom_that_has_flown_off(clusters, crystals) -> None:
    positions = clusters[6].atoms.positions.copy()
    positions[3] += [0.0, 0.0, 30.0]
    found = only(
        changed(clusters, 6, atoms=moved(clusters[6], positions=positions).atoms), "lone-atom"
    )
    assert (found.frame, found.atom, found.count) == (6, 3, 1)
    big = bulk("Cu", cubic=True).repeat(2)
    wide = label(big, 20)
    atoms = wide.atoms.copy()
    atoms.set_cell([7.2, 7.2, 40.0])
    atoms.positions[5] = [1.0, 1.0, 24.0]
    findings = check_frames({"train": [*crystals, replace(wide, atoms=atoms)]})
    assert ("lone-atom", 20, 5) in [(one.code, one.frame, one.atom) for one in findings]


def test_many_that_are_pulled_apart_are_meant_to_be(clusters) -> None:
    apart = []
    for frame in clusters:
        positions = frame.atoms.positions.copy()
        positions[3] += [0.0, 0.0, 30.0]
        apart.append(moved(frame, positions=positions))
    assert "lone-atom" not in [one.code for one in check_frames({"train": apart})]


def test_two_levels_that_only_energies_tell(clusters) -> None:
    half = [
        replace(one, config_type="hot", energy=one.energy - 20.0) if n % 2 else one
        for n, one in enumerate(clusters)
    ]
    found = only(half, "two-references")
    assert found.value == pytest.approx(-2.0, abs=0.05)
    assert found.count == COUNT // 2
    near = [replace(one, energy=one.energy + 15.0 * (n % 2)) for n, one in enumerate(half)]
    assert check_frames({"train": near}) == []  # 0.5 eV/atom: a stretched structure may have that
    squeezed = [
        moved(one, positions=0.8 * one.atoms.positions) if n % 2 else one
        for n, one in enumerate(half)
    ]
    assert "two-references" not in [one.code for one in check_frames({"train": squeezed})]


def test_one_kind_of_frames_whose_forces_are_gradients(clusters) -> None:
    kinds = [
        *clusters,
        *(
            replace(one, config_type="x", forces=-one.forces, index=COUNT + one.index)
            for one in clusters
        ),
    ]
    found = [one for one in check_frames({"train": kinds}) if one.code == "forces-sign"]
    assert [one.frame >= COUNT for one in found] == [True]
    assert found[0].message.startswith("made.xyz, config_type 'x': ")
    assert mend(kinds, found).done == []  # the file as a whole is not of the wrong sign


@pytest.mark.parametrize("said", [False, 0, "F"])
def test_a_calculation_that_says_it_has_not_converged(clusters, said: object) -> None:
    atoms = clusters[3].atoms.copy()
    atoms.info["scf_converged"] = said
    fine = clusters[4].atoms.copy()
    fine.info["scf_converged"] = True
    frames = changed(changed(clusters, 3, atoms=atoms), 4, atoms=fine)
    found = only(frames, "unconverged")
    assert (found.frame, found.count) == (3, 1)


@pytest.mark.parametrize("factor", [1 / BOHR, BOHR])
def test_positions_that_are_not_in_angstrom(clusters, crystals, factor: float) -> None:
    for frames in (clusters, crystals):
        scaled = [
            moved(one, positions=factor * one.atoms.positions, cell=factor * one.atoms.cell.array)
            for one in frames
        ]
        found = {one.code: one for one in check_frames({"train": scaled})}
        assert found["length-unit"].count == COUNT
        assert found["length-unit"].severity is Severity.ERROR
