"""The sphere head: integrals over directions."""

import numpy as np
import pytest
import torch

from surefoot.blocks.dense import branch, stack
from surefoot.blocks.reference import Baseline
from surefoot.data.convert import to_graph
from surefoot.graph import collate
from surefoot.heads.sphere import Sphere
from surefoot.models.schnet import Schnet
from surefoot.models.scn import Scn
from surefoot.potential import Potential

CUTOFF = 4.0
BASELINE = Baseline(elements=(1, 6, 8), energies=(-1.3, -3.7, -2.2), scale=1.7, neighbors=12.0)
MODEL = Scn(cutoff=CUTOFF, layers=1, lmax=2, channels=4, hidden=8, edge=6, gaussians=8, samples=32)


def potential_with(head: Sphere) -> Potential:
    return Potential(model=MODEL, head=head, baseline=BASELINE)


@pytest.fixture
def graph(small_structures):
    return collate([to_graph(small_structures[n], CUTOFF) for n in ("ethanol", "atom", "slab")])


def test_energy_and_forces_against_sums(graph) -> None:
    """Σ_p w_p f(s_p) and scale · Σ_p w_p n_p g(s_p), point by point."""
    potential = potential_with(Sphere(forces="direct", hidden=3))
    weights = potential.init(3, torch.float64)
    output = potential(weights, graph)
    (rows,) = output.features.layers
    assert rows.atom is not None
    assert rows.weight is not None
    assert rows.vectors is not None
    head, values = branch(weights, "head"), {}
    for kind, part in (("energy", head), ("forces", branch(head, "force"))):
        x = rows.values
        for name in ("first", "hidden"):
            x = x @ part[f"layer0.{name}.weight"] + part[f"layer0.{name}.bias"]
            x = x * torch.sigmoid(x)
        values[kind] = (x @ part["layer0.out.weight"] + part["layer0.out.bias"])[:, 0]
    atoms = graph.numbers.shape[0]
    energy = torch.zeros(3, dtype=torch.float64)
    forces = torch.zeros((atoms, 3), dtype=torch.float64)
    for row, atom in enumerate(rows.atom.index):
        energy[graph.graph_index[atom]] += rows.weight[row] * values["energy"][row]
        forces[atom] += rows.weight[row] * values["forces"][row] * rows.vectors[row]
    table = dict(zip(BASELINE.elements, BASELINE.energies, strict=True))
    for atom, number in enumerate(graph.numbers.tolist()):
        energy[graph.graph_index[atom]] += table[number] / BASELINE.scale
    torch.testing.assert_close(output.energy.mean, BASELINE.scale * energy)
    assert output.forces is not None
    torch.testing.assert_close(output.forces.mean, BASELINE.scale * forces)


def test_direct_forces_cost_no_derivative(graph) -> None:
    """They are cut off from the graph unless training asks for it; stress is the energy's."""
    potential = potential_with(Sphere(forces="direct"))
    weights = potential.init(3, torch.float64)
    plain = potential(weights, graph)
    assert plain.forces is not None
    assert not plain.forces.mean.requires_grad
    leaves = {name: value.clone().requires_grad_() for name, value in weights.items()}
    tracked = potential(leaves, graph, differentiable=True).forces
    assert tracked is not None
    torch.testing.assert_close(tracked.mean.detach(), plain.forces.mean)
    tracked.mean.square().sum().backward()
    for name, leaf in leaves.items():
        needed = not name.startswith("head.layer")
        assert (leaf.grad is not None and bool(leaf.grad.any())) == needed, name


def test_every_weight_learns_from_energy_and_forces(graph) -> None:
    potential = potential_with(Sphere(forces="direct"))
    leaves = {
        name: value.requires_grad_() for name, value in potential.init(3, torch.float64).items()
    }
    output = potential(leaves, graph, differentiable=True)
    assert output.forces is not None
    (output.energy.mean.square().sum() + output.forces.mean.square().sum()).backward()
    assert all(leaf.grad is not None and leaf.grad.any() for leaf in leaves.values())


def test_members_equal_a_loop(graph) -> None:
    potential = potential_with(Sphere(forces="direct", hidden=3))
    members = [potential.init(seed, torch.float64) for seed in (1, 2)]
    together = potential(stack(members), graph)
    heads = {n: v for n, v in stack(members).items() if n.startswith("head.")}
    partial = {**{n: v for n, v in members[0].items() if n.startswith("model.")}, **heads}
    shared = potential(partial, graph)
    for index, weights in enumerate(members):
        alone = potential(weights, graph)
        of_model = potential({**members[0], **branch_of(weights)}, graph)
        for found, expected, part in ((together, alone, "forces"), (shared, of_model, "forces")):
            one, other = getattr(found, part).mean[index], getattr(expected, part).mean
            torch.testing.assert_close(one, other)


def branch_of(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {n: v for n, v in weights.items() if n.startswith("head.")}


def test_an_offset_of_each_structure(graph) -> None:
    weights = potential_with(Sphere(forces="direct")).init(3, torch.float64)
    plain, moved = (potential_with(Sphere(offset=x))(weights, graph) for x in (0.0, -0.26))
    difference = moved.energy.mean - plain.energy.mean
    np.testing.assert_allclose(difference.detach().numpy(), -0.26 * BASELINE.scale)


@pytest.mark.parametrize("model", ["schnet", "scalars"])
def test_without_directions_there_are_no_direct_forces(model, graph) -> None:
    models = {
        "schnet": Schnet(cutoff=CUTOFF, features=4, interactions=1, gaussians=4),
        "scalars": MODEL.model_copy(update={"readout": "scalars"}),
    }
    for forces in ("direct", "gradient"):
        head = Sphere(forces=forces)
        potential = Potential(model=models[model], head=head, baseline=BASELINE)
        weights = potential.init(3, torch.float64)
        if forces == "gradient":
            assert potential(weights, graph).forces is not None
            continue
        with pytest.raises(ValueError, match="integral over directions, and this model gives none"):
            potential(weights, graph)


def test_the_offset_is_no_part_of_a_spread(graph) -> None:
    """Energies that are linear in the last weights are those of differences between weights."""
    found = []
    for offset in (0.0, 5.0):
        potential = potential_with(Sphere(offset=offset))
        weights = potential.init(3, torch.float64)
        spread = {f"spread.{n[5:]}": v[None] for n, v in weights.items() if "head.layer" in n}
        output = potential(weights | spread, graph)
        found.append((output.energy.mean.detach(), output.energy_factor))
    (energy, factor), (shifted, same) = found
    torch.testing.assert_close(shifted - energy, torch.full_like(energy, 5.0 * BASELINE.scale))
    assert factor.abs().min() > 0
    assert torch.equal(factor, same)
