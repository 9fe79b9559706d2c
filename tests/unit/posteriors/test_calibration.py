"""What calibration found is kept in the file and used by intervals."""

import json

import numpy as np
import pytest
import torch
from ase.build import molecule
from scipy import stats

from surefoot.blocks.reference import Baseline
from surefoot.data.convert import to_graph
from surefoot.evaluate.quantiles import REST, fit_grouped, fit_isotonic
from surefoot.graph import Graph, collate
from surefoot.heads.scalar import Scalar
from surefoot.models.schnet import Schnet
from surefoot.posteriors.calibration import (
    Calibration,
    Levels,
    choose_kinds,
    compositions,
    elements,
    read_calibration,
    sizes,
)
from surefoot.posteriors.ensemble import Ensemble
from surefoot.posteriors.predictor import (
    KIND,
    Predictor,
    build_predictor,
    join_predictions,
    load_predictor,
)
from surefoot.potential import Potential
from surefoot.train.checkpoint import RefusedFile, read_tree, write_tree

CUTOFF = 3.0
POTENTIAL = Potential(
    model=Schnet(cutoff=CUTOFF, features=6, interactions=1, gaussians=6),
    head=Scalar(),
    baseline=Baseline(elements=(1, 6, 8), energies=(-13.0, -7.0, -3.0), scale=1.0, neighbors=5.0),
)
WATER, METHANE = "1:2 8:1", "1:4 6:1"


def graph_of(*names: str) -> Graph:
    return collate([to_graph(molecule(name), CUTOFF) for name in names])


def levels_of(kinds: np.ndarray, widths: dict[str, float], seed: int = 0) -> Levels:
    """Calibrated on normal errors whose width depends on the kind; error bars are all one."""
    rng = np.random.default_rng(seed)
    residuals = np.array([widths[kind] for kind in kinds]) * rng.normal(size=len(kinds))
    ones = np.ones(len(kinds))
    return Levels(
        isotonic=fit_isotonic(residuals, ones),
        conformal=fit_grouped(residuals, ones, kinds, np.arange(len(kinds))),
    )


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    frames = np.repeat([WATER, METHANE, "atoms 4"], 400)
    atoms = np.repeat(["1", "6", "8"], 400)
    return Calibration(
        energy=1.5,
        forces=0.7,
        source="a test",
        levels={
            "energy": levels_of(frames, {WATER: 1.0, METHANE: 0.3, "atoms 4": 3.0}),
            "forces": levels_of(atoms, {"1": 1.0, "6": 0.2, "8": 1.0}),
        },
    )


@pytest.fixture(scope="module")
def predictor(calibration) -> Predictor:
    ensemble = Ensemble(POTENTIAL.init_members(0, 5, torch.float64))
    return build_predictor(POTENTIAL, ensemble, calibration, {})


def test_kinds_of_structures_and_atoms() -> None:
    graph = graph_of("H2O", "CH4", "C2H6")
    assert compositions(graph).tolist() == [WATER, METHANE, "1:6 6:2"]
    assert sizes(graph).tolist() == ["atoms 2", "atoms 4", "atoms 8"]
    assert elements(graph)[:3].tolist() == ["8", "1", "1"]
    chosen = choose_kinds(compositions(graph), sizes(graph), {METHANE})
    assert chosen.tolist() == ["atoms 2", METHANE, "atoms 8"]
    twin = to_graph(molecule("H2O")[[1, 0, 2]], CUTOFF)
    assert compositions(twin).tolist() == [WATER]


@pytest.mark.parametrize("level", [0.5, 0.9])
def test_intervals_have_the_widths_of_their_kind(predictor, level) -> None:
    prediction = predictor(graph_of("H2O", "CH4", "CO2", "C2H6"))
    low, high = prediction.interval(level)
    assert prediction.energy.total is not None
    std = prediction.energy.total.sqrt()
    torch.testing.assert_close(high - prediction.energy.mean, prediction.energy.mean - low)
    found = ((high - low) / 2 / std / stats.norm.ppf(0.5 + level / 2)).numpy()
    # Carbon dioxide has a size that is not known and ethane neither: those of all together.
    assert found[:2] == pytest.approx([1.0, 0.3], rel=0.15)
    assert found[2] == pytest.approx(found[3])
    rest = predictor.calibration.levels["energy"].conformal.maps[REST]
    assert found[2] == pytest.approx(rest.bounds(level)[1] / stats.norm.ppf(0.5 + level / 2))


def test_intervals_of_forces_have_the_widths_of_their_element(predictor) -> None:
    atoms = molecule("CH4")
    atoms.rattle(0.1, seed=1)
    prediction = predictor(to_graph(atoms, CUTOFF))
    low, high = prediction.interval(0.9, of="forces")
    assert prediction.forces is not None
    assert prediction.forces.total is not None
    std = prediction.forces.total.diagonal(dim1=-2, dim2=-1).sqrt()
    widths = ((high - low) / 2 / std / stats.norm.ppf(0.95)).numpy()
    assert widths.shape == (5, 3)
    assert np.allclose(widths[0], 0.2, rtol=0.15)  # carbon is first
    assert np.allclose(widths[1:], 1.0, rtol=0.15)


def test_batches_joined_have_the_intervals_of_one(predictor) -> None:
    names = ("H2O", "CH4", "CO2")
    whole = predictor(graph_of(*names)).interval(0.8)
    joined = join_predictions([predictor(graph_of(name)) for name in names]).interval(0.8)
    for one, other in zip(whole, joined, strict=True):
        torch.testing.assert_close(one, other)


def test_levels_beyond_the_calibration_points_are_a_sentence(predictor) -> None:
    prediction = predictor(graph_of("H2O"))
    assert prediction.interval(0.99)[0] < prediction.interval(0.9)[0]
    with pytest.raises(ValueError, match=r"level 0\.9999 needs at least 9999 .* there are 1200"):
        prediction.interval(0.9999)


def test_without_levels_intervals_are_those_of_a_normal(predictor) -> None:
    plain = build_predictor(
        POTENTIAL, Ensemble(predictor.weights), Calibration(energy=1.5, source="a test"), {}
    )
    prediction = plain(graph_of("H2O"))
    low, high = prediction.interval(0.95)
    assert prediction.energy.total is not None
    width = 1.959963984540054 * prediction.energy.total.sqrt()
    torch.testing.assert_close(high - low, 2 * width)


def test_everything_is_in_the_file(predictor, tmp_path) -> None:
    predictor.save(tmp_path / "p.safetensors")
    loaded = load_predictor(tmp_path / "p.safetensors")
    assert loaded.calibration == predictor.calibration
    graph = graph_of("H2O", "CH4")
    for one, other in zip(predictor(graph).interval(), loaded(graph).interval(), strict=True):
        assert torch.equal(one, other)
    text = json.dumps(predictor.calibration.header())
    assert read_calibration(json.loads(text)) == predictor.calibration
    assert len(text) < 60_000


def test_a_file_without_levels_and_gate_is_upgraded(predictor, tmp_path, monkeypatch) -> None:
    """Format 2, as older versions wrote it."""
    path = tmp_path / "p.safetensors"
    predictor.save(path)
    tree, header = read_tree(path, KIND)
    held = header["calibration"]
    header["calibration"] = {name: held[name] for name in held if name != "levels"}
    kept = {name: header[name] for name in header if name not in ("format", "kind", "gate")}
    monkeypatch.setattr("surefoot.train.checkpoint.FORMAT", 2)
    write_tree(path, KIND, tree, kept)
    monkeypatch.undo()
    loaded = load_predictor(path)
    assert loaded.gate is None
    assert loaded.calibration == Calibration(energy=1.5, forces=0.7, source="a test")


def test_a_broken_calibration_is_refused(predictor, tmp_path) -> None:
    path = tmp_path / "p.safetensors"
    predictor.save(path)
    tree, header = read_tree(path, KIND)
    kept = {name: header[name] for name in header if name not in ("format", "kind")}
    kept["calibration"] = {**header["calibration"], "levels": {"energy": {"isotonic": {}}}}
    write_tree(path, KIND, tree, kept)
    with pytest.raises(RefusedFile, match="does not have"):
        load_predictor(path)


def test_levels_of_older_files_are_read(predictor, tmp_path) -> None:
    """They kept ranks of scores; none where they kept all, and each point was a group."""
    path = tmp_path / "p.safetensors"
    predictor.save(path)
    tree, header = read_tree(path, KIND)
    kept = {name: header[name] for name in header if name not in ("format", "kind")}
    held = kept["calibration"]
    for name in ("draws", "shared_error"):
        del held[name]
    scores = [float(n) for n in range(1, 20)]
    for level in held["levels"].values():
        level["conformal"]["maps"] = {
            REST: {"scores": scores, "ranks": [], "count": 19},
            "1": {"scores": scores[9:], "ranks": list(range(10, 20)), "count": 19},
        }
    write_tree(path, KIND, tree, kept)
    found = load_predictor(path).calibration
    assert (found.energy, found.draws) == (1.5, None)
    for kind in (REST, "1"):
        assert found.levels["forces"].conformal.maps[kind].bounds(0.9)[1] == 18.0


def test_words() -> None:
    assert Calibration().describe() == "not calibrated"
    some = Calibration(energy=1.0, forces=1.0, source="50 frames set aside")
    assert some.describe() == "50 frames set aside; not calibrated: stress, difference"
