"""The file of a potential: what its header holds, and which older ones still load."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from ase.build import molecule

from surefoot.blocks.conditioning import States, UnknownState
from surefoot.blocks.dense import Weights, unstack
from surefoot.blocks.reference import Baseline, UnknownElement
from surefoot.blocks.repulsion import Repulsion
from surefoot.data.convert import to_graph
from surefoot.graph import collate
from surefoot.heads.mean_variance import MeanVariance
from surefoot.heads.scalar import Scalar
from surefoot.models.mace import Mace
from surefoot.models.race import Race
from surefoot.models.schnet import Schnet
from surefoot.posteriors.ensemble import Ensemble
from surefoot.posteriors.posterior import Single
from surefoot.posteriors.predictor import (
    Calibration,
    Predictor,
    build_predictor,
    load_predictor,
)
from surefoot.potential import Potential
from surefoot.train import checkpoint
from surefoot.train.checkpoint import RefusedFile, read_tree, write_tree

BASELINE = Baseline(elements=(1, 8), energies=(-1.0, -2.0), scale=0.5, neighbors=2.0)
POTENTIAL = Potential(
    model=Schnet(cutoff=3.0, features=4, interactions=1, gaussians=5),
    head=Scalar(),
    baseline=BASELINE,
)


def predictor_of(potential: Potential) -> Predictor:
    weights = potential.init(0, torch.float64)
    return build_predictor(potential, Single(weights), Calibration(), {"states": [[0, 1]]})


def write_format_1(path: Path, predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file as it was before states and repulsion were known."""
    predictor.save(path)
    tree, header = read_tree(path, "predictor")
    old = {name: value for name, value in header.items() if name not in ("format", "kind")}
    del old["states"], old["baseline"]["repulsion"]
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "FORMAT", 1)
        write_tree(path, "predictor", tree, old)


def test_a_potential_of_format_1_loads(tmp_path, monkeypatch) -> None:
    predictor = predictor_of(POTENTIAL)
    write_format_1(tmp_path / "old", predictor, monkeypatch)
    loaded = load_predictor(tmp_path / "old")
    assert loaded.potential == POTENTIAL
    graph = to_graph(molecule("H2O"), 3.0)
    assert torch.equal(loaded(graph).energy.mean, predictor(graph).energy.mean)


def test_the_covariance_of_format_3_is_made_of_neighbours_alone(tmp_path, monkeypatch) -> None:
    """Beside features of degree 2, which were not read."""
    head = MeanVariance(anisotropy="own", width=3)
    model = Mace(cutoff=3.0, irreps="2x0e + 2x1o + 2x2e", max_ell=2, correlation=2, radial=(4,))
    predictor = predictor_of(Potential(model=model, head=head, baseline=BASELINE))
    predictor.save(tmp_path / "old")
    tree, header = read_tree(tmp_path / "old", "predictor")
    old = {name: value for name, value in header.items() if name not in ("format", "kind")}
    del old["head"]["anisotropy"]
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "FORMAT", 3)
        write_tree(tmp_path / "old", "predictor", tree, old)
        identity = {name: old[name] for name in ("model", "head")}
        write_tree(tmp_path / "run", "checkpoint", tree, {"identity": identity})
    loaded = load_predictor(tmp_path / "old")
    assert loaded.potential.head == head
    assert read_tree(tmp_path / "run", "checkpoint")[1]["identity"]["head"]["anisotropy"] == "own"
    graph = to_graph(molecule("H2O"), 3.0)
    assert torch.equal(loaded(graph).forces.total, predictor(graph).forces.total)


def test_race_of_format_3_divides_by_the_number_of_neighbours(tmp_path, monkeypatch) -> None:
    """Unless its file says otherwise."""
    for stated in (None, "root_neighbors"):
        model = Race(
            cutoff=3.0, irreps="2x0e + 2x1o", channels=2, normalisation=stated or "neighbors"
        )
        predictor = predictor_of(Potential(model=model, head=Scalar(), baseline=BASELINE))
        predictor.save(tmp_path / "old")
        tree, header = read_tree(tmp_path / "old", "predictor")
        old = {name: value for name, value in header.items() if name not in ("format", "kind")}
        if stated is None:
            del old["model"]["normalisation"]
        with monkeypatch.context() as patch:
            patch.setattr(checkpoint, "FORMAT", 3)
            write_tree(tmp_path / "old", "predictor", tree, old)
        loaded = load_predictor(tmp_path / "old")
        assert loaded.potential.model == model
        graph = to_graph(molecule("H2O"), 3.0)
        assert torch.equal(loaded(graph).energy.mean, predictor(graph).energy.mean)


def write_changed(
    path: Path, predictor: Predictor, changes: Weights, absent: str = "", **header: Any
) -> None:
    """The file with other weights, with one of them left out, with another header."""
    predictor.save(path)
    tree, old = read_tree(path, "predictor")
    kept = {name: value for name, value in old.items() if name not in ("format", "kind")}
    tree = {name: value for name, value in (tree | changes).items() if name != absent}
    write_tree(path, "predictor", tree, kept | header)


@pytest.mark.parametrize("members", [1, 3])
def test_weights_that_are_not_those_of_the_potential_are_refused(members, tmp_path) -> None:
    weights = POTENTIAL.init_members(0, members, torch.float64)
    posterior = Single(unstack(weights)[0]) if members == 1 else Ensemble(weights)
    predictor = build_predictor(POTENTIAL, posterior, Calibration(), {})
    path, lead = tmp_path / "model", () if members == 1 else (members,)
    write_changed(path, predictor, {})
    assert load_predictor(path).draws == members
    name, double = "model.embedding", torch.float64
    for absent in (name, "head.layer0.out.weight"):
        write_changed(path, predictor, {}, absent)
        with pytest.raises(RefusedFile, match=rf"model: the weight {absent} of shape .* missing"):
            load_predictor(path)
    write_changed(path, predictor, {"model.more": torch.zeros((*lead, 7), dtype=double)})
    with pytest.raises(RefusedFile, match=r"the weight model\.more of shape \(7,\) is not one"):
        load_predictor(path)
    write_changed(
        path, predictor, {"head.layer0.out.weight": torch.zeros((*lead, 2, 2), dtype=double)}
    )
    text = rf"head.layer0.out.weight has the shape \({members}, 2, 2\), .* \({members}, 2, 1\)"
    with pytest.raises(RefusedFile, match=text):
        load_predictor(path)
    write_changed(path, predictor, {name: torch.zeros((), dtype=double)})
    with pytest.raises(RefusedFile):
        load_predictor(path)


def test_members_that_some_weights_do_not_have_are_refused(tmp_path) -> None:
    weights = POTENTIAL.init_members(0, 3, torch.float64)
    predictor = build_predictor(POTENTIAL, Ensemble(weights), Calibration(), {})
    name = "head.layer0.out.weight"
    write_changed(tmp_path / "model", predictor, {name: weights[name][:2]})
    with pytest.raises(RefusedFile, match=r"the shape \(2, 2, 1\), .* needs \(3, 2, 1\)"):
        load_predictor(tmp_path / "model")


@pytest.mark.parametrize(
    ("setting", "value", "text"),
    [("charges", 3, "Schnet.charges: Extra .*, found 3"), ("cutoff", -1.0, "Schnet.cutoff: .* -1")],
)
def test_settings_that_this_version_does_not_have_are_one_sentence(
    setting, value, text, tmp_path
) -> None:
    model = {**POTENTIAL.model.model_dump(), setting: value}
    write_changed(tmp_path / "model", predictor_of(POTENTIAL), {}, model=model)
    with pytest.raises(RefusedFile, match=text) as caught:
        load_predictor(tmp_path / "model")
    assert "\n" not in str(caught.value)
    assert "pydantic" not in str(caught.value)


SOUND = BASELINE.__dict__ | {"elements": [1, 8], "energies": [-1.0, -2.0], "repulsion": None}
FACTORS = Calibration().header()


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ({"baseline": SOUND | {"elements": [8, 1]}}, "one energy for each element, ascending"),
        ({"baseline": SOUND | {"elements": [1, 999]}}, "no atomic numbers"),
        ({"baseline": SOUND | {"energies": [-1.0, "x"]}}, "energies of its baseline is no finite"),
        ({"baseline": SOUND | {"energies": [-1.0]}}, "one energy for each element"),
        ({"baseline": SOUND | {"scale": None}}, "the scale is no finite number"),
        ({"baseline": SOUND | {"repulsion": {"radii": [0.3]}}}, "repulsion is not one of its"),
        ({"baseline": []}, "made with parts this version"),
        ({"calibration": FACTORS | {"energy": -1.0}}, "factor of its calibration is not positive"),
        ({"calibration": FACTORS | {"forces": [1]}}, "made with parts this version"),
        ({"calibration": FACTORS | {"draws": 1.5}}, "number of draws"),
        ({"calibration": 3}, "made with parts this version"),
        ({"states": [[0]]}, "states are no charges and spins"),
        ({"states": [[0, 10**30]]}, "enormous"),
        ({"provenance": [1]}, "provenance is no description"),
        ({"provenance": {"states": [[0, 1, 2]]}}, "states of its provenance"),
        ({"model": 3}, "made with parts this version"),
        ({"posterior": ["single"]}, "made with parts this version"),
        ({"model": POTENTIAL.model.model_dump() | {"features": 10**7}}, "no weights can be made"),
        (
            {"model": POTENTIAL.model.model_dump() | {"interactions": 100, "features": 300}},
            "more weights than",
        ),
        ({"model": {"name": "mace", "interactions": 10**30}}, "made with parts this version"),
        ({"model": {"name": "race", "interactions": 10**30}}, "made with parts this version"),
    ],
)
def test_a_description_that_no_potential_has_is_refused(tmp_path, header, words: str) -> None:
    """With a checksum that fits: made by hand, or to harm."""
    path = tmp_path / "model"
    write_changed(path, predictor_of(POTENTIAL), {}, **header)
    with pytest.raises(RefusedFile, match=words) as caught:
        load_predictor(path)
    assert str(path) in str(caught.value)


def test_weights_of_other_kinds_are_refused(tmp_path) -> None:
    predictor = predictor_of(POTENTIAL)
    for kind in (torch.bfloat16, torch.int64, torch.float32):
        changed = {"model.embedding": predictor.weights["model.embedding"][0].to(kind)}
        write_changed(tmp_path / "model", predictor, changed)
        with pytest.raises(RefusedFile, match=r"its weights are .* all float32 or all float64"):
            load_predictor(tmp_path / "model")


def test_a_gate_of_other_features_is_refused(tmp_path) -> None:
    """It would be multiplied with the features of the first prediction."""
    shapes = {
        "centre": (2, 4),
        "axes": (2, 4, 1),
        "tail": (2,),
        "inverse": (2, 1),
        "shortest": (2, 2),
        "width": (2, 2),
        "edges": (2,),
    }
    gate = {f"gate.{name}": torch.ones(shape) for name, shape in shapes.items()}
    write_changed(tmp_path / "model", predictor_of(POTENTIAL), gate, gate="made up")
    assert load_predictor(tmp_path / "model").gate is not None
    for name in shapes:
        wrong = gate | {f"gate.{name}": torch.ones(3, 3)}
        write_changed(tmp_path / "model", predictor_of(POTENTIAL), wrong, gate="made up")
        with pytest.raises(RefusedFile, match=r"the tensor gate\."):
            load_predictor(tmp_path / "model")


def test_repulsion_is_saved_with_the_potential(tmp_path) -> None:
    baseline = replace(BASELINE, repulsion=Repulsion(radii=(0.31, 0.66), power=5))
    predictor = predictor_of(replace(POTENTIAL, baseline=baseline))
    predictor.save(tmp_path / "model")
    assert load_predictor(tmp_path / "model").potential.baseline == baseline


def test_it_says_what_it_is_and_not_its_weights() -> None:
    predictor = predictor_of(replace(POTENTIAL, states=States(((-1, 2), (0, 0)))))
    for shown in (repr(predictor), predictor._repr_html_()):
        for word in ("schnet", "3 Å", "H, O", "single, draws: 1", predictor.calibration.source):
            assert word in shown
        assert "tensor" not in shown
    assert "\n" not in repr(predictor)


def test_only_states_of_the_table_are_predicted() -> None:
    predictor = predictor_of(replace(POTENTIAL, states=States(((-1, 2), (0, 0)))))
    for state in ((-1, 2), (0, None), (None, None)):
        predictor.require([8, 1], *state, "b.xyz, frame 2")
    # The states among the provenance are for potentials that tell none apart.
    with pytest.raises(UnknownState, match=r"^b\.xyz, frame 2: charge 0 and spin 1 is not among"):
        predictor.require([8, 1], 0, 1, "b.xyz, frame 2")


def test_without_a_table_the_way_out_is_named() -> None:
    predictor = predictor_of(POTENTIAL)
    predictor.require([8, 1], 0, None, "b.xyz, frame 2")
    with pytest.raises(UnknownState, match=r"conditioning: \{name: charge_spin\}"):
        predictor.require([8, 1], 0, 3, "b.xyz, frame 2")


@pytest.mark.parametrize(
    ("learnt", "fit", "unfit"),
    [
        ([[0, 1]], [(0, 1), (0, None), (None, 1), (None, None)], [(1, None), (None, 3), (1, 1)]),
        ([[0, None]], [(0, 5), (None, 2), (None, None)], [(1, None), (1, 2)]),
        ([[None, 1], [None, 2]], [(4, 1), (None, 2), (1, None)], [(None, 3), (0, 3)]),
        ([], [(7, 8)], []),
    ],
)
def test_charge_and_spin_are_judged_one_by_one(learnt, fit, unfit) -> None:
    predictor = replace(predictor_of(POTENTIAL), provenance={"states": learnt})
    for state in fit:
        predictor.require([8, 1], *state, "b.xyz, frame 2")
    for state in unfit:
        with pytest.raises(UnknownState, match=r"^b\.xyz, frame 2: .* has only learned"):
            predictor.require([8, 1], *state, "b.xyz, frame 2")


def test_a_graph_that_nobody_checked_is_refused_all_the_same() -> None:
    """Indices of −1 would end in torch, or give another element's energy."""
    known, strange = (to_graph(molecule(name), 3.0) for name in ("H2O", "CH4"))
    predictor = predictor_of(POTENTIAL)
    with pytest.raises(UnknownElement, match=r"^structure 1 of the batch: element C "):
        predictor(collate([known, strange, known]))
    told = predictor_of(replace(POTENTIAL, states=States(((0, 0), (0, 1)))))
    charged = to_graph(molecule("H2O"), 3.0, charge=2)
    with pytest.raises(UnknownState, match=r"^structure 2 of the batch: charge 2 and a spin that"):
        told(collate([known, known, charged]))
    assert bool(told(known).energy.mean.isfinite().all())


def test_it_makes_room_for_large_batches(monkeypatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr("surefoot.posteriors.predictor.make_room", asked.append)
    graph = to_graph(molecule("H2O"), 3.0)
    predictor_of(POTENTIAL)(graph)
    assert asked == [graph.edge_index.shape[1]]
