"""What makes a file of mace-torch one that can be converted, change by change."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from surefoot.blocks.distances import COVALENT_RADII
from surefoot.deploy.mace import build_mace, read_mace
from surefoot.deploy.mace_weights import Source
from surefoot.deploy.records import Global, Record, UnreadableFile, find, read_records
from surefoot.heads.scalar import Scalar
from surefoot.models.mace import Mace

ORACLES = Path(__file__).parents[2] / "science" / "oracles"
PARTS = ("_parameters", "_buffers", "_modules")


EMPTY = Source(
    tensors={},
    orders=(),
    species=torch.arange(1),
    head=0,
    heads=1,
    silu=1.0,
    gate="none",
    gate_scale=1.0,
    rounding=1e-9,
)


@pytest.fixture
def record() -> Record:
    """The small model of the oracle, to be changed."""
    read = read_records(ORACLES / "mace_small.model")
    assert isinstance(read, Record)
    return read


def put(record: Record, path: str, value: Any) -> None:
    """Set an attribute, tensor or module, where it stands already or as an attribute."""
    above, _, name = path.rpartition(".")
    parent = find(record, above) if above else record
    if isinstance(parent, dict):
        parent[name] = value
        return
    places = [parent.state, *(parent.state.get(part, {}) for part in PARTS)]
    new = parent.state.get("_modules", parent.state) if isinstance(value, Record) else parent.state
    next((place for place in places if name in place), new)[name] = value


def put_parameter(record: Record, path: str, value: torch.Tensor) -> None:
    """Set a trained tensor, in a module that is made where there is none."""
    *above, name = path.split(".")
    for part in above:
        children = record.state.setdefault("_modules", {})
        record = children.setdefault(part, Record("mace.modules.Contraction"))
    record.state.setdefault("_buffers", {}).pop(name, None)
    record.state.setdefault("_parameters", {})[name] = value


def drop(record: Record, path: str) -> None:
    above, _, name = path.rpartition(".")
    parent = find(record, above)
    for place in (parent.state, *(parent.state.get(part, {}) for part in PARTS)):
        place.pop(name, None)


def rename(record: Record, path: str, name: str) -> None:
    """Make a module one of another class."""
    find(record, path).name = name


def test_it_is_converted(record) -> None:
    predictor = build_mace(record, None, "a.model")
    assert predictor.provenance == {"origin": "mace-torch, a.model", "head": "Default"}
    assert predictor.potential.baseline.elements == (1, 6, 8)
    assert predictor.draws == 1
    expected = read_mace(ORACLES / "mace_small.model").weights
    assert all(torch.equal(value, expected[name]) for name, value in predictor.weights.items())


def test_older_files_lack_attributes(record) -> None:
    for name in ("heads", "apply_cutoff", "edge_irreps", "use_agnostic_product", "use_so3"):
        del record.state[name]
    expected = read_mace(ORACLES / "mace_small.model")
    assert build_mace(record, None, "a").potential == expected.potential


def transform(kind: str, **changed: float) -> Record:
    """A map of distances as a file holds it."""
    usual = {"AgnesiTransform": {"a": 1.0805, "q": 0.9183, "p": 4.5791}}.get(kind, {"alpha": 4.0})
    buffers = {name: torch.tensor(value) for name, value in {**usual, **changed}.items()}
    buffers["covalent_radii"] = torch.tensor((0.2, *COVALENT_RADII))
    return Record(f"mace.modules.radial.{kind}", state={"_buffers": buffers})


@pytest.mark.parametrize(("kind", "name"), [("Agnesi", "agnesi"), ("Soft", "soft")])
def test_transforms_and_envelopes_are_settings(record, kind: str, name: str) -> None:
    put(record, "radial_embedding.distance_transform", transform(f"{kind}Transform"))
    put(record, "apply_cutoff", False)
    model = build_mace(record, None, "a").potential.model
    assert isinstance(model, Mace)
    assert (model.transform, model.envelope) == (name, "weights")


def test_a_read_out_without_gate_is_linear(record) -> None:
    put(record, "readouts.1.non_linearity.acts", Record("L", state={"_modules": {"0": None}}))
    predictor = build_mace(record, None, "a")
    assert isinstance(predictor.potential.head, Scalar)
    assert predictor.potential.head.layers == "none"
    first = find(record, "readouts.1.linear_1.weight").reshape(8, 16)
    second = find(record, "readouts.1.linear_2.weight").reshape(16, 1)
    found = predictor.weights["head.layer1.out.weight"][0]
    torch.testing.assert_close(found, first @ second / 4)


OPTIONS: dict[str, tuple[Callable[[Record], object], str]] = {
    "agnostic": (
        lambda r: put(r, "use_agnostic_product", True),
        "the option use_agnostic_product = True",
    ),
    "readout": (
        lambda r: put(r, "use_last_readout_only", True),
        "the option use_last_readout_only = True",
    ),
    "rotations": (lambda r: put(r, "use_so3", True), "the option use_so3 = True"),
    "activation": (
        lambda r: put(r, "readouts.1.non_linearity.acts.0.cst", math.inf),
        "the constant of its activation silu is inf",
    ),
    "messages": (lambda r: put(r, "edge_irreps", "4x0e"), "the option edge_irreps"),
    "charge": (lambda r: put(r, "joint_embedding", Record("E")), "the option joint_embedding"),
    "transform": (
        lambda r: put(r, "radial_embedding.distance_transform", Record("a.b.OtherTransform")),
        r"the transform of distances OtherTransform \(option distance_transform\)",
    ),
    "trained transform": (
        lambda r: put(
            r, "radial_embedding.distance_transform", transform("AgnesiTransform", a=1.2)
        ),
        "the constants of its AgnesiTransform have been trained",
    ),
    "chebyshev": (
        lambda r: rename(r, "radial_embedding.bessel_fn", "m.ChebychevBasis"),
        r"the radial basis ChebychevBasis \(option radial_type\)",
    ),
    "gate": (
        lambda r: put(r, "readouts.1.non_linearity.acts.0.f", Global("torch.abs")),
        r"the activation torch\.abs of the read-out \(option gate\)",
    ),
    "radial network": (
        lambda r: put(r, "interactions.1.conv_tp_weights.layer0.act.f", Global("torch.abs")),
        r"the activation of interactions\.1\.conv_tp_weights is torch\.abs, not SiLU",
    ),
    "block": (
        lambda r: rename(r, "interactions.1", "m.RealAgnosticResidualNonLinearInteractionBlock"),
        r"the block RealAgnosticResidualNonLinearInteractionBlock \(interactions\.1\)",
    ),
    "read-out": (
        lambda r: rename(r, "readouts.1", "m.NonLinearBiasReadoutBlock"),
        r"the block NonLinearBiasReadoutBlock \(readouts\.1\)",
    ),
    "product": (
        lambda r: rename(r, "products.0", "m.OtherProduct"),
        r"the block OtherProduct \(products\.0\)",
    ),
    "envelope": (
        lambda r: rename(r, "radial_embedding.cutoff_fn", "m.CosineCutoff"),
        r"the block CosineCutoff \(radial_embedding\.cutoff_fn\)",
    ),
    "repulsion": (
        lambda r: rename(r, "pair_repulsion_fn", "m.OtherRepulsion"),
        r"the block OtherRepulsion \(pair_repulsion_fn\)",
    ),
    "map": (
        lambda r: rename(r, "interactions.1.linear_up", "m.LoraLinear"),
        r"the block LoraLinear \(interactions\.1\.linear_up\)",
    ),
    "length of harmonics": (
        lambda r: put(r, "spherical_harmonics.normalization", "norm"),
        "the option spherical_harmonics.normalization = 'norm'",
    ),
    "length of edges": (
        lambda r: put(r, "spherical_harmonics.normalize", False),
        "the option spherical_harmonics.normalize = False",
    ),
    "skip": (
        lambda r: put(r, "products.1.use_sc", False),
        "the option products.1.use_sc = False",
    ),
    "another cutoff": (
        lambda r: put(r, "radial_embedding.cutoff_fn.r_max", torch.tensor(3.0)),
        r"the envelope ends at 3 Å, the cutoff is 4\.5 Å",
    ),
    "prefactor": (
        lambda r: put(r, "radial_embedding.bessel_fn.prefactor", torch.tensor(7.0)),
        "the functions of its radial basis have been trained",
    ),
    "plain later": (
        lambda r: rename(r, "interactions.1", "m.RealAgnosticInteractionBlock"),
        "a later one is not residual",
    ),
    "density later": (
        lambda r: rename(r, "interactions.1", "m.RealAgnosticDensityResidualInteractionBlock"),
        "its layers are normalised differently",
    ),
    "last layer": (
        lambda r: put(
            r,
            "products.1.symmetric_contractions.irreps_out",
            find(r, "products.0.symmetric_contractions.irreps_out"),
        ),
        r"the outputs of layer 1 are 0e \+ 1o where 0e are built",
    ),
    "correlation": (
        lambda r: put(r, "products.0.symmetric_contractions.contractions.0.correlation", 5),
        "its correlation = 5 is not built here",
    ),
    "degree": (
        lambda r: put(r, "interactions.1.node_feats_irreps", "8x0e + 8x4e"),
        "degree 4 in '8x0e [+] 8x4e' is not built",
    ),
    "neighbors": (
        lambda r: put(r, "interactions.1.avg_num_neighbors", 3.0),
        "different mean numbers of neighbours",
    ),
    "no neighbors": (
        lambda r: [put(r, f"interactions.{n}.avg_num_neighbors", 0.0) for n in range(2)],
        r"its mean number of neighbours \(avg_num_neighbors\) is 0.0",
    ),
    "endless neighbors": (
        lambda r: [put(r, f"interactions.{n}.avg_num_neighbors", math.inf) for n in range(2)],
        r"its mean number of neighbours \(avg_num_neighbors\) is inf",
    ),
}


@pytest.mark.parametrize("option", OPTIONS)
def test_options_that_are_not_built_are_named(record, option: str) -> None:
    change, expected = OPTIONS[option]
    change(record)
    with pytest.raises(UnreadableFile, match=f"{expected}.*such a model can not be converted"):
        build_mace(record, None, "a")


UP = "interactions.0.linear_up.weight"
U = "products.0.symmetric_contractions.contractions.1.U_matrix_2"
CONTRACTIONS = "products.0.symmetric_contractions.contractions"
TENSORS: dict[str, tuple[Callable[[Record], None], str]] = {
    "missing": (lambda r: drop(r, UP), f"the weights {UP} are missing; it is not a complete"),
    "no elements": (lambda r: put(r, "atomic_numbers", None), "atomic_numbers are missing"),
    "shape": (
        lambda r: put(r, UP, torch.ones(63)),
        rf"the weights {UP} have shape \(63,\), but .* call for 1 × 8 × 8 values",
    ),
    "not a number": (
        lambda r: put(r, UP, torch.full((64,), torch.nan)),
        f"the weights {UP} hold values that are not finite",
    ),
    "extra": (
        lambda r: put(
            r, "_modules.more", Record("M", state={"_parameters": {"weight": torch.ones(2)}})
        ),
        "the weights more.weight belong to nothing that is built here",
    ),
    "bias": (
        lambda r: put(r, "interactions.0.linear_up.bias", torch.ones(8)),
        "the weights interactions.0.linear_up.bias belong to nothing",
    ),
    **{
        name: (
            lambda r, path=path, value=value: put_parameter(r, path, value),
            f"the weights {path} belong to nothing that is built here",
        )
        for name, path, value in (
            ("another name", "more.gamma", torch.ones(2)),
            ("table", "spin_embedding.table", torch.ones(2, 8)),
            ("low rank", "interactions.0.linear_up.lora_A", torch.ones(3, 3)),
            ("integers", "more.weight", torch.ones(2, dtype=torch.int64)),
            ("more of a product", f"{CONTRACTIONS}.0.weight_more", torch.ones(3, 3)),
            ("another product", f"{CONTRACTIONS}.7.weights_max", torch.ones(3, 1, 8)),
            ("a mask", "node_embedding.linear.output_mask", torch.ones(8)),
        )
    },
    "buffer": (
        lambda r: put(
            r, "_modules.more", Record("M", state={"_buffers": {"shift": torch.ones(2)}})
        ),
        "the weights more.shift belong to nothing that is built here",
    ),
    "coupling": (
        lambda r: put(r, U, torch.ones(3, 4, 4, 2, dtype=torch.float64)),
        r"contractions\.1\.U_matrix_2 is not a tensor that couples irreps",
    ),
    "trained basis": (
        lambda r: put(r, "radial_embedding.bessel_fn.bessel_weights", torch.arange(6.0)),
        "the functions of its radial basis have been trained",
    ),
    "trained repulsion": (
        lambda r: put(r, "pair_repulsion_fn.c", torch.ones(4)),
        "the screening of its repulsion has been trained",
    ),
    "half": (
        lambda r: put(r, "node_embedding.linear.weight", torch.ones(24).half()),
        "the weights are stored as torch.float16",
    ),
    "element": (
        lambda r: put(r, "atomic_numbers", torch.tensor([1, 6, 200])),
        r"its elements \[1, 6, 200\] are no atomic numbers",
    ),
}


@pytest.mark.parametrize("tensor", TENSORS)
def test_tensors_that_do_not_fit_are_named(record, tensor: str) -> None:
    change, expected = TENSORS[tensor]
    change(record)
    with pytest.raises(UnreadableFile, match=expected):
        build_mace(record, None, "a")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("interactions.0.avg_num_neighbors", "many"),
        ("interactions.0.node_feats_irreps", "nonsense"),
        ("interactions.0.target_irreps", 7),
        ("interactions.0.radial_MLP", 3.5),
        ("heads", 5),
        ("interactions.0", {"no": "module"}),
    ],
)
def test_settings_of_another_type_are_a_sentence(
    record, monkeypatch, path: str, value: Any
) -> None:
    put(record, path, value)
    monkeypatch.setattr("surefoot.deploy.mace.read_records", lambda _: record)
    with pytest.raises(UnreadableFile, match=r"^a\.model: "):
        read_mace(Path("a.model"))


def grown(levels: int) -> tuple[Any, ...]:
    """A tuple of two of the tuple below: small as an object, enormous as text."""
    made: tuple[Any, ...] = ()
    for _ in range(levels):
        made = (made, made)
    return made


LONG: dict[str, tuple[str, Any]] = {
    "setting": (f"{CONTRACTIONS}.0.correlation", grown(40)),
    "number": (f"{CONTRACTIONS}.0.correlation", 10**9000),
    "heads": ("heads", [grown(40), "a"]),
    "activation": (
        "readouts.1.non_linearity.acts.0.f",
        Record("builtins.getattr", (grown(40),)),
    ),
    "text": ("interactions.0.node_feats_irreps", "8x0e + " * 9000),
    "irreps": ("interactions.0.node_feats_irreps", Record("I", ([(8, (0, 1))] * 9000,))),
    "option": ("use_so3", grown(40)),
    "weights": ("node_embedding.linear.weight", grown(40)),
    "harmonics": ("spherical_harmonics.normalization", grown(40)),
}


@pytest.mark.parametrize("name", LONG)
def test_nothing_in_a_file_becomes_a_long_message(record, monkeypatch, name: str) -> None:
    path, value = LONG[name]
    put(record, path, value)
    monkeypatch.setattr("surefoot.deploy.mace.read_records", lambda _: record)
    with pytest.raises(UnreadableFile) as caught:
        read_mace(Path("a.model"))
    assert len(str(caught.value)) < 1000


def test_only_products_that_are_zero_have_weights_of_no_effect() -> None:
    """mace-torch keeps weights for an order without any coupling; those with one are read."""
    name = f"{CONTRACTIONS}.3"
    tensors = {
        f"{name}.U_matrix_1": torch.zeros(1, 4, 1),
        f"{name}.U_matrix_2": torch.ones(1, 4, 4, 1),
        f"{name}.U_matrix_3": torch.zeros(1, 4, 4, 4, 1),
        **{f"{name}.{w}": torch.ones(3, 1, 8) for w in ("weights_max", "weights.0", "weights.1")},
    }
    source = replace(EMPTY, tensors=tensors, read=set())
    assert source.unread() == [f"{name}.U_matrix_2", f"{name}.weights.0"]
    source.read.update(source.unread())
    assert source.unread() == []
    turned = torch.zeros(3, 4, 4, 1)  # antisymmetric, while both factors are the same features
    turned[1, 2, 3], turned[1, 3, 2] = 1.0, -1.0
    tensors = {f"{name}.U_matrix_2": turned, f"{name}.weights_max": torch.ones(3, 1, 8)}
    assert replace(EMPTY, tensors=tensors, read=set()).unread() == []
    turned[1, 3, 2] = -1.1
    assert len(replace(EMPTY, tensors=tensors, read=set()).unread()) == 2


def test_products_of_more_factors_than_are_built_are_not_looked_into() -> None:
    """The 9! permutations of such a product would fill the memory."""
    name = f"{CONTRACTIONS}.3"
    tensors = {
        f"{name}.U_matrix_9": torch.zeros((1,) * 9 + (4, 1)),
        f"{name}.weights_max": torch.ones(3, 1, 8),
    }
    assert len(replace(EMPTY, tensors=tensors, read=set()).unread()) == 2


def test_single_precision(record) -> None:
    """Rounded couplings are accepted, and the weights stay what they were: float32."""
    todo = [record]
    while todo:
        for part in PARTS:
            entries = todo[-1].state.get(part)
            for name, value in (entries or {}).items():
                if isinstance(value, torch.Tensor) and value.is_floating_point():
                    entries[name] = value.float()
        module = todo.pop()
        todo += [m for m in module.state.get("_modules", {}).values() if isinstance(m, Record)]
    predictor = build_mace(record, None, "a")
    exact = read_mace(ORACLES / "mace_small.model")
    for name, value in predictor.weights.items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value.double(), exact.weights[name], rtol=1e-5, atol=1e-5)


def test_elements_in_another_order(record) -> None:
    """Tables follow their atomic numbers."""
    order = torch.tensor([2, 0, 1])
    for name, axis in (
        ("node_embedding.linear.weight", (3, 8)),
        ("interactions.0.skip_tp.weight", (2, 8, 3, 8)),
        ("interactions.1.skip_tp.weight", (8, 3, 8)),
    ):
        table = find(record, name).reshape(axis)
        put(record, name, table.index_select(axis.index(3), order).reshape(-1))
    for layer, count in ((0, 2), (1, 1)):
        for j in range(count):
            name = f"products.{layer}.symmetric_contractions.contractions.{j}"
            for part in ("weights_max", "weights.0"):
                put(record, f"{name}.{part}", find(record, f"{name}.{part}")[order])
    for name in ("atomic_numbers", "atomic_energies_fn.atomic_energies"):
        put(record, name, find(record, name)[order])
    predictor, expected = build_mace(record, None, "a"), read_mace(ORACLES / "mace_small.model")
    assert predictor.potential == expected.potential
    assert all(torch.equal(v, expected.weights[n]) for n, v in predictor.weights.items())
