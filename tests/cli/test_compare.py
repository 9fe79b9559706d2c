"""calibrate and compare: what they write, and what they refuse."""

import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator

from surefoot.blocks.reference import Baseline
from surefoot.calculator import SurefootCalculator
from surefoot.cli.compare import _name, _plain
from surefoot.data.convert import to_graph
from surefoot.data.load import hash_files
from surefoot.heads import Sphere
from surefoot.models.scn import Scn
from surefoot.posteriors.calibration import Calibration
from surefoot.posteriors.posterior import Single
from surefoot.posteriors.predictor import build_predictor, load_predictor
from surefoot.potential import Potential


def labelled(images: list[Atoms], width: float, seed: int) -> list[Atoms]:
    """Rattled once more, with labels anew."""
    rng = np.random.default_rng(seed)
    for atoms in images:
        atoms.calc = None
        atoms.positions += width * rng.normal(size=atoms.positions.shape)
        atoms.calc = EMT()
        energy, forces = atoms.get_potential_energy(), atoms.get_forces()
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
    return images


@pytest.fixture(scope="module")
def files(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Frames like those of training that nobody has learnt from, and others."""
    place = tmp_path_factory.mktemp("compare")
    held = labelled(ase.io.read(folder / "train.xyz", ":"), 0.1, 1)
    for number, atoms in enumerate(held):
        atoms.info["group"] = f"h{number // 2}"  # as many groups as intervals of 95 % need
    hot = labelled(ase.io.read(folder / "test.xyz", ":"), 0.3, 2)
    ase.io.write(place / "held.xyz", held)
    ase.io.write(place / "hot.xyz", hot)
    return {"held": place / "held.xyz", "hot": place / "hot.xyz", "folder": place}


@pytest.fixture(scope="module")
def recalibrated(surefoot, potential: Path, folder: Path, files) -> Path:
    target = files["folder"] / "other" / "potential.safetensors"
    surefoot("calibrate", potential, "--held-out", files["held"], "--train", folder / "train.xyz",
             "-o", target)  # fmt: skip
    return target


def test_calibrate_makes_factors_intervals_and_a_gate(
    potential: Path, recalibrated: Path, files
) -> None:
    before, after = load_predictor(potential), load_predictor(recalibrated)
    assert after.calibration.source == "40 frames in 20 groups set aside"
    assert after.calibration.forces != before.calibration.forces
    assert set(after.calibration.levels) == {"energy", "forces"}
    assert after.gate is not None
    assert after.gate.source.startswith("40 frames; the edge encloses 95% of 40")
    (content,) = after.provenance.pop("calibrated_on").values()
    assert content == hashlib.sha256(files["held"].read_bytes()).hexdigest()
    assert after.provenance == before.provenance
    assert all((after.weights[name] == value).all() for name, value in before.weights.items())


def test_training_leaves_a_gate(potential: Path) -> None:
    """From the frames that the first member has left out."""
    gate = load_predictor(potential).gate
    assert gate is not None
    found = re.fullmatch(r"(\d+) frames; the edge encloses 95% of (\d+) set aside", gate.source)
    assert found is not None
    learnt, aside = map(int, found.groups())
    assert learnt + aside == 40
    assert aside >= 16  # two of four folds


def test_calibrate_refuses_what_was_learnt_from(
    surefoot, potential: Path, folder, tmp_path
) -> None:
    (tmp_path / "copy.xyz").write_bytes((folder / "train.xyz").read_bytes())
    target = tmp_path / "p.safetensors"
    for name in (folder / "train.xyz", tmp_path / "copy.xyz"):
        done = surefoot("calibrate", potential, "--held-out", name, "-o", target, check=False)
        assert done.returncode == 1
        assert f"{name}: the potential was trained on 40 of its frames" in done.stderr
    some = ase.io.read(folder / "train.xyz", "3:5") + ase.io.read(folder / "test.xyz", ":")
    ase.io.write(tmp_path / "some.xyz", some)
    done = surefoot("calibrate", potential, "--held-out", tmp_path / "some.xyz", "-o", target,
                    check=False)  # fmt: skip
    assert "some.xyz: the potential was trained on 2 of its frames" in done.stderr
    twice = ["--held-out", folder / "test.xyz", "--train", folder / "test.xyz"]
    done = surefoot("calibrate", potential, *twice, "-o", target, check=False)
    assert f"{folder / 'test.xyz'}: the potential was trained on this file" in done.stderr
    assert not target.exists()


def test_an_older_potential_knows_files_by_their_content(
    surefoot, potential: Path, folder: Path, files, tmp_path: Path
) -> None:
    """Not by their names: that it was validated on the one says nothing of the other."""
    older, target = tmp_path / "older.safetensors", tmp_path / "p.safetensors"
    before = load_predictor(potential)
    for kind in ("learnt", "valid"):
        (tmp_path / kind).mkdir()
    (tmp_path / "learnt" / "data.xyz").write_bytes((folder / "train.xyz").read_bytes())
    (tmp_path / "valid" / "data.xyz").write_bytes(files["held"].read_bytes())
    names = [str(tmp_path / kind / "data.xyz") for kind in ("learnt", "valid")]
    data = {"train": names[:1], "valid": names[1:]}
    provenance = {"config": {"data": data}, "files": hash_files(names)}
    replace(before, learnt=None, provenance=provenance).save(older)
    done = surefoot("calibrate", older, "--held-out", names[0], "-o", target, check=False)
    assert f"{names[0]}: the potential was trained on 40 of its frames" in done.stderr
    surefoot("calibrate", older, "--held-out", names[1], "-o", target)
    assert target.exists()


def test_what_frames_can_not_calibrate_is_said(
    surefoot, recalibrated: Path, files, tmp_path: Path
) -> None:
    images = ase.io.read(files["held"], ":")
    target = tmp_path / "p.safetensors"
    for atoms in images:
        del atoms.calc.results["energy"]
    ase.io.write(tmp_path / "forces.xyz", images)
    done = surefoot("calibrate", recalibrated, "--held-out", tmp_path / "forces.xyz", "-o", target)
    assert "no longer calibrated, as these frames tell nothing of it: energy" in done.stdout
    assert load_predictor(target).calibration.energy is None


def test_a_calibration_is_not_thrown_away_for_nothing(
    surefoot, folder: Path, files, tmp_path: Path
) -> None:
    """One set of weights with a scalar head has no error bars."""
    one = ["--set", "posterior.members=1", "--set", "posterior.left_out=0"]
    surefoot("train", folder / "config.yaml", "-o", tmp_path / "one", *one, "--set",
             "train.epochs=1")  # fmt: skip
    target = tmp_path / "p.safetensors"
    potential = tmp_path / "one" / "potential.safetensors"
    command = ["calibrate", potential, "--held-out", files["held"], "-o", target]
    done = surefoot(*command, check=False)
    assert "has no error bars, so nothing is written" in done.stderr
    assert not target.exists()
    surefoot(*command, "--train", folder / "train.xyz")
    assert load_predictor(target).gate is not None


def test_test_frames_that_are_known_are_told(
    surefoot, potential: Path, recalibrated: Path, folder: Path, files, tmp_path: Path
) -> None:
    done = surefoot("evaluate", potential, folder / "train.xyz", folder / "test.xyz")
    assert "the potential has learnt from 40 of the 52 frames it is tested on" in done.stderr
    assert "learnt from" not in surefoot("evaluate", potential, folder / "test.xyz").stderr
    done = surefoot("compare", recalibrated, files["held"], "-o", tmp_path / "report")
    assert f"{files['held']} calibrated the error bars of potential" in done.stderr


def test_calibrate_needs_enough_frames(surefoot, potential: Path, files, tmp_path) -> None:
    few = tmp_path / "few.xyz"
    ase.io.write(few, ase.io.read(files["held"], ":7"))
    target = tmp_path / "p.safetensors"
    done = surefoot("calibrate", potential, "--held-out", few, "-o", target, check=False)
    assert done.returncode == 1
    assert "7 frames with labels are too few" in done.stderr
    assert "at least 10 are needed" in done.stderr
    assert not target.exists()


def test_calibrate_refuses_labels_that_are_no_numbers(surefoot, potential, files, tmp_path) -> None:
    images = ase.io.read(files["held"], ":12")
    images[5].calc.results["energy"] = np.nan
    ase.io.write(tmp_path / "nan.xyz", images)
    done = surefoot("calibrate", potential, "--held-out", tmp_path / "nan.xyz", "-o",
                    tmp_path / "p.safetensors", check=False)  # fmt: skip
    assert done.returncode == 1
    assert "nan.xyz, frame 5" in done.stderr


@pytest.fixture(scope="module")
def compared(surefoot, potential: Path, recalibrated: Path, folder: Path, files):
    output = files["folder"] / "report"
    done = surefoot("compare", potential, recalibrated, folder / "test.xyz", "--ood",
                    files["hot"], "-o", output)  # fmt: skip
    return done, output


def test_compare_writes_a_table_and_all_figures(compared) -> None:
    done, output = compared
    for part in ("12 test structures", "12 other structures", "forces RMSE", "cost / plain",
                 "95 % before → after", "95 % conformal", "AUROC", "ood"):  # fmt: skip
        assert part in done.stdout
    assert "timing" in done.stderr
    report = json.loads((output / "report.json").read_text())
    names = list(report["potentials"])
    assert names == ["model", "other"]
    for found in report["potentials"].values():
        assert found["cost"]["over_plain"] > 0.5
        assert found["training"]["epochs"] == 4
        for part, count in (("test", 12), ("ood", 12)):
            assert found[part]["accuracy"]["energy"]["all"]["count"] == count
            scores = found[part]["uncertainty"]["forces"]
            assert {"before", "after", "recalibrated", "strata", "curves"} <= set(scores)
            assert {"ence", "ence_reference", "ause", "crps"} <= set(scores["after"])
            assert {"element", "|force|", "atoms", "config_type"} == set(scores["strata"])
            assert set(found[part]["atoms"]) == {"force σ", "ood", "predicted force"}
            low, high = found[part]["accuracy"]["forces"]["all"]["rmse_interval"]
            assert low < found[part]["accuracy"]["forces"]["all"]["rmse"] < high
            assert found[part]["differences"]["pairs"] > 0
        detected = found["failures"]["auroc"]
        assert {"ood", "predicted rms force", "predicted energy per atom"} <= set(detected)
        assert detected["ood"]["strangers"][0] > 0.8
    first, second = (report["potentials"][name] for name in names)
    assert first["training"]["seconds"] > 0
    assert second["training"]["seconds"] == first["training"]["seconds"]  # in the file itself
    assert first["test"]["accuracy"] == second["test"]["accuracy"]
    assert "conformal" not in first["test"]["uncertainty"]["forces"]["recalibrated"]
    levels = second["test"]["uncertainty"]["forces"]["recalibrated"]
    assert set(levels) == {"isotonic", "conformal"}
    after = second["test"]["uncertainty"]["forces"]["after"]["coverage_95"][0]
    covered = levels["conformal"]["coverage_95"][0]
    assert covered >= 0.9  # 12 frames like those it was calibrated on; 95 % to within their scatter
    assert abs(covered - after) < 0.1


def test_a_potential_may_be_called_plain(
    surefoot, potential: Path, folder: Path, tmp_path: Path
) -> None:
    """The plain model that costs are given by is another."""
    one = ["--set", "posterior.members=1", "--set", "posterior.left_out=0"]
    surefoot("train", folder / "config.yaml", "-o", tmp_path / "one", *one, "--set",
             "train.epochs=1")  # fmt: skip
    (tmp_path / "one" / "potential.safetensors").rename(tmp_path / "[old] simple.safetensors")
    (tmp_path / "plain.safetensors").write_bytes(potential.read_bytes())
    report = tmp_path / "report"
    both = [tmp_path / f"{name}.safetensors" for name in ("plain", "[old] simple")]
    done = surefoot("compare", *both, folder / "test.xyz", "-o", report)
    found = json.loads((report / "report.json").read_text())
    costs = {name: one["cost"]["over_plain"] for name, one in found["potentials"].items()}
    assert costs["plain"] > costs["[old] simple"]  # four members, and one set of weights
    assert found["cost"]["milliseconds"] != found["potentials"]["plain"]["cost"]["milliseconds"]
    assert "[old] simple" in done.stdout  # not read as markup
    training = {name: one["training"] for name, one in found["potentials"].items()}
    assert training["[old] simple"]["over_plain"] == 1.0
    expected = training["plain"]["seconds"] / training["[old] simple"]["seconds"]
    assert training["plain"]["over_plain"] == pytest.approx(expected)


def test_labels_of_different_kinds_look_for_failures_of_one(
    surefoot, potential: Path, folder: Path, files, tmp_path: Path
) -> None:
    energies, forces = (ase.io.read(files["hot"], ":") for _ in range(2))
    for atoms in energies:
        del atoms.calc.results["forces"]
    for atoms in forces:
        del atoms.calc.results["energy"]
    ase.io.write(tmp_path / "energies.xyz", energies)
    ase.io.write(tmp_path / "forces.xyz", forces)
    test = folder / "test.xyz"
    for verb, ood in (("evaluate", []), ("compare", ["--ood"])):
        one = [*ood, tmp_path / "energies.xyz"]
        surefoot(verb, potential, test, *one, "-o", tmp_path / verb)
        path = tmp_path / verb if verb == "evaluate" else tmp_path / verb / "report.json"
        found = json.loads(path.read_text())
        found = found if verb == "evaluate" else found["potentials"]["potential"]
        assert "predicted rms force" not in found["failures"]["auroc"]
        assert found["failures"]["inside"] == 12
        both = [tmp_path / "forces.xyz", *one]
        done = surefoot(verb, potential, *both, "-o", tmp_path / f"{verb} 2")
        assert "have no labels of one kind" in re.sub(r"\s+", " ", done.stdout)


@pytest.mark.parametrize("verb", ["evaluate", "compare"])
def test_isolated_atoms_are_no_structures(
    verb, surefoot, potential: Path, folder: Path, tmp_path: Path
) -> None:
    """As the first frames of a file they would make all others strangers."""
    lone = Atoms("Cu")
    lone.calc = SinglePointCalculator(lone, energy=-1.0)
    lone.info["config_type"] = "IsolatedAtom"
    ase.io.write(tmp_path / "t.xyz", [lone, *ase.io.read(folder / "test.xyz", ":")])
    done = surefoot(verb, potential, tmp_path / "t.xyz", "-o", tmp_path / "out")
    assert "1 isolated atoms are left out" in done.stdout
    ase.io.write(tmp_path / "l.xyz", [lone])
    done = surefoot(verb, potential, tmp_path / "l.xyz", "-o", tmp_path / "no", check=False)
    assert "there are no structures besides isolated atoms" in done.stderr


def test_conformal_intervals_are_predicted(
    surefoot, recalibrated: Path, potential: Path, folder: Path, tmp_path: Path
) -> None:
    target = tmp_path / "p.xyz"
    done = surefoot("predict", recalibrated, folder / "test.xyz", "-o", target)
    assert "conformal intervals that hold 95 %: energy, forces" in done.stdout
    predictor = load_predictor(recalibrated)
    for atoms in ase.io.read(target, ":3"):
        found = predictor(to_graph(atoms, predictor.cutoff))
        low, high = found.interval(0.95)
        assert atoms.info["energy_interval_95"] == pytest.approx(float(high - low) / 2, rel=1e-6)
        low, high = found.interval(0.95, of="forces")
        width = (0.5 * (high - low)).numpy()
        assert np.allclose(atoms.arrays["forces_interval_95"], width, atol=1e-7)
        atoms.calc = SurefootCalculator(predictor)
        atoms.get_potential_energy()
        assert np.allclose(atoms.calc.results["forces_interval_95"], width)
    surefoot("predict", potential, folder / "test.xyz", "-o", target)
    assert "energy_interval_95" not in ase.io.read(target).info


class Page(HTMLParser):
    """Tags that are open, all text, and whatever a page would load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.plots, self.loads, self.words = 0, [], ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes) -> None:
        self.plots += tag == "svg"
        self.loads += [v for k, v in attributes if k in ("src", "href", "xlink:href")]
        if tag not in ("meta", "line", "rect", "polyline", "circle"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self.open:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


def test_the_report_is_one_page_that_loads_nothing(compared) -> None:
    _, output = compared
    text = (output / "report.html").read_text()
    page = Page(text)
    assert page.open == []
    assert page.loads == []
    assert not re.search(r"https?://|@import|url\(|<script", text)
    assert page.plots == 16  # four of each quantity and set of structures
    for word in ("2 potentials compared", "model", "other", "Sparsification", "PIT", "σ"):
        assert word in page.words
    assert "nan" not in text
    assert {path.name for path in output.iterdir()} == {"report.html", "report.json"}


def test_names_tell_potentials_apart() -> None:
    assert _name(["a/x.safetensors", "b/y.safetensors"]) == ["x", "y"]
    assert _name(["a/p.safetensors", "b/p.safetensors"]) == ["a", "b"]
    assert _name(["a/c/p.safetensors", "b/c/p.safetensors"]) == ["a", "b"]
    assert _name(["a/p.safetensors", "a/q.safetensors", "b/q.safetensors"]) == ["a/p", "a/q", "b/q"]
    assert _name(["p.safetensors"]) == ["p"]


@pytest.mark.parametrize("form", ["smooth", "published"])
def test_what_costs_are_compared_with_has_forces_that_are_a_gradient(form) -> None:
    """Whatever the first potential does: SCN as published has no gradient."""
    model = Scn(form=form, cutoff=4.0, layers=1, lmax=2, channels=4, hidden=8, samples=16)
    baseline = Baseline(elements=(1, 8), energies=(0.0, 0.0), scale=1.0, neighbors=2.0)
    potential = Potential(model=model, head=Sphere(forces="direct"), baseline=baseline)
    single = Single(potential.init(0, torch.float64))
    plain = _plain(build_predictor(potential, single, Calibration(), {}))
    found = plain(to_graph(molecule("H2O"), 4.0))
    assert plain.potential.head.forces == "gradient"
    assert found.forces is not None
    assert float(found.forces.mean.abs().max()) > 0
    assert float(found.forces.mean.sum(0).abs().max()) < 1e-10


def test_two_paths_to_one_potential_are_one(
    surefoot, potential: Path, folder: Path, tmp_path
) -> None:
    other = potential.parent / ".." / potential.parent.name / potential.name
    for command in (["compare", potential, other, folder / "test.xyz"],
                    ["combine", potential, other]):  # fmt: skip
        done = surefoot(*command, "-o", tmp_path / "out", check=False)
        assert done.returncode == 1
        assert "this potential is named twice" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["{potential}"], "1 potentials (.safetensors) and 0 files"),
        (["{test}"], "0 potentials (.safetensors) and 1 files"),
        (["{potential}", "{potential}", "{test}"], "named twice"),
        (["{potential}", "none.xyz"], "none.xyz"),
        (["none.safetensors", "{test}"], "none.safetensors: there is no such file"),
        (["{potential}", "{bare}"], "no energies or forces were found"),
        (["{potential}", "{water}"], "model: "),
    ],
)
def test_bad_input_is_a_sentence(
    surefoot, potential: Path, folder: Path, tmp_path: Path, arguments, said: str
) -> None:
    images = ase.io.read(folder / "test.xyz", ":2")
    for atoms in images:
        atoms.calc = None
    ase.io.write(tmp_path / "bare.xyz", images)
    ase.io.write(tmp_path / "water.xyz", Atoms("OH", positions=[[0, 0, 0], [0, 0, 1]]))
    places = {
        "potential": potential,
        "test": folder / "test.xyz",
        "bare": tmp_path / "bare.xyz",
        "water": tmp_path / "water.xyz",
    }
    if "water" in arguments[-1]:
        said = "potential: "
    given = [argument.format(**places) for argument in arguments]
    done = surefoot("compare", *given, "-o", tmp_path / "out", check=False)
    assert done.returncode == 1
    assert said in done.stderr
    assert done.stderr.strip().count("\n") == 0
    assert not (tmp_path / "out").exists()


def test_evaluate_of_two_files_looks_for_failures(
    surefoot, potential: Path, folder: Path, files, tmp_path: Path
) -> None:
    report = tmp_path / "r.json"
    done = surefoot("evaluate", potential, folder / "test.xyz", files["hot"], "-o", report)
    assert f"the file {folder / 'test.xyz'} as the distribution" in re.sub(r"\s+", " ", done.stdout)
    found = json.loads(report.read_text())["failures"]
    assert (found["inside"], found["outside"]) == (12, 12)
    assert found["auroc"]["ood"]["strangers"][0] > 0.8


def test_predict_says_which_frames_are_far(
    surefoot, potential: Path, files, tmp_path: Path
) -> None:
    target = tmp_path / "p.xyz"
    done = surefoot("predict", potential, files["hot"], "-o", target)
    images = ase.io.read(target, ":")
    far = [atoms.info["ood"] for atoms in images]
    assert max(far) > 1.0
    assert f"{sum(value > 1 for value in far)} of 12 frames are beyond the edge" in done.stdout
    assert f"frame {int(np.argmax(far))} is the farthest" in done.stdout
    for atoms in images:
        assert atoms.arrays["ood_atoms"].shape == (4,)
        assert atoms.info["ood"] >= atoms.arrays["ood_atoms"].max() - 1e-6
