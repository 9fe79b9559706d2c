"""OC20 from chunks to a submission: train, evaluate, predict, relax, and what is refused."""

import json
import zlib
from pathlib import Path

import ase.io
import lmdb
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import add_adsorbate, fcc111
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.db.row import atoms2dict

from surefoot.cli.commented import write_template
from surefoot.cli.config import load_config
from surefoot.cli.oc20 import measure_oc20, read_predictions, relaxed
from surefoot.cli.screen import UserError
from surefoot.cli.tasks import TASKS
from surefoot.data.read import Keys, read_frames
from surefoot.graph import Targets
from surefoot.posteriors.calibration import Calibration
from surefoot.posteriors.judge import Judged
from surefoot.prediction import Moments, Prediction

REFERENCE = 3.0  # eV; EMT gives small slabs positive energies
TINY = ("layers=1", "lmax=2", "channels=4", "hidden=8", "edge=4", "gaussians=8", "samples=16",
        "cutoff=4")  # fmt: skip


def slab(number: int) -> Atoms:
    """A copper slab with oxygen, the lower layers held, labelled by EMT: for smoke tests only."""
    atoms = fcc111("Cu", (1, 1, 3), vacuum=5.0)
    add_adsorbate(atoms, "O", 1.3, ("fcc", "hcp", "ontop")[number % 3])
    atoms.info = {}
    atoms.set_pbc(True)
    atoms.set_tags([0, 0, 1, 2])
    atoms.set_constraint(FixAtoms([0, 1]))
    atoms.positions += np.random.default_rng(number).normal(scale=0.1, size=(4, 3))
    atoms.calc = EMT()
    labels = {
        "energy": atoms.get_potential_energy(),
        "forces": atoms.get_forces(apply_constraint=False),
    }
    atoms.calc = SinglePointCalculator(atoms, **labels)
    return atoms


def write_chunk(path: Path, first: int, count: int) -> Path:
    ase.io.write(path, [slab(first + n) for n in range(count)])
    lines = [f"random{first + n // 2},frame{n},{REFERENCE}" for n in range(count)]
    path.with_suffix(".txt").write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def chunks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("chunks")
    write_chunk(folder / "0.extxyz", 0, 24)
    write_chunk(folder / "1.extxyz", 100, 6)
    return folder


@pytest.fixture(scope="module")
def trained(chunks: Path, surefoot) -> Path:
    """The small recipe of S2EF, made smaller still, for a few epochs."""
    config = chunks / "s2ef.yaml"
    surefoot("template", chunks / "0.extxyz", "--task", "oc20_s2ef_small", "-o", config)
    options = [f"--set=model.{value}" for value in TINY]
    options += ["--set=train.epochs=2", "--set=train.threads=1"]
    options += ["--set=data.keys.reference=reference_energy", "--set=train.batch.atoms=20"]
    done = surefoot("train", config, "-o", chunks / "s2ef", *options)
    assert "calculator − reference_energy" in done.stdout
    assert "scale 2.887" in done.stdout
    return chunks / "s2ef" / "potential.safetensors"


@pytest.mark.parametrize("task", sorted(name for name in TASKS if name.startswith("oc20")))
def test_recipes_are_configs(task: str, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(write_template(["a.lmdb"], task=task))
    config = load_config(path)
    assert config.train.average >= 0.99
    assert config.train.clip_norm == 100.0
    assert config.train.amsgrad
    assert config.data.scale == 2.8873
    assert config.loss.energy * config.data.scale == pytest.approx(2.0, abs=1e-5)
    assert (config.loss.energy_rule, config.loss.energy_power) == ("absolute", 0.0)
    assert config.head.offset * config.data.scale == pytest.approx(-0.7554, abs=1e-5)
    if "s2ef" in task:
        assert config.loss.forces * config.data.scale == pytest.approx(100.0, abs=1e-4)
        assert config.loss.forces_rule == "norm"


def test_the_published_recipe() -> None:
    train = TASKS["oc20_s2ef"]["train"]
    assert (train["learning_rate"], train["weight_decay"], train["average"]) == (4e-4, 0.01, 0.999)
    assert train["batch"]["graphs"] == 48
    # Decays after 5, 7, 9 and 11 of 12 epochs of what is left of two million structures.
    learned = (1 - TASKS["oc20_s2ef"]["data"]["valid"]) * 2e6
    epochs = [step * 48 / learned for step in train["schedule"]["milestones"]]
    assert epochs == pytest.approx([5, 7, 9, 11], abs=1e-4)


def test_recipes_that_are_not_there() -> None:
    with pytest.raises(UserError, match="--task oc20: not known; there is oc20_s2ef"):
        write_template(["a"], task="oc20")
    with pytest.raises(UserError, match="leave the other options out"):
        write_template(["a"], model="mace", task="oc20_s2ef")


def test_evaluate_shows_the_figures_of_oc20(trained, chunks, surefoot, tmp_path) -> None:
    files = ("evaluate", trained, chunks / "1.extxyz", "--reference-key", "reference_energy")
    output = tmp_path / "report.json"
    done = surefoot(*files, "--oc20", "-o", output)
    assert "EFwT" in done.stdout
    assert "AFbT is not among them: it needs a DFT" in done.stdout
    figures = json.loads(output.read_text())["oc20"]
    predicted = tmp_path / "p.extxyz"
    surefoot("predict", trained, chunks / "1.extxyz", "-o", predicted,
             "--reference-key", "reference_energy")  # fmt: skip
    images = ase.io.read(predicted, ":")
    assert isinstance(images, list)
    ours = np.array([atoms.calc.results["energy"] for atoms in images])
    truth = np.array([slab(100 + n).calc.results["energy"] - REFERENCE for n in range(6)])
    assert figures["energy MAE, eV"] == pytest.approx(np.abs(ours - truth).mean(), abs=1e-5)
    errors = np.concatenate([
        atoms.calc.results["forces"][2:] - slab(100 + n).calc.results["forces"][2:]
        for n, atoms in enumerate(images)
    ])  # fmt: skip
    assert figures["force MAE, eV/Å"] == pytest.approx(np.abs(errors).mean(), abs=1e-5)


def test_figures_of_s2ef_by_hand() -> None:
    """A structure without forces counts for the energy alone, one that is all fixed by its energy.

    The third has one free atom; what its held atom is told counts nowhere.
    """
    energies = torch.tensor([0.5, 0.01, -0.015], dtype=torch.float64)
    forces = torch.zeros((6, 3), dtype=torch.float64)
    forces[0], forces[2], forces[4] = 7.0, 8.0, 9.0  # not labelled, held, held
    forces[5] = torch.tensor([0.02, -0.025, 0.0])
    labels = torch.zeros((6, 3), dtype=torch.float64)
    labels[5, 2] = 0.029
    judged = Judged(
        prediction=Prediction(energy=Moments(mean=energies), forces=Moments(mean=forces)),
        targets=Targets(
            energy=torch.zeros(3, dtype=torch.float64),
            forces=labels,
            stress=torch.zeros((3, 3, 3), dtype=torch.float64),
            has_energy=torch.tensor([True, True, True]),
            has_forces=torch.tensor([False, True, True]),
            has_stress=torch.zeros(3, dtype=torch.bool),
            weight=torch.ones(3, dtype=torch.float64),
            fixed=torch.tensor([False, False, True, True, True, False]),
            group=torch.arange(3),
        ),
        sizes=np.array([2, 2, 2]),
        calibration=Calibration(),
    )
    figures = measure_oc20(judged)
    assert figures["energy MAE, eV"] == pytest.approx((0.5 + 0.01 + 0.015) / 3)
    assert figures["EwT, %"] == pytest.approx(200 / 3)
    assert figures["force MAE, eV/Å"] == pytest.approx((0.02 + 0.025 + 0.029) / 3)
    # Of the two with forces; both are within, until the free atom is off by more.
    assert figures["EFwT, %"] == pytest.approx(100.0)
    forces[5, 2] = -0.002
    assert measure_oc20(judged)["EFwT, %"] == pytest.approx(50.0)
    energies[1] = 0.02
    assert measure_oc20(judged)["EFwT, %"] == pytest.approx(0.0)


def test_submission_of_s2ef(trained, chunks, surefoot, tmp_path) -> None:
    predicted, output = tmp_path / "id.extxyz", tmp_path / "s2ef.npz"
    surefoot("predict", trained, chunks / "1.extxyz", "-o", predicted)
    options = ("--id", predicted, "--ood-ads", predicted, "-o", output)
    done = surefoot("oc20", "submit", "--task", "s2ef", *options)
    assert "id 6, ood_ads 6" in done.stdout
    assert "the leaderboard wants ood_cat, ood_both too" in done.stderr
    images = ase.io.read(predicted, ":")
    with np.load(output) as arrays:
        assert arrays["id_ids"].tolist() == [f"{100 + n // 2}_{n}" for n in range(6)]
        energies = [atoms.calc.results["energy"] for atoms in images]
        assert arrays["id_energy"] == pytest.approx(energies, abs=1e-5)
        assert arrays["id_chunk_idx"].tolist() == [4, 8, 12, 16, 20]
        forces = np.split(arrays["id_forces"], arrays["id_chunk_idx"])
        for found, atoms in zip(forces, images, strict=True):
            assert found == pytest.approx(atoms.calc.results["forces"], abs=1e-5)
    surefoot("oc20", "submit", "--task", "s2ef", *options[:2], "-o", output, "--free-only")
    with np.load(output) as arrays:
        forces = np.split(arrays["id_forces"], arrays["id_chunk_idx"])
        for found, atoms in zip(forces, images, strict=True):
            assert found == pytest.approx(atoms.calc.results["forces"][2:], abs=1e-5)


def test_relaxed_structures_beside_labels(trained, chunks, surefoot, tmp_path) -> None:
    """Targets made of what `relax` found, moved by a known distance and through the cell."""
    few, relaxed = tmp_path / "few.extxyz", tmp_path / "relaxed.extxyz"
    initial = ase.io.read(chunks / "1.extxyz", ":3")
    assert isinstance(initial, list)
    for number, atoms in enumerate(initial):
        atoms.info["sid"] = number
    ase.io.write(few, initial)
    steps = ("--steps", 3, "--fmax", 1e-6, "--longest-step", 0.04, "--memory", 50)
    surefoot("relax", trained, few, "-o", relaxed, *steps)
    targets = ase.io.read(relaxed, ":")
    assert isinstance(targets, list)
    for number, atoms in enumerate(targets):
        assert np.array_equal(atoms.constraints[0].index, [0, 1])
        assert np.array_equal(atoms.positions[:2], initial[number].positions[:2])
        assert np.abs(atoms.positions - initial[number].positions).max() < 3 * 0.04 + 1e-6
        energy = atoms.calc.results["energy"]
        atoms.set_constraint()
        atoms.positions[2:] += [0.0, 0.0, (0.005, 0.0995, 0.7)[number]]
        atoms.positions += [1, -1, 2] @ atoms.cell.array
        atoms.info = {"sid": number, "y_relaxed": energy + (0.01, -0.03, 0.0)[number]}
        atoms.calc = None
    ase.io.write(tmp_path / "targets.extxyz", targets[::-1])
    output = tmp_path / "figures.json"
    done = surefoot("oc20", "relaxed", relaxed, tmp_path / "targets.extxyz", "-o", output)
    figures = json.loads(output.read_text())["all"]
    assert figures["ADwT, %"] == pytest.approx(100 * (490 + 400 + 0) / 490 / 3)
    assert figures["mean distance, Å"] == pytest.approx((0.005 + 0.0995 + 0.7) / 3, abs=1e-6)
    assert figures["energy MAE, eV"] == pytest.approx(0.04 / 3, abs=1e-6)
    assert figures["EwT, %"] == pytest.approx(200 / 3)
    assert figures["with energies"] == 3
    assert "AFbT is not among them" in done.stdout
    submission = tmp_path / "is2re.npz"
    done = surefoot("oc20", "submit", "--task", "is2re", "--id", relaxed, "-o", submission)
    assert "relaxations that did not converge" in done.stderr
    with np.load(submission) as arrays:
        assert sorted(arrays) == ["id_energy", "id_ids"]
        assert arrays["id_ids"].tolist() == ["0", "1", "2"]


@pytest.fixture
def moved(tmp_path: Path) -> Path:
    """Two structures as `relax` writes them, the first with a relaxed energy beside it."""
    images = []
    for number in range(2):
        atoms = slab(number)
        atoms.info = {"sid": number, "predicted_by": "p", "relax_status": "converged"}
        atoms.info |= {"y_relaxed": atoms.calc.results["energy"] - 0.5} if number == 0 else {}
        images.append(atoms)
    ase.io.write(tmp_path / "moved.extxyz", images)
    return tmp_path / "moved.extxyz"


def run_relaxed(*args: object, output: Path) -> dict[str, dict[str, float]]:
    relaxed(*map(str, args), energy_key="y_relaxed", output=output)
    return json.loads(output.read_text())


def test_broken_relaxations_are_left_out_and_counted(moved: Path, tmp_path: Path, capfd) -> None:
    images = ase.io.read(moved, ":")
    assert isinstance(images, list)
    images[1].info["relax_status"] = "broken"
    nothing = np.full((len(images[1]), 3), np.nan)
    images[1].calc = SinglePointCalculator(images[1], energy=np.nan, forces=nothing)
    for atoms in images:
        atoms.arrays["pos_relaxed"] = atoms.positions + 0.1
    file = tmp_path / "half.extxyz"
    ase.io.write(file, images)
    figures = run_relaxed(file, output=tmp_path / "f.json")["all"]
    assert figures["count"] == 1
    assert np.isfinite(figures["mean distance, Å"])
    assert "1 of 2 relaxations broke" in capfd.readouterr().err
    assert read_predictions(str(file), "is2re").ids == ["0"]
    assert "1 structures have an energy that is no number" in capfd.readouterr().err


def test_energies_are_counted_by_themselves(moved: Path, tmp_path: Path) -> None:
    """One of two structures has a label, so its errors are those of one."""
    images = ase.io.read(moved, ":")
    ase.io.write(tmp_path / "targets.extxyz", images)
    figures = run_relaxed(moved, tmp_path / "targets.extxyz", output=tmp_path / "f.json")["all"]
    assert (figures["count"], figures["with energies"]) == (2, 1)
    assert figures["energy MAE, eV"] == pytest.approx(0.5)


def test_targets_of_one_sid_are_refused(moved: Path, tmp_path: Path) -> None:
    images = ase.io.read(moved, ":")
    assert isinstance(images, list)
    ase.io.write(tmp_path / "targets.extxyz", [*images, images[0]])
    with pytest.raises(UserError, match="frame 2: its sid 0 was there before"):
        run_relaxed(moved, tmp_path / "targets.extxyz", output=tmp_path / "f.json")


def test_energies_that_nobody_has_are_refused(moved: Path, tmp_path: Path) -> None:
    """What the calculator of a relaxed structure holds is the prediction itself."""
    with pytest.raises(UserError, match="holds what was predicted; name a file"):
        relaxed(str(moved), energy_key="calculator")
    with pytest.raises(UserError, match=r"--energy-key y_relaxd: no structure of .* has it"):
        relaxed(str(moved), str(moved), energy_key="y_relaxd")


def test_direct_models_learn_relaxed_energies(chunks, surefoot, tmp_path) -> None:
    """IS2RE direct: the label is another structure's energy, and there are no forces."""
    images = [slab(number) for number in range(12)]
    for number, atoms in enumerate(images):
        atoms.info = {"sid": number, "y_relaxed": 0.1 * number}
    ase.io.write(tmp_path / "is2re.extxyz", images)
    config = tmp_path / "c.yaml"
    task = ("--task", "oc20_is2re_small", "-o", config)
    surefoot("template", tmp_path / "is2re.extxyz", *task)
    options = [f"--set=model.{value}" for value in TINY]
    options += ["--set=train.epochs=1", "--set=train.threads=1"]
    done = surefoot("train", config, "-o", tmp_path / "run", *options)
    assert "(y_relaxed), forces 0/" in done.stdout
    keys = ("--energy-key", "y_relaxed", "--forces-key", "none", "--oc20")
    potential = tmp_path / "run" / "potential.safetensors"
    done = surefoot("evaluate", potential, tmp_path / "is2re.extxyz", *keys)
    assert "EwT" in done.stdout
    assert "EFwT" not in done.stdout


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--task", "is2rs", "--id", "P"], "--task is2rs: not known; there is s2ef and is2re"),
        ([], "no split is given"),
        (["--task", "is2re", "--free-only"], "--free-only: there are forces in s2ef alone"),
        (["--id", "C"], "`surefoot predict` or `relax` has not written it"),
        (["--id", "P", "--ood-ads", "T"], "its info has no sid"),
    ],
)
def test_submissions_that_can_not_be(
    options, words: str, trained, chunks, surefoot, tmp_path
) -> None:
    predicted, plain = tmp_path / "p.extxyz", tmp_path / "plain.extxyz"
    surefoot("predict", trained, chunks / "1.extxyz", "-o", predicted)
    ase.io.write(plain, slab(0))
    files = {"P": predicted, "C": chunks / "1.extxyz", "T": plain}
    given = [files.get(option, option) for option in options]
    done = surefoot("oc20", "submit", *given, "-o", tmp_path / "a.npz", check=False)
    assert done.returncode == 1
    assert words in done.stderr


def test_labels_of_an_lmdb_of_ase(chunks, tmp_path) -> None:
    """What `surefoot` reads of chunks and of LMDB is the same structure."""
    atoms = slab(5)
    row = atoms2dict(atoms) | {
        "calculator": "emt",
        "energy": atoms.calc.results["energy"],
        "forces": atoms.calc.results["forces"],
        "key_value_pairs": {"sid": 2, "reference_energy": REFERENCE},
    }
    text = json.dumps(row, default=lambda value: np.asarray(value).tolist())
    path = str(tmp_path / "a.aselmdb")
    with lmdb.open(path, subdir=False, lock=False) as data, data.begin(write=True) as transaction:
        transaction.put(b"1", zlib.compress(text.encode()))
    keys = Keys(reference="reference_energy")
    (stored,) = read_frames([tmp_path / "a.aselmdb"], keys)
    chunk = read_frames([chunks / "0.extxyz"], keys)[5]
    assert stored.energy == pytest.approx(chunk.energy, abs=1e-7)
    assert stored.sid == chunk.sid
    assert np.allclose(stored.atoms.positions, chunk.atoms.positions, atol=1e-7)
