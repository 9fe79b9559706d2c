"""SCN's own properties; the laws of every model stand in the contract tests."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import fcc111
from pydantic import ValidationError
from scipy.spatial.transform import Rotation

from surefoot.blocks.dense import Weights
from surefoot.blocks.frames import edge_frames
from surefoot.blocks.reference import Baseline
from surefoot.data.convert import to_graph
from surefoot.graph import Geometry, find_kinds
from surefoot.heads.scalar import Scalar
from surefoot.heads.sphere import Sphere
from surefoot.models.scn import Scn
from surefoot.potential import Potential

CUTOFF = 4.0
SMALL: dict[str, Any] = {
    "cutoff": CUTOFF,
    "layers": 2,
    "lmax": 2,
    "channels": 4,
    "hidden": 8,
    "edge": 6,
    "gaussians": 8,
    "samples": 32,
}
BASELINE = Baseline(elements=(1, 6, 8), energies=(-1.3, -3.7, -2.2), scale=1.7, neighbors=12.0)
EXACT = {"aggregation": "gate", "readout": "scalars"}


def make(changes: dict[str, Any], head: Scalar | None = None) -> Potential:
    model = Scn(**SMALL | changes)
    head = head or (Sphere(forces="direct") if model.published else Scalar())
    return Potential(model=model, head=head, baseline=BASELINE)


def noisy(potential: Potential, seed: int = 3) -> Weights:
    """Fresh weights with biases that are not zero."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: value + 0.2 * torch.randn(value.shape, generator=generator, dtype=torch.float64)
        for name, value in potential.init(seed, torch.float64).items()
    }


def ask(potential: Potential, weights: Weights, atoms: Atoms) -> tuple[float, np.ndarray]:
    output = potential(weights, to_graph(atoms, CUTOFF))
    assert output.forces is not None
    return float(output.energy.mean.detach()), output.forces.mean.detach().numpy()


def turned(atoms: Atoms, matrix: np.ndarray) -> Atoms:
    copy = atoms.copy()
    copy.set_cell(atoms.cell.array @ matrix.T)
    copy.positions = atoms.positions @ matrix.T
    return copy


def rotation_error(
    potential: Potential, weights: Weights, atoms: Atoms, signs: tuple[int, ...] = (1,)
) -> float:
    """Largest change of forces under a few rotations, as a share of the largest force."""
    _, here = ask(potential, weights, atoms)
    found = 0.0
    for seed in range(3):
        for sign in signs:
            matrix = sign * Rotation.random(random_state=seed).as_matrix()
            _, there = ask(potential, weights, turned(atoms, matrix))
            found = max(found, float(np.abs(there - here @ matrix.T).max() / np.abs(here).max()))
    return found


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lmax": 12}, "less than or equal to 11"),
        ({"mmax": -1}, "greater than or equal to 0"),
        ({"bands": 2, "aggregation": "sum"}, "bands: 2 needs aggregation: grid"),
        ({"bands": 2, "lmax": 0}, "bands: 2 needs aggregation: grid"),
        ({"messages": "so2", "taps": 3}, "so2 knows no taps"),
        ({"rings": 2}, "rings: 2 do not do"),
        ({"rings": 7, "form": "published"}, "rings: 7 do not do"),
        ({"resolutions": 2, "limit": 12}, "limit: 12 leaves nothing for the second"),
    ],
)
def test_what_does_not_go_together_is_refused(changes, message) -> None:
    with pytest.raises(ValidationError, match=message):
        Scn(**changes)


@pytest.mark.parametrize("form", ["smooth", "published"])
@pytest.mark.parametrize("messages", ["taps", "so2"])
@pytest.mark.parametrize(("lmax", "mmax"), [(0, 0), (0, 2), (3, 2), (2, 5), (11, 1)])
def test_any_degree_and_order(lmax, mmax, messages, form, small_structures) -> None:
    """One atom and no edges included."""
    potential = make({"lmax": lmax, "mmax": mmax, "messages": messages, "form": form, "layers": 1})
    weights = noisy(potential)
    for name in ("ethanol", "atom", "far_atoms"):
        _, forces = ask(potential, weights, small_structures[name])
        assert np.isfinite(forces).all()
        if form == "smooth" or name == "ethanol":  # direct forces of one atom are what they are
            assert (np.abs(forces).max() > 1e-4) == (name == "ethanol")


def test_parts_of_the_layout() -> None:
    plain = Scn(lmax=6, mmax=1, taps=4, mirrors="both", resolutions=2)
    assert [layout.rows for layout in plain.layouts] == [19, 13]
    assert [layout.copies for layout in plain.layouts] == [8, 8]
    assert [layout.copies for layout in Scn(mmax=0).layouts] == [1]
    # Mirrors are those of the form where nobody says.
    assert Scn().layouts == Scn(mirrors="both").layouts
    assert Scn(form="published").layouts == Scn(form="published", mirrors="one").layouts
    assert Scn(form="published", mirrors="both").layouts[0].copies == 8
    assert Scn(messages="so2", mirrors="both").layouts == Scn(messages="so2").layouts
    assert [layout.copies for layout in Scn(messages="so2", mmax=2).layouts] == [1]
    assert [layout.lmax for layout in Scn(lmax=3, resolutions=2).layouts] == [3, 3]


def test_two_calls_agree_to_the_bit(small_structures) -> None:
    potential = make({}, Sphere(forces="direct"))
    weights = noisy(potential)
    for name in ("skewed_cell", "slab"):
        first, second = (ask(potential, weights, small_structures[name]) for _ in range(2))
        assert first[0] == second[0]
        assert np.array_equal(first[1], second[1])


@pytest.mark.parametrize(
    "changes",
    [{"mmax": 0}, {"messages": "so2", "mmax": 2}, {"messages": "so2", "lmax": 4}],
    ids=str,
)
def test_invariant_messages_with_gates_are_equivariant(changes, small_structures) -> None:
    potential = make({**changes, **EXACT})
    weights = noisy(potential)
    for name in ("ethanol", "skewed_cell"):
        assert rotation_error(potential, weights, small_structures[name], (1, -1)) < 1e-11


def test_the_dial_of_equivariance(small_structures) -> None:
    """One tap ≫ two ≫ four ≫ eight; the grid is fine enough not to matter."""
    fine = {"rings": 12, "samples": 512}
    errors = []
    for taps, mirrors in ((1, "one"), (2, "both"), (4, "both"), (8, "both")):
        potential = make({**fine, "taps": taps, "mirrors": mirrors})
        weights = noisy(potential)
        errors.append(rotation_error(potential, weights, small_structures["ethanol"], (1, -1)))
    assert errors[0] > 0.1
    assert all(after < before / 5 for before, after in pairwise(errors))


def test_more_points_turn_better(small_structures) -> None:
    potentials = [
        make({"mmax": 0, "aggregation": "sum", "samples": samples}) for samples in (8, 32, 128, 512)
    ]
    weights = noisy(potentials[0])
    errors = [rotation_error(p, weights, small_structures["ethanol"]) for p in potentials]
    assert all(after < before / 3 for before, after in pairwise(errors))


def test_both_mirror_images_are_alike_with_mirrors(small_structures) -> None:
    """A molecule and its mirror image, in the plane of a frame so that nothing else changes."""
    atoms = small_structures["ethanol"]
    errors = []
    for mirrors in ("one", "both"):
        potential = make({"mirrors": mirrors, "rings": 12, "samples": 512})
        weights = noisy(potential)
        errors.append(rotation_error(potential, weights, atoms, (-1,)))
    assert errors[1] < errors[0] / 3


@pytest.mark.parametrize("head", [Scalar(), Sphere(forces="direct")], ids=["gradient", "direct"])
@pytest.mark.parametrize(
    "changes", [{}, {"mmax": 0, "limit": 8}, {"resolutions": 2, "lmax": 5, "layers": 1}], ids=str
)
def test_ties_do_not_matter(changes, head, small_structures) -> None:
    """A perfect crystal: distances are equal in groups; order, place and cell change nothing."""
    atoms = fcc111("Al", (2, 2, 2), vacuum=4.0)
    atoms.numbers[:] = 6
    atoms.pbc = True
    potential = make(changes, head)
    weights = noisy(potential)
    energy, forces = ask(potential, weights, atoms)
    order = np.random.default_rng(2).permutation(len(atoms))
    moved = atoms[order]
    moved.positions += (0.3, 1.7, -0.4)
    moved.wrap()
    other, there = ask(potential, weights, moved)
    assert abs(other - energy) < 1e-10 * abs(energy)
    np.testing.assert_allclose(there, forces[order], rtol=0, atol=1e-10)
    twice, tiled = ask(potential, weights, atoms.repeat((2, 1, 1)))
    assert abs(twice - 2 * energy) < 1e-10 * abs(energy)
    np.testing.assert_allclose(tiled, np.tile(forces, (2, 1)), rtol=0, atol=1e-10)


def test_rows_are_points_of_the_sphere(small_structures) -> None:
    potential = make({})
    graph = to_graph(small_structures["ethanol"], CUTOFF)
    (rows,) = potential(noisy(potential), graph).features.layers
    assert rows.atom is not None
    assert rows.weight is not None
    assert rows.vectors is not None
    atoms, points = 9, 32
    assert rows.values.shape == (atoms * points, 4)
    assert torch.equal(rows.atom.index, torch.arange(atoms).repeat_interleave(points))
    assert torch.equal(rows.atom.offsets, points * torch.arange(atoms + 1))
    sums = rows.weight.unflatten(0, (atoms, points)).sum(-1)
    torch.testing.assert_close(sums, torch.ones(atoms, dtype=torch.float64))
    centres = (rows.weight[:, None] * rows.vectors).unflatten(0, (atoms, points)).sum(1)
    assert centres.abs().max() < 1e-14


def test_scalars_are_the_mean_over_the_sphere(small_structures) -> None:
    """Of the same functions: ∫ s(n) dn is degree 0."""
    graph = to_graph(small_structures["ethanol"], CUTOFF)
    sphere, scalars = make({}), make({"readout": "scalars"})
    weights = noisy(sphere)
    (rows,), (atoms,) = (p(weights, graph).features.layers for p in (sphere, scalars))
    assert rows.weight is not None
    means = (rows.weight[:, None] * rows.values).unflatten(0, (9, 32)).sum(1)
    torch.testing.assert_close(means, atoms.values)


def test_published_frames_are_rotations_of_any_edge() -> None:
    """No direction is singular: an edge may point anywhere."""
    generator = torch.Generator().manual_seed(0)
    random = torch.randn((50, 3), generator=generator, dtype=torch.float64)
    poles = torch.linalg.inv(edge_frames(random[:1])[0, 0])[:, 1]
    vectors = torch.cat([random, torch.stack([poles, -poles])])
    graph = to_graph(Atoms("H"), CUTOFF)
    geometry = Geometry(
        graph=graph,
        kinds=find_kinds(torch.zeros(1, dtype=torch.int64)),
        vectors=vectors,
        lengths=torch.zeros(0, dtype=torch.float64),
        state=None,
        neighbors=1.0,
        cutoff=CUTOFF,
    )
    found = Scn(form="published").find_frames(geometry).rotations
    assert found.shape == (52, 1, 3, 3)
    unit = torch.eye(3, dtype=torch.float64).expand_as(found)
    torch.testing.assert_close(found @ found.mT, unit, rtol=0, atol=1e-12)


@pytest.mark.parametrize("basis", ["gaussian", "sigmoid", "linear_sigmoid", "silu"])
@pytest.mark.parametrize("form", ["smooth", "published"])
def test_every_radial_basis_learns(basis, form, small_structures) -> None:
    potential = make({"basis": basis, "form": form, "layers": 1})
    graph = to_graph(small_structures["ethanol"], CUTOFF)
    leaves = {name: value.requires_grad_() for name, value in noisy(potential).items()}
    output = potential(leaves, graph, differentiable=True)
    assert output.forces is not None
    (output.energy.mean.sum() + output.forces.mean.square().sum()).backward()
    assert all(leaf.grad is not None and leaf.grad.any() for leaf in leaves.values())
    assert ("model.basis.weight" in leaves) == (basis == "silu")


def test_published_frames_have_no_slope_which_is_said(small_structures) -> None:
    potential = make({"form": "published"}, Scalar())
    with pytest.raises(ValueError, match=r"forces can not be a gradient; set `head: .*direct"):
        ask(potential, noisy(potential), small_structures["ethanol"])


def test_neighbours_beyond_the_limit_do_not_count(small_structures) -> None:
    """In the published form to the bit, in the smooth one where none is in the soft edge."""
    near = [[0, 0, 0], [1.0, 0, 0], [0, 1.1, 0], [0, 0, 1.2]]
    far = [[-3.5, 0, 0]]
    for changes in ({"form": "published", "limit": 3}, {"limit": 2}):
        potential = make({**changes, "layers": 1})
        weights = noisy(potential)
        energies = []
        for distance in (-3.5, -3.6):
            far[0][0] = distance
            atoms = Atoms("COHHO", positions=[*near, *far])
            graph = to_graph(atoms, CUTOFF)
            (rows,) = potential(weights, graph).features.layers
            energies.append(rows.values[:32])  # of the first atom
        assert torch.equal(energies[0], energies[1])


def energies_along(potential: Potential, weights: Weights, lengths: np.ndarray) -> np.ndarray:
    """One atom moves past a crowd, so that it changes its rank."""
    crowd = [[0, 0, 0], *(1.5 * np.eye(3)), *(-1.6 * np.eye(3)), *(2.3 * np.eye(3))]
    crowd += [[1.7, 1.7, 0.0], [-1.7, 1.7, 0.3], [0.2, -1.7, 1.7], [1.6, 0, -1.8]]
    return np.array(
        [
            ask(
                potential,
                weights,
                Atoms("C" * 14 + "O", positions=[*crowd, [-length, 0.4, 0.9]]),
            )[0]
            for length in lengths
        ]
    )


@pytest.mark.parametrize(
    ("changes", "smooth"), [({}, True), ({"form": "published"}, False)], ids=str
)
@pytest.mark.parametrize("more", [{"limit": 10}, {"resolutions": 2, "lmax": 5}], ids=str)
def test_ranks_that_cross_make_no_jump(more, changes, smooth) -> None:
    potential = make({**changes, **more, "layers": 1, "mmax": 0})
    weights = noisy(potential)
    coarse, fine = (
        np.abs(np.diff(energies_along(potential, weights, np.linspace(1.5, 3.5, count)))).max()
        for count in (21, 81)
    )
    assert (fine < 0.4 * coarse) == smooth


def test_conservative_forces_keep_the_energy(small_structures) -> None:
    """Velocity Verlet: the drift falls with the square of the time step."""
    atoms = small_structures["water_cluster"]
    potential = make({}, Sphere(forces="gradient"))
    weights = noisy(potential)
    rng = np.random.default_rng(1)
    speed = 0.02 * rng.normal(size=atoms.positions.shape)
    drifts = []
    for step, count in ((0.1, 20), (0.05, 40)):
        copy, velocity = atoms.copy(), speed.copy()
        energy, force = ask(potential, weights, copy)
        totals = [energy + 0.5 * (velocity**2).sum()]
        for _ in range(count):
            velocity += 0.5 * step * force
            copy.positions += step * velocity
            energy, force = ask(potential, weights, copy)
            velocity += 0.5 * step * force
            totals.append(energy + 0.5 * (velocity**2).sum())
        drifts.append(np.abs(np.array(totals) - totals[0]).max())
        assert abs(energy - totals[0]) > 10 * drifts[-1]  # energy is exchanged at all
    assert drifts[1] < 0.4 * drifts[0]
