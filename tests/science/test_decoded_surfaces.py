"""Energies decoded from histograms as surfaces to move on, beside those of a scalar head."""

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.build import molecule

from surefoot.blocks.reference import Baseline
from surefoot.blocks.repulsion import Repulsion
from surefoot.data.convert import to_graph
from surefoot.graph import collate
from surefoot.heads import Head
from surefoot.heads.categorical import Categorical
from surefoot.heads.histogram import ErrorHistograms
from surefoot.heads.scalar import Scalar
from surefoot.models.mace import Mace
from surefoot.models.schnet import Schnet
from surefoot.posteriors.calibration import Calibration
from surefoot.posteriors.posterior import Single
from surefoot.posteriors.predictor import build_predictor, with_gate
from surefoot.potential import Potential

CUTOFF = 4.0
SCALE = 1.7
SIZES = torch.tensor([3, 9, 6, 12] * 10)
ENERGIES = SIZES * (2.0 + torch.linspace(-0.5, 0.5, 40, dtype=torch.float64))
COMPONENTS = torch.linspace(-4, 4, 300, dtype=torch.float64)


def categorical(**settings: str) -> Categorical:
    return Categorical(bins=24, width=8, **settings).measure(ENERGIES, SIZES, COMPONENTS, SCALE)


HEAD: dict[str, Head] = {
    "scalar": Scalar(),
    "A": categorical(design="A"),
    "B": categorical(design="B"),
    "direct": categorical(forces="direct_frame"),
}


class Surface:
    """A potential that nobody trained."""

    def __init__(self, head: Head, repulsion: Repulsion | None = None) -> None:
        baseline = Baseline(
            elements=(1, 8),
            energies=(-1.3, -3.7),
            scale=SCALE,
            neighbors=5.0,
            repulsion=repulsion,
        )
        model = Schnet(cutoff=CUTOFF, features=8, interactions=1, gaussians=8)
        self.potential = Potential(model=model, head=head, baseline=baseline)
        generator = torch.Generator().manual_seed(3)
        self.weights = {
            name: value + 0.3 * torch.randn(value.shape, generator=generator, dtype=torch.float64)
            for name, value in self.potential.init(3, torch.float64).items()
        }

    def __call__(self, atoms: Atoms) -> tuple[float, np.ndarray]:
        output = self.potential(self.weights, to_graph(atoms, CUTOFF))
        assert output.forces is not None
        return float(output.energy.mean.detach()), output.forces.mean.detach().numpy()


def energy_error(surface: Surface, step: float, time: float = 12.0) -> float:
    """Largest change of the total energy as a share of the first kinetic energy; times in fs."""
    atoms = molecule("H2O")
    masses = atoms.get_masses()[:, None]
    velocities = np.random.default_rng(5).normal(size=(3, 3)) * np.sqrt(units.kB * 300 / masses)
    energy, forces = surface(atoms)
    kinetic = 0.5 * float((masses * velocities**2).sum())
    totals = [energy + kinetic]
    dt = step * units.fs
    for _ in range(round(time / step)):
        velocities += 0.5 * dt * forces / masses
        atoms.positions += dt * velocities
        energy, forces = surface(atoms)
        velocities += 0.5 * dt * forces / masses
        totals.append(energy + 0.5 * float((masses * velocities**2).sum()))
    return float(np.ptp(totals)) / kinetic


def test_decoded_energies_are_conserved_as_a_scalars() -> None:
    """What is left falls as the square of the step: it is the integrator's. Direct forces heat."""
    errors = {
        name: [energy_error(Surface(head), step) for step in (0.6, 0.3)]
        for name, head in HEAD.items()
    }
    for name in ("scalar", "A", "B"):
        assert errors[name][0] / errors[name][1] == pytest.approx(4.0, rel=0.15)
        assert errors[name][0] < 10 * errors["scalar"][0]
    assert errors["direct"][1] > 10 * max(errors[name][1] for name in ("scalar", "A", "B"))
    assert errors["direct"][0] / errors["direct"][1] < 1.5


@pytest.mark.parametrize("head", ["scalar", "A", "B"])
def test_a_dimer_is_repelled_down_to_half_an_angstrom(head) -> None:
    """By the repulsion of the baseline: what bins bound can not hold against it."""
    surface = Surface(HEAD[head], Repulsion(radii=(0.31, 0.66)))
    gaps = np.linspace(1.0, 0.5, 26)
    dimers = [Atoms("O2", positions=[[0, 0, 0], [0, 0, gap]]) for gap in gaps]
    graph = collate([to_graph(atoms, CUTOFF) for atoms in dimers])
    output = surface.potential(surface.weights, graph)
    assert output.forces is not None
    assert bool((output.energy.mean.detach().diff() > 0).all())
    assert bool((output.forces.mean.detach()[1::2, 2] > 0).all())


def test_entropy_may_fall_where_the_gate_rises(make_samples, small_structures) -> None:
    """T6, along a compression to 0.6 of a bond: who is certain there has not learned it there.

    An example is enough, of a histogram of errors that nobody trained.
    """
    errors = torch.linspace(0.01, 3, 40, dtype=torch.float64)
    head = ErrorHistograms(system_bins=16, atom_bins=12, width=8).measure(
        errors * (-1) ** torch.arange(40), torch.full((40,), 9), errors, SCALE
    )
    potential = Potential(
        model=Mace(cutoff=CUTOFF, irreps="4x0e + 4x1o", max_ell=2, correlation=2, radial=(8,)),
        head=head,
        baseline=Baseline(elements=(1, 6, 8), energies=(0.0, 0.0, 0.0), scale=SCALE, neighbors=8.0),
    )
    generator = torch.Generator().manual_seed(1)
    weights = {
        name: value + 0.5 * torch.randn(value.shape, generator=generator, dtype=torch.float64)
        for name, value in potential.init(0, torch.float64).items()
    }
    predictor = build_predictor(potential, Single(weights), Calibration(), {})
    frames = make_samples(names=("ethanol",), copies=60)
    predictor = with_gate(predictor, frames, np.arange(60) % 3 == 0)
    path = []
    atoms = small_structures["ethanol"]
    carbon, hydrogen = 0, int(np.argmin(atoms.get_distances(0, range(9)) + 9 * (atoms.numbers > 1)))
    bond = atoms.positions[hydrogen] - atoms.positions[carbon]
    for share in np.linspace(1.0, 0.6, 9):
        atoms.positions[hydrogen] = atoms.positions[carbon] + share * bond
        path.append(to_graph(atoms, CUTOFF))
    found = predictor(collate(path))
    assert found.ood is not None
    assert found.energy_bins is not None
    assert bool((found.ood.diff()[found.ood[1:] > 1] > 0).all())
    assert float(found.ood[0]) < 1.5
    assert float(found.ood[-1]) > 2.0
    entropies = found.energy_bins.relative_entropy
    assert float(entropies[-1]) < float(entropies[0])
