"""Laws that every model with every head obeys; a new one needs a line in the tables below."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace

import jaxtyping
import numpy as np
import pytest
import torch
from ase import Atoms
from jaxtyping import Float
from scipy.spatial.transform import Rotation
from torch import Tensor

from surefoot.blocks.conditioning import States
from surefoot.blocks.dense import Weights, branch, cast, stack
from surefoot.blocks.reference import Baseline
from surefoot.data.convert import to_graph
from surefoot.graph import Graph, Width, collate, split_atoms
from surefoot.heads import HEADS, Head
from surefoot.heads.categorical import Categorical
from surefoot.heads.histogram import ErrorHistograms
from surefoot.heads.mean_variance import MeanVariance
from surefoot.heads.scalar import Scalar
from surefoot.heads.sphere import Sphere
from surefoot.models import MODELS, Model
from surefoot.models.allegro import Allegro
from surefoot.models.mace import Mace
from surefoot.models.race import Race
from surefoot.models.schnet import Schnet
from surefoot.models.scn import Scn
from surefoot.posteriors.ensemble import Ensemble
from surefoot.posteriors.posterior import Single
from surefoot.posteriors.predictor import Calibration, build_predictor, load_predictor
from surefoot.potential import Potential, splined

CUTOFF = 4.0
SMALL_MODELS: dict[str, Model] = {
    "schnet": Schnet(name="schnet", cutoff=CUTOFF, features=8, interactions=2, gaussians=8),
    "schnet polynomial": Schnet(
        name="schnet",
        cutoff=CUTOFF,
        features=7,
        interactions=3,
        gaussians=9,
        cutoff_function="polynomial",
        activation="silu",
    ),
    "mace": Mace(cutoff=CUTOFF, irreps="5x0e + 5x1o", max_ell=2, correlation=3, radial=(8,)),
    "mace pseudo": Mace(
        cutoff=CUTOFF,
        irreps="3x0e + 3x1o + 3x2e + 3x0o + 3x1e",
        max_ell=3,
        correlation=2,
        interactions=3,
        first="plain",
        normalisation="density",
        basis="gaussian",
        radial=(8,),
    ),
    "allegro": Allegro(
        cutoff=CUTOFF, lmax=2, layers=3, scalars=7, tensors=4, embed_width=8, latent_width=8
    ),
    "allegro natural": Allegro(
        cutoff=CUTOFF,
        lmax=3,
        parity="natural",
        layers=2,
        scalars=6,
        tensors=3,
        bessels=5,
        power=4,
        embedding=8,
        embed_depth=2,
        embed_width=8,
        latent_depth=0,
    ),
    "race": Race(
        cutoff=CUTOFF,
        irreps="5x0e + 4x1o + 3x1e + 2x2e",
        channels=6,
        interactions=4,
        radial=(16, 16),
    ),
    "race equal": Race(cutoff=CUTOFF, irreps="8x0e + 8x1o", channels=8, max_ell=3, interactions=2),
    "scn": Scn(
        cutoff=CUTOFF,
        layers=2,
        lmax=2,
        taps=6,
        channels=4,
        hidden=8,
        edge=6,
        gaussians=8,
        rings=6,
        samples=72,
    ),
    "scn so2": Scn(
        cutoff=CUTOFF,
        layers=2,
        lmax=3,
        mmax=2,
        messages="so2",
        channels=4,
        hidden=8,
        edge=6,
        gaussians=8,
        aggregation="gate",
        readout="scalars",
    ),
    "scn limit": Scn(
        cutoff=CUTOFF,
        layers=1,
        lmax=5,
        mmax=0,
        resolutions=2,
        limit=16,
        channels=4,
        reduced=3,
        hidden=8,
        edge=6,
        gaussians=8,
        aggregation="gate",
        readout="scalars",
    ),
}
MADE_UP = torch.linspace(0.01, 0.4, 40, dtype=torch.float64)
"""Errors and labels on which the bins of histograms are measured."""
SMALL_HEADS: dict[str, Head] = {
    "scalar": Scalar(),
    "scalar last": Scalar(layers="last", activation="silu", scaling="normal"),
    "mean variance": MeanVariance(activation="silu", width=4),
    "histogram": ErrorHistograms(system_bins=16, atom_bins=12, width=8).measure(
        MADE_UP * (-1) ** torch.arange(40), torch.full((40,), 9), MADE_UP, 1.7
    ),
    "categorical A": Categorical(bins=32, width=8, encoding="two_hot").measure(
        60 * MADE_UP, torch.full((40,), 9), MADE_UP, 1.7
    ),
    "categorical B": Categorical(design="B", bins=32, width=8).measure(
        60 * MADE_UP, torch.full((40,), 9), MADE_UP, 1.7
    ),
    "sphere": Sphere(forces="gradient", hidden=5),
}
NOT_ADDITIVE = {"categorical A"}
"""Heads whose energy of far fragments is not the sum of theirs, which is tested to be so."""

EQUIVARIANCE = {
    "schnet": 1e-12,
    "mace": 1e-12,
    "allegro": 1e-12,
    "race": 1e-11,
    "scn": 3e-2,
    "scn so2": 1e-11,
    "scn limit": 1e-11,
}
"""Allowed change under rotation and inversion, relative to the largest value of its kind; by name
of the model, or of the small one. Taps, grids and points of SCN leave something over."""

BASELINE = Baseline(elements=(1, 6, 8), energies=(-1.3, -3.7, -2.2), scale=1.7, neighbors=12.0)
NAMES = ("ethanol", "water_cluster", "skewed_cell", "slab", "atom", "far_atoms")
PERIODIC = ("skewed_cell", "slab")

pytestmark = pytest.mark.usefixtures("unchecked")
every_structure = pytest.mark.parametrize("name", NAMES)


@dataclass(frozen=True)
class Case:
    """A potential with weights, in float64."""

    potential: Potential
    weights: Weights
    tolerance: float
    additive: bool = True


@dataclass(frozen=True)
class Answer:
    """Energies, forces and stress as numpy arrays."""

    energy: Float[np.ndarray, " graphs"]
    forces: Float[np.ndarray, "atoms 3"]
    stress: Float[np.ndarray, "graphs 3 3"]


def random_weights(potential: Potential, seed: int) -> Weights:
    """Fresh weights, and biases that are not zero."""
    generator = torch.Generator().manual_seed(1000 + seed)
    weights = potential.init(seed, torch.float64)
    return {
        name: value + 0.2 * torch.randn(value.shape, generator=generator, dtype=torch.float64)
        for name, value in weights.items()
    }


MORE = {"schnet polynomial", "mace pseudo", "allegro natural", "race equal", "scn limit"}
"""Second settings of a model: not in the quick part."""
REPRODUCED = {"categorical A", "categorical B"}
"""Heads that are there to be compared with: not in the quick part."""
OF_ROWS = {
    "mace": ("scalar last",),
    "race": ("mean variance",),
    "allegro": ("mean variance", "histogram", "categorical B"),
    "scn": ("sphere", "mean variance"),
}
"""Heads that read another kind of rows than SchNet's: of several layers, of edges or of points."""
PAIRS = [(model, "scalar") for model in SMALL_MODELS] + [
    (model, head)
    for model in ("schnet", "mace", "race", "allegro", "scn")
    for head in SMALL_HEADS
    if head != "scalar" and (model == "schnet" or head in OF_ROWS[model])
]


@pytest.fixture(
    params=[
        pytest.param(
            pair,
            id="+".join(pair),
            marks=[pytest.mark.slow] if pair[0] in MORE or pair[1] in REPRODUCED else [],
        )
        for pair in PAIRS
    ]
)
def case(request: pytest.FixtureRequest) -> Case:
    model, head = SMALL_MODELS[request.param[0]], SMALL_HEADS[request.param[1]]
    potential = Potential(model=model, head=head, baseline=BASELINE)
    return Case(
        potential,
        random_weights(potential, 1),
        EQUIVARIANCE.get(request.param[0], EQUIVARIANCE[model.name]),
        additive=request.param[1] not in NOT_ADDITIVE,
    )


def ask(case: Case, structures: Atoms | Sequence[Atoms]) -> Answer:
    """What the potential says of structures, joined in one batch."""
    listed = [structures] if isinstance(structures, Atoms) else structures
    graph = collate([to_graph(atoms, CUTOFF) for atoms in listed])
    output = case.potential(case.weights, graph, stress=True)
    assert output.forces is not None
    assert output.stress is not None
    return Answer(
        output.energy.mean.detach().numpy(),
        output.forces.mean.detach().numpy(),
        output.stress.mean.detach().numpy(),
    )


def assert_close(found: np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    """Equal to a tolerance relative to the largest value; a missing value stays one."""
    missing = np.isnan(expected)
    assert np.array_equal(np.isnan(found), missing)
    if not missing.all():
        scale = max(1.0, float(np.abs(expected[~missing]).max()))
        assert np.abs(found - expected)[~missing].max() < tolerance * scale


def test_every_model_and_head_is_under_test() -> None:
    assert {SMALL_MODELS[model].name for model, _ in PAIRS} == set(MODELS)
    assert {SMALL_HEADS[head].energy for _, head in PAIRS} == set(HEADS)


def test_the_structures_are_worth_asking(case, small_structures) -> None:
    """Forces are far from zero, so that the laws below can fail."""
    for name in ("ethanol", "water_cluster", "skewed_cell", "slab"):
        assert np.abs(ask(case, small_structures[name]).forces).max() > 1e-2
    assert np.abs(ask(case, small_structures["skewed_cell"]).stress).max() > 1e-3


@pytest.fixture
def checked(unchecked) -> Iterator[None]:
    jaxtyping.config.update("jaxtyping_disable", False)
    yield
    jaxtyping.config.update("jaxtyping_disable", True)


@pytest.mark.usefixtures("checked")
def test_shapes_are_as_annotated(case, small_structures) -> None:
    """Of one structure, of several, without edges and with members; the other laws trust that."""
    for atoms in small_structures.values():
        ask(case, atoms)
    ask(case, list(small_structures.values()))
    graph = to_graph(small_structures["ethanol"], CUTOFF)
    case.potential(stack([case.weights, case.weights]), graph, stress=True)


@every_structure
def test_translation(case, name, small_structures) -> None:
    atoms = small_structures[name]
    before = ask(case, atoms)
    atoms.positions += (0.37, -11.0, 5.3)
    after = ask(case, atoms)
    assert_close(after.energy, before.energy, 1e-12)
    assert_close(after.forces, before.forces, 1e-11)
    assert np.abs(after.forces.sum(0)).max() < 1e-11


def turned(atoms: Atoms, matrix: np.ndarray) -> Atoms:
    """Positions and cell under an orthogonal matrix."""
    copy = atoms.copy()
    copy.set_cell(atoms.cell.array @ matrix.T)
    copy.positions = atoms.positions @ matrix.T
    return copy


@every_structure
@pytest.mark.parametrize("sign", [1, -1], ids=["rotation", "rotation and inversion"])
def test_rotation_and_inversion(case, name, sign, small_structures, rng) -> None:
    atoms = small_structures[name]
    matrix = sign * Rotation.random(random_state=rng).as_matrix()
    before, after = ask(case, atoms), ask(case, turned(atoms, matrix))
    assert_close(after.energy, before.energy, case.tolerance)
    assert_close(after.forces, before.forces @ matrix.T, case.tolerance)
    assert_close(after.stress, matrix @ before.stress @ matrix.T, case.tolerance)


@every_structure
def test_permutation(case, name, small_structures, rng) -> None:
    atoms = small_structures[name]
    order = rng.permutation(len(atoms))
    before, after = ask(case, atoms), ask(case, atoms[order])
    assert_close(after.energy, before.energy, 1e-12)
    assert_close(after.forces, before.forces[order], 1e-12)
    assert_close(after.stress, before.stress, 1e-12)


def test_batch_equals_singles(case, small_structures) -> None:
    structures = list(small_structures.values())
    graph = collate([to_graph(atoms, CUTOFF) for atoms in structures])
    together = ask(case, structures)
    forces = split_atoms(torch.as_tensor(together.forces), graph)
    for index, atoms in enumerate(structures):
        alone = ask(case, atoms)
        assert_close(together.energy[index : index + 1], alone.energy, 1e-12)
        assert_close(forces[index].numpy(), alone.forces, 1e-12)
        assert_close(together.stress[index : index + 1], alone.stress, 1e-12)


@pytest.mark.parametrize("name", PERIODIC)
def test_atom_moved_by_cell_vectors(case, name, small_structures) -> None:
    atoms = small_structures[name]
    before = ask(case, atoms)
    atoms.positions[1] += atoms.cell.array[0] - 3 * atoms.cell.array[1]
    atoms.positions[2] -= atoms.cell.array[1]
    after = ask(case, atoms)
    assert_close(after.energy, before.energy, 1e-12)
    assert_close(after.forces, before.forces, 1e-11)
    assert_close(after.stress, before.stress, 1e-11)


@pytest.mark.parametrize(("name", "repeats"), [("skewed_cell", (2, 1, 3)), ("slab", (2, 2, 1))])
def test_supercell(case, name, repeats, small_structures) -> None:
    atoms = small_structures[name]
    copies = int(np.prod(repeats))
    small, large = ask(case, atoms), ask(case, atoms.repeat(repeats))
    assert_close(large.energy / copies, small.energy, 1e-12)
    assert_close(large.forces, np.tile(small.forces, (copies, 1)), 1e-11)
    assert_close(large.stress, small.stress, 1e-11)


@pytest.mark.parametrize("name", ["ethanol", "water_cluster", "skewed_cell", "slab"])
def test_forces_are_minus_the_slope_of_the_energy(case, name, small_structures) -> None:
    atoms, step = small_structures[name], 1e-5
    moved = []
    for index in np.ndindex(len(atoms), 3):
        for sign in (1, -1):
            copy = atoms.copy()
            copy.positions[index] += sign * step
            moved.append(copy)
    energies = ask(case, moved).energy.reshape(len(atoms), 3, 2)
    expected = -(energies[..., 0] - energies[..., 1]) / (2 * step)
    assert_close(ask(case, atoms).forces, expected, 1e-8)


def test_stress_is_the_slope_of_the_energy_over_strain(case, small_structures) -> None:
    """Positive where the cell pulls together: the energy rises when it is stretched."""
    atoms, step = small_structures["skewed_cell"], 1e-5
    moved = []
    for index in np.ndindex(3, 3):
        for sign in (1, -1):
            strain = np.eye(3)
            strain[index] += sign * step
            moved.append(turned(atoms, strain))
    energies = ask(case, moved).energy.reshape(3, 3, 2)
    expected = (energies[..., 0] - energies[..., 1]) / (2 * step) / atoms.get_volume()
    found = ask(case, atoms).stress[0]
    # A strain that is no rotation; by a rotation little changes, or nothing.
    assert_close(found, 0.5 * (expected + expected.T), 1e-8)
    assert_close(expected, expected.T, max(case.tolerance, 1e-8))
    assert np.array_equal(found, found.T)


@every_structure
def test_stress_needs_three_periodic_axes(case, name, small_structures) -> None:
    stress = ask(case, small_structures[name]).stress
    assert np.isnan(stress).all() == (name != "skewed_cell")


def test_smooth_at_the_cutoff(case) -> None:
    """A third atom goes out of sight of the first: energy and forces do not jump."""

    def trimer(distance: float) -> Atoms:
        return Atoms("COH", positions=[[0, 0, 0], [-1.2, 0.3, 0], [distance, 0, 0]])

    inside, outside = (ask(case, trimer(CUTOFF + gap)) for gap in (-1e-6, 1e-6))
    assert_close(inside.energy, outside.energy, 1e-10)
    assert_close(inside.forces, outside.forces, 1e-5)
    assert np.abs(outside.forces[2]).max() == 0.0
    nearer = ask(case, trimer(CUTOFF - 0.5))
    assert np.abs(nearer.forces[2]).max() > 1e-5  # the pair is felt at all


def test_one_atom(case, small_structures) -> None:
    answer = ask(case, small_structures["atom"])
    assert np.isfinite(answer.energy).all()
    assert np.array_equal(answer.forces, np.zeros((1, 3)))


def test_no_edges(case, small_structures) -> None:
    """Atoms that see nobody are the sum of atoms alone, without forces."""
    atoms = small_structures["far_atoms"]
    assert to_graph(atoms, CUTOFF).edge_index.shape == (2, 0)
    answer = ask(case, atoms)
    alone = ask(case, [atoms[[index]] for index in range(len(atoms))])
    if case.additive:
        assert_close(answer.energy, alone.energy.sum(keepdims=True), 1e-12)
    assert np.array_equal(answer.forces, np.zeros((3, 3)))


def test_far_fragments_are_additive(case, small_structures) -> None:
    first, second = small_structures["ethanol"], small_structures["water_cluster"]
    second.positions += (60.0, 0.0, 0.0)
    together = ask(case, first + second)
    apart = ask(case, [first, second])
    if not case.additive:
        assert np.abs(together.energy - apart.energy.sum()).max() > 1e-3
        return
    assert_close(together.energy, apart.energy.sum(keepdims=True), 1e-12)
    assert_close(together.forces, apart.forces, 1e-12)


@every_structure
def test_energy_is_reference_energies_plus_scale_times_head(case, name, small_structures) -> None:
    atoms = small_structures[name]
    references = {1: -13.6, 6: 7.5, 8: 0.25}
    bare = Baseline(elements=(1, 6, 8), energies=(0.0, 0.0, 0.0), scale=1.0, neighbors=12.0)
    changed = replace(bare, energies=tuple(references.values()), scale=2.5)
    plain, scaled = (
        ask(replace(case, potential=replace(case.potential, baseline=baseline)), atoms)
        for baseline in (bare, changed)
    )
    expected = 2.5 * plain.energy + sum(references[number] for number in atoms.numbers)
    assert_close(scaled.energy, expected, 1e-13)
    assert_close(scaled.forces, 2.5 * plain.forces, 1e-12)
    assert_close(scaled.stress, 2.5 * plain.stress, 1e-12)


def joined(small_structures: dict[str, Atoms]) -> Graph:
    return collate([to_graph(atoms, CUTOFF) for atoms in small_structures.values()])


def test_rows_have_the_channels_that_the_model_names(case, small_structures) -> None:
    output = case.potential(case.weights, to_graph(small_structures["ethanol"], CUTOFF))
    assert output.features is not None
    found = tuple(
        Width(rows.values.shape[-1], 0 if (q := rows.quadrupoles) is None else q.shape[-1])
        for rows in output.features.layers
    )
    assert found == case.potential.model.widths


def test_input_and_weights_are_not_changed(case, small_structures) -> None:
    graph = joined(small_structures)
    fields_before = {f.name: getattr(graph, f.name).clone() for f in fields(Graph)}
    weights_before = {name: value.clone() for name, value in case.weights.items()}
    case.potential(case.weights, graph, stress=True, differentiable=True)
    assert all(torch.equal(getattr(graph, name), value) for name, value in fields_before.items())
    assert all(torch.equal(case.weights[name], value) for name, value in weights_before.items())
    assert not any(value.requires_grad for value in case.weights.values())
    assert not graph.positions.requires_grad


def test_what_is_not_asked_for_is_not_there(case, small_structures) -> None:
    graph = joined(small_structures)
    full = case.potential(case.weights, graph, stress=True)
    bare = case.potential(case.weights, graph, forces=False)
    assert bare.forces is None
    assert bare.stress is None
    assert not bare.energy.mean.requires_grad
    torch.testing.assert_close(bare.energy.mean, full.energy.mean, rtol=1e-13, atol=0)
    only_stress = case.potential(case.weights, graph, forces=False, stress=True)
    assert only_stress.forces is None
    assert only_stress.stress is not None


def test_differentiable_forces_have_the_same_values(case, small_structures) -> None:
    graph = joined(small_structures)
    plain = case.potential(case.weights, graph).forces
    leaves = {name: value.clone().requires_grad_() for name, value in case.weights.items()}
    tracked = case.potential(leaves, graph, differentiable=True).forces
    assert plain is not None
    assert tracked is not None
    assert not plain.mean.requires_grad
    assert tracked.mean.requires_grad
    torch.testing.assert_close(tracked.mean.detach(), plain.mean, rtol=1e-12, atol=1e-13)


def test_only_seeds_decide(case, small_structures) -> None:
    before = torch.get_rng_state()
    first, second = (case.potential.init(3, torch.float64) for _ in range(2))
    other = case.potential.init(4, torch.float64)
    case.potential(first, joined(small_structures))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["model.embedding"], other["model.embedding"])


def test_member_m_begins_from_seed_plus_m(case) -> None:
    members = case.potential.init_members(3, 3, torch.float32)
    for index in range(3):
        alone = case.potential.init(3 + index, torch.float32)
        assert all(torch.equal(members[name][index], alone[name]) for name in alone)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
@pytest.mark.parametrize("names", [NAMES, ("far_atoms",)], ids=["all", "no edges"])
def test_member_axis_equals_a_loop(case, dtype, tolerance, names, small_structures) -> None:
    graph = joined({name: small_structures[name] for name in names})
    members = [cast(random_weights(case.potential, seed), dtype) for seed in range(4)]
    together = case.potential(stack(members), graph, stress=True)
    energies = []
    for index, weights in enumerate(members):
        alone = case.potential(weights, graph, stress=True)
        energies.append(alone.energy.mean.detach().numpy())
        for quantity in ("energy", "forces", "stress"):
            stacked, single = getattr(together, quantity).mean, getattr(alone, quantity).mean
            assert stacked.shape == (4, *single.shape)
            assert_close(
                stacked[index].detach().double().numpy(), single.detach().numpy(), tolerance
            )
    assert np.std(energies, axis=0).min() > 1e-3


def test_float32_is_close_to_float64(case, small_structures) -> None:
    graph = joined(small_structures)
    exact = case.potential(case.weights, graph, stress=True)
    rough = case.potential(cast(case.weights, torch.float32), graph, stress=True)
    assert rough.energy.mean.dtype == torch.float64  # summed in float64
    for quantity in ("energy", "forces", "stress"):
        found, expected = getattr(rough, quantity).mean, getattr(exact, quantity).mean
        assert_close(found.detach().double().numpy(), expected.detach().numpy(), 5e-6)


@pytest.mark.parametrize("members", [1, 3])
def test_saved_and_loaded_is_identical(case, members, small_structures, tmp_path) -> None:
    trees = [random_weights(case.potential, seed) for seed in range(members)]
    posterior = Single(trees[0]) if members == 1 else Ensemble(stack(trees))
    predictor = build_predictor(case.potential, posterior, Calibration(), {"seed": 3})
    path = tmp_path / "model.surefoot"
    predictor.save(path)
    loaded = load_predictor(path)
    assert loaded.potential == case.potential
    graph = joined(small_structures)
    before, after = predictor(graph, stress=True), loaded(graph, stress=True)
    for quantity in ("energy", "forces", "stress"):
        one, other = getattr(before, quantity), getattr(after, quantity)
        assert torch.equal(one.mean.nan_to_num(), other.mean.nan_to_num())
        for part in ("aleatoric", "epistemic", "residual"):
            variance, again = getattr(one, part), getattr(other, part)
            assert (variance is None) == (again is None)
            assert variance is None or torch.equal(variance.nan_to_num(), again.nan_to_num())
        assert (one.epistemic is None) == (members == 1 or one.residual is not None)


STATES = States(((-1, 2), (0, 1), (0, 3)))


@pytest.fixture
def conditioned(case: Case) -> Case:
    """The same model and head, told the state of each structure."""
    potential = replace(case.potential, states=STATES)
    return Case(potential, random_weights(potential, 1), case.tolerance)


def in_states(atoms: Atoms, *states: tuple[int, int]) -> Graph:
    """One structure in several states, as one batch."""
    return collate([to_graph(atoms, CUTOFF, charge, spin) for charge, spin in states])


@pytest.mark.parametrize("name", ["ethanol", "water_cluster", "skewed_cell", "slab"])
def test_states_of_one_structure_are_surfaces_of_their_own(
    conditioned, name, small_structures
) -> None:
    """All else equal; a model that does not begin with `embed` fails here."""
    graph = in_states(small_structures[name], *STATES.pairs)
    output = conditioned.potential(conditioned.weights, graph)
    energies, forces = output.energy.mean.detach(), output.forces.mean.detach()
    by_state = torch.stack(forces.split(graph.atom_counts.tolist()))
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert (energies[one] - energies[other]).abs() > 1e-4
        assert (by_state[one] - by_state[other]).abs().max() > 1e-4


def test_without_a_table_the_state_changes_nothing(case, small_structures) -> None:
    energies = case.potential(
        case.weights, in_states(small_structures["ethanol"], *STATES.pairs)
    ).energy.mean
    # Rows of one product of matrices may be rounded differently.
    torch.testing.assert_close(energies, energies[:1].expand(3), rtol=1e-14, atol=1e-13)


def test_a_table_of_zeros_is_the_model_without_conditioning(
    case, conditioned, small_structures
) -> None:
    graph = in_states(small_structures["ethanol"], *STATES.pairs)
    none = torch.zeros_like(conditioned.weights["model.conditioning"])
    weights = {**case.weights, "model.conditioning": none}
    before, after = case.potential(case.weights, graph), conditioned.potential(weights, graph)
    assert_close(after.energy.mean.detach().numpy(), before.energy.mean.detach().numpy(), 1e-13)


def test_conditioning_leaves_the_other_fresh_weights_alone(case, conditioned) -> None:
    plain, more = (it.potential.init(3, torch.float64) for it in (case, conditioned))
    assert more.keys() - plain.keys() == {"model.conditioning"}
    assert more["model.conditioning"].shape == (3, *plain["model.embedding"].shape)
    assert all(torch.equal(more[name], plain[name]) for name in plain)


def test_a_batch_of_states_and_members_equals_singles(conditioned, small_structures) -> None:
    graphs = [in_states(small_structures["ethanol"], state) for state in STATES.pairs]
    graphs.append(in_states(small_structures["skewed_cell"], STATES.pairs[0]))
    members = [random_weights(conditioned.potential, seed) for seed in range(3)]
    together = conditioned.potential(stack(members), collate(graphs))
    counts = [graph.numbers.shape[0] for graph in graphs]
    for index, weights in enumerate(members):
        forces = together.forces.mean[index].detach().split(counts)
        for number, graph in enumerate(graphs):
            alone = conditioned.potential(weights, graph)
            energy = together.energy.mean[index, number : number + 1].detach().numpy()
            assert_close(energy, alone.energy.mean.detach().numpy(), 1e-12)
            assert_close(forces[number].numpy(), alone.forces.mean.detach().numpy(), 1e-12)


def test_states_are_saved_with_the_potential(conditioned, small_structures, tmp_path) -> None:
    predictor = build_predictor(
        conditioned.potential, Single(conditioned.weights), Calibration(), {}
    )
    path = tmp_path / "model.surefoot"
    predictor.save(path)
    loaded = load_predictor(path)
    assert loaded.potential == conditioned.potential
    graph = in_states(small_structures["ethanol"], *STATES.pairs)
    assert torch.equal(loaded(graph).energy.mean, predictor(graph).energy.mean)


def test_the_comparison_can_fail(case, small_structures) -> None:
    """The comparison itself notices a wrong number and a missing one."""
    answer = ask(case, small_structures["ethanol"])
    checks: list[Callable[[np.ndarray], np.ndarray]] = [lambda x: x + 1e-3, lambda x: x * np.nan]
    for change in checks:
        with pytest.raises(AssertionError):
            assert_close(change(answer.forces), answer.forces, 1e-6)


def test_splines_change_less_than_a_microelectronvolt(case, small_structures) -> None:
    """1e-6 eV/atom and 1e-5 eV/Å, also for members; in single precision hidden by rounding."""
    potential = case.potential
    if not potential.model.curves(branch(case.weights, "model")):
        with pytest.raises(ValueError, match="can not become splines"):
            splined(potential, case.weights)
        return
    both = stack([case.weights, random_weights(potential, 2)])
    tables = splined(potential, both)
    for name in ("ethanol", "skewed_cell"):
        graph = to_graph(small_structures[name], CUTOFF)
        energy, forces = energy_and_forces(potential, both, graph)
        for weights, allowed in (
            (tables, 0.0),
            (cast(tables, torch.float32), rounding_of(potential, both, graph)),
        ):
            found, pulled = energy_and_forces(potential, weights, graph)
            off = float((found - energy).abs().max()) / int(graph.atom_counts)
            assert 0 < off < 1e-6 + 4 * allowed
            assert float((pulled - forces).abs().max()) < 1e-5 + 4 * allowed


def energy_and_forces(
    potential: Potential, weights: Weights, graph: Graph
) -> tuple[Tensor, Tensor]:
    output = potential(weights, graph)
    assert output.forces is not None
    return output.energy.mean.detach(), output.forces.mean.detach()


def rounding_of(potential: Potential, weights: Weights, graph: Graph) -> float:
    """The largest change by single precision without splines, in eV and eV/Å."""
    exact = energy_and_forces(potential, weights, graph)
    rounded = energy_and_forces(potential, cast(weights, torch.float32), graph)
    return max(float((a - b).abs().max()) for a, b in zip(exact, rounded, strict=True))
