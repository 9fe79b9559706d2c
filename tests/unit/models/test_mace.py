"""What is special to MACE; the laws of all models are among the contracts."""

import re

import numpy as np
import pytest
import torch
from ase import Atoms
from pydantic import ValidationError
from scipy.spatial.transform import Rotation

from surefoot.blocks.angular import wigner
from surefoot.blocks.dense import Weights, branch
from surefoot.blocks.native import plain_only
from surefoot.blocks.reference import Baseline
from surefoot.data.convert import to_graph
from surefoot.graph import collate
from surefoot.heads.scalar import Scalar
from surefoot.models.mace import Mace
from surefoot.potential import Potential
from surefoot.prediction import Output

CUTOFF = 3.0
BASELINE = Baseline(elements=(1, 6, 8), energies=(0.0, 0.0, 0.0), scale=1.0, neighbors=3.0)
SMALL = {"cutoff": CUTOFF, "basis_size": 4, "radial": (5,), "correlation": 2, "max_ell": 2}
MODELS = {
    "scalars": Mace(irreps="4x0e", **SMALL),
    "vectors": Mace(irreps="4x0e + 4x1o", **SMALL),
    "degree 3": Mace(irreps="3x0e + 3x1o + 3x2e + 3x3o", **SMALL | {"correlation": 1}),
    "harmonics to 4": Mace(
        irreps="2x0e + 2x1o + 2x2e + 2x3o", **SMALL | {"max_ell": 4, "correlation": 3}
    ),
    "harmonics to 6": Mace(irreps="2x0e + 2x1o", **SMALL | {"max_ell": 6}),
    "both parities": Mace(irreps="3x0e + 3x1o + 3x0o + 3x1e", **SMALL | {"interactions": 3}),
    "one layer": Mace(irreps="4x0e + 4x1o", **SMALL | {"interactions": 1}),
    "plain first": Mace(irreps="4x0e + 4x1o", first="plain", **SMALL),
    "density": Mace(irreps="4x0e + 4x1o", normalisation="density", **SMALL),
    "no angles": Mace(irreps="4x0e + 4x1o", **SMALL | {"max_ell": 0}),
    "four factors": Mace(irreps="2x0e + 2x1o", **SMALL | {"correlation": 4, "max_ell": 1}),
    "Gaussians": Mace(irreps="4x0e", basis="gaussian", **SMALL | {"radial": ()}),
}
every_model = pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)


def potential_of(model: Mace) -> Potential:
    return Potential(model=model, head=Scalar(layers="none"), baseline=BASELINE)


def ask(model: Mace, *structures: Atoms, weights: Weights | None = None) -> Output:
    potential = potential_of(model)
    graph = collate([to_graph(atoms, CUTOFF) for atoms in structures])
    weights = potential.init(1, torch.float64) if weights is None else weights
    return potential(weights, graph, stress=True)


def values(output: Output) -> tuple[np.ndarray, np.ndarray]:
    assert output.forces is not None
    return output.energy.mean.detach().numpy(), output.forces.mean.detach().numpy()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("64x0e + 1z", "'1z' in the irreps '64x0e + 1z' is not understood; write <multiplicity>x"),
        ("", "'' in the irreps '' is not understood"),
        ("0x0e + 8x1o", "has no channels; the multiplicity is at least 1"),
        ("8x0e + 4x1o", "'8x0e + 4x1o' has to hold scalars (0e), and all irreps with the same"),
        ("8x1o", "'8x1o' has to hold scalars (0e)"),
        ("8x0o + 8x1o", "'8x0o + 8x1o' has to hold scalars (0e)"),
        ("8x0e + 8x4e", "degree 4 in '8x0e + 8x4e' is not built; the highest is 3"),
    ],
)
def test_irreps_that_are_refused(text, sentence) -> None:
    with pytest.raises(ValidationError, match=re.escape(sentence)) as caught:
        Mace(irreps=text)
    assert len(caught.value.errors()) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"correlation": 0},
        {"correlation": 5},
        {"max_ell": 7},
        {"max_ell": -1},
        {"interactions": 0},
        {"cutoff": 0.0},
        {"basis_size": 1},
        {"cutoff_power": 1},
        {"basis": "chebyshev"},
        {"first": "none"},
        {"normalisation": "sum"},
        {"irrep": "8x0e"},
    ],
    ids=str,
)
def test_settings_that_are_refused(wrong) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        Mace(**wrong)


def test_products_that_no_memory_holds_are_refused() -> None:
    both = "8x0e + 8x0o"  # messages of both parities: twice as many components
    Mace(irreps=both, max_ell=3, correlation=4)
    with pytest.raises(ValidationError, match=r"4 factors among 98 components are 4082925 monom"):
        Mace(irreps=both, max_ell=6, correlation=4)


def test_irreps_in_any_order_and_in_parts() -> None:
    one, other = Mace(irreps="4x0e + 4x1o"), Mace(irreps="4x1o+2x0e + 2x0e")
    assert one.layers() == other.layers()
    assert one.channels == other.channels == 4


def test_widths_are_those_of_the_layers() -> None:
    for model in MODELS.values():
        assert [width.values for width in model.widths] == [model.channels] * model.interactions
        output = ask(model, Atoms("CO", positions=[[0, 0, 0], [1.1, 0.2, 0]]))
        assert len(output.features.layers) == model.interactions


def test_irreps_of_the_layers() -> None:
    """Scalars come in and go out; both parities are in the messages where a pseudoscalar is."""
    first, middle, last = MODELS["both parities"].layers()
    assert [str(irrep) for irrep in first.inputs] == ["0e"]
    assert [str(irrep) for irrep in first.messages] == ["0e", "1o", "2e"]
    assert [str(irrep) for irrep in middle.messages] == ["0e", "1o", "2e", "0o", "1e", "2o"]
    assert [str(irrep) for irrep in middle.inputs] == ["0e", "1o", "0o", "1e"]
    assert [str(irrep) for irrep in last.outputs] == ["0e"]
    assert [str(irrep) for irrep in MODELS["vectors"].layers()[1].messages] == ["0e", "1o", "2e"]


@every_model
def test_energy_and_forces_turn_with_the_structure(model, small_structures, rng) -> None:
    """Under rotations and the inversion, also for pseudo irreps."""
    atoms = small_structures["ethanol"]
    energy, forces = values(ask(model, atoms))
    assert np.abs(forces).max() > 1e-3
    matrix = -Rotation.random(random_state=rng).as_matrix()
    atoms.positions = atoms.positions @ matrix.T
    turned_energy, turned_forces = values(ask(model, atoms))
    np.testing.assert_allclose(turned_energy, energy, rtol=1e-11)
    scale = np.abs(forces).max()
    np.testing.assert_allclose(turned_forces, forces @ matrix.T, rtol=0, atol=1e-11 * scale)


@every_model
def test_forces_are_minus_the_slope(model, small_structures) -> None:
    atoms, step = small_structures["ethanol"], 1e-5
    _, forces = values(ask(model, atoms))
    along = np.random.default_rng(2).normal(size=forces.shape)
    energies = []
    for sign in (1, -1):
        moved = atoms.copy()
        moved.positions += sign * step * along
        energies.append(values(ask(model, moved))[0][0])
    slope = (energies[0] - energies[1]) / (2 * step)
    assert slope == pytest.approx(-(forces * along).sum(), rel=1e-6)


@every_model
def test_plain_form_gives_the_same(model, small_structures) -> None:
    structures = small_structures["ethanol"], small_structures["skewed_cell"]
    found = values(ask(model, *structures))
    with plain_only():
        plain = values(ask(model, *structures))
    for one, other in zip(found, plain, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-12 * np.abs(other).max())


SILENT = {
    # Linear products of scalars need no other messages; harmonics to degree 2 make no degree 3.
    "degree 3": {"layer0.mix.3o", "layer1.up.3o", "layer1.down.1o", "layer1.down.2e"},
    # Products of two natural irreps of the first layer make neither 0o nor 1e.
    "both parities": {f"layer0.mix.{irrep}" for irrep in ("0o", "1e")}
    | {f"layer1.{part}.{irrep}" for part in ("up", "skip") for irrep in ("0o", "1e")}
    | {"layer1.down.0o"},
    "no angles": {"layer0.mix.1o", "layer1.up.1o"},
}
"""Weights of irreps that are asked for but that nothing leads to or from, as in the original."""


@pytest.mark.parametrize("name", MODELS)
def test_every_weight_counts(name, small_structures) -> None:
    """No other weight is without a slope, of the energy or of the forces."""
    potential = potential_of(MODELS[name])
    graph = collate([to_graph(small_structures[name], CUTOFF) for name in ("ethanol", "slab")])
    weights = {n: w.requires_grad_() for n, w in potential.init(1, torch.float64).items()}
    output = potential(weights, graph, differentiable=True)
    assert output.forces is not None
    total = output.energy.mean.square().sum() + output.forces.mean.square().sum()
    slopes = torch.autograd.grad(total, list(weights.values()), materialize_grads=True)
    silent = {key for key, slope in zip(weights, slopes, strict=True) if not slope.any()}
    assert silent == {f"model.{key}" for key in SILENT.get(name, ())}


@every_model
def test_atoms_alone(model) -> None:
    """With and without neighbours elsewhere in the batch; plain layers give them nothing."""
    pair = Atoms("CO", positions=[[0, 0, 0], [1.1, 0.2, 0]])
    far = Atoms("CHO", positions=[[0, 0, 0], [30, 0, 0], [0, 40, 0]])
    energies, forces = values(ask(model, far, pair, Atoms("C"), Atoms("H"), Atoms("O")))
    assert np.isfinite(energies).all()
    assert energies[0] == pytest.approx(energies[2:].sum(), rel=1e-12, abs=1e-14)
    assert not forces[:3].any()
    assert not forces[5:].any()
    assert np.abs(forces[3:5]).max() > 0
    alone = values(ask(model, far))
    np.testing.assert_allclose(alone[0], energies[:1], rtol=1e-12, atol=1e-14)
    assert not alone[1].any()


def test_first_layer_of_atoms_alone() -> None:
    """Residual: the element's own map. Plain: nothing."""
    for name, nothing in (("vectors", False), ("plain first", True)):
        output = ask(MODELS[name], Atoms("C"))
        assert output.features.layers[0].values.any() != nothing


def test_density_is_the_learned_number_of_neighbours(small_structures) -> None:
    """Sums of an atom are divided by one more than its density, never by the mean number."""
    model, atoms = MODELS["density"], small_structures["ethanol"]
    weights = potential_of(model).init(1, torch.float64)
    assert len(branch(weights, "model.layer0.density")) == 1
    none = {name: 0 * w if ".density." in name else w for name, w in weights.items()}
    plain = Mace(**model.model_dump() | {"normalisation": "neighbors"})
    with_neighbors = Potential(
        model=plain,
        head=Scalar(layers="none"),
        baseline=Baseline(elements=(1, 6, 8), energies=(0.0, 0.0, 0.0), scale=1.0, neighbors=1.0),
    )
    kept = {name: w for name, w in weights.items() if ".density." not in name}
    expected = values(with_neighbors(kept, to_graph(atoms, CUTOFF)))
    found = values(ask(model, atoms, weights=none))
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-13)
    other = values(ask(model, atoms, weights=weights))
    assert abs(other[0] - found[0]).min() > 1e-4


@pytest.mark.parametrize("name", ["degree 3", "vectors"])
def test_degree_two_is_given_where_it_is_there(name, small_structures, rng) -> None:
    """It turns as degree 2 does; the last layer gives scalars only."""
    atoms = small_structures["ethanol"]
    first, last = ask(MODELS[name], atoms).features.layers
    assert last.quadrupoles is None
    if name == "vectors":
        assert first.quadrupoles is None
        return
    assert first.quadrupoles is not None
    assert first.quadrupoles.shape == (len(atoms), 5, 3)
    matrix = Rotation.random(random_state=rng).as_matrix()
    atoms.positions = atoms.positions @ matrix.T
    turned = ask(MODELS[name], atoms).features.layers[0].quadrupoles
    expected = wigner(torch.from_numpy(matrix), 2) @ first.quadrupoles
    torch.testing.assert_close(turned, expected, rtol=0, atol=1e-11)
