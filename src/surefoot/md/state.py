"""Where a run stands: what moves, what has been exchanged with baths, and what was last said."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from surefoot.motion.surface import Evaluation
from surefoot.motion.systems import Configuration, Systems
from surefoot.units import BOLTZMANN


@dataclass(frozen=True, kw_only=True)
class State:
    """All systems that still move, after a whole step.

    Attributes:
        positions: (atoms, 3) Å, never wrapped.
        momenta: (atoms, 3) eV·fs/Å.
        cell: (systems, 3, 3) Å.
        exchanged: (systems) eV that thermostat, barostat and guard have put in.
        swelled: (systems) Å³ by which the barostat has made the volume larger since the forces were
            asked for, so zero after a whole step.
        unsure: (systems) checks in a row in which the guard was over its limit.
        anchor: (systems) eV, what is conserved at the step from which its drift is measured.
        bound: (atoms) whether an atom had a neighbour when the run began.
        energy: (systems) eV, that of a bias included.
        forces: (atoms, 3) eV/Å, likewise.
        stress: (systems, 3, 3) eV/Å³, likewise; zeros where nobody needs it.
        bias_energy: (systems) eV, the part of a bias.
        bias_forces: (atoms, 3) eV/Å, the part of a bias.
    """

    positions: Float[Tensor, "atoms 3"]
    momenta: Float[Tensor, "atoms 3"]
    cell: Float[Tensor, "systems 3 3"]
    exchanged: Float[Tensor, " systems"]
    swelled: Float[Tensor, " systems"]
    unsure: Int[Tensor, " systems"]
    anchor: Float[Tensor, " systems"]
    bound: Bool[Tensor, " atoms"]
    energy: Float[Tensor, " systems"]
    forces: Float[Tensor, "atoms 3"]
    stress: Float[Tensor, "systems 3 3"]
    bias_energy: Float[Tensor, " systems"]
    bias_forces: Float[Tensor, "atoms 3"]

    @property
    def configuration(self) -> Configuration:
        """Where the atoms are."""
        return Configuration(positions=self.positions, cell=self.cell)

    def select(self, keep: Bool[Tensor, " systems"], systems: Systems) -> State:
        """That of some systems.

        Args:
            keep: (systems) which.
            systems: whose state this is.
        """
        atoms = keep[systems.owner]
        return State(
            **{
                f.name: getattr(self, f.name)[atoms if f.name in OF_ATOMS else keep]
                for f in fields(self)
            }
        )

    def evaluated(self, evaluation: Evaluation) -> State:
        """The same with what a surface says of it, and with what pulls beside it.

        The work of the barostat on the potential, ∫ tr σ / 3 dV, is counted here, by the stress on
        both sides: with that of the beginning alone the square of ΔV, whose mean is of the order of
        the timestep, would be missing, and what is conserved would drift whatever the timestep.

        Raises:
            ValueError: if there is a stress, and of a bias none.
        """
        stress, pull = evaluation.stress, evaluation.bias_stress
        if stress is None:
            stress = torch.zeros_like(self.cell)
        elif pull is not None:
            stress = stress + pull
        elif evaluation.bias_energy is not None:
            raise ValueError(
                "this surface gives a stress and a bias without one, so constant pressure would be "
                "wrong; leave the barostat or the bias out."
            )
        energy, forces = evaluation.bias_energy, evaluation.bias_forces
        energy = torch.zeros_like(evaluation.energy) if energy is None else energy
        forces = torch.zeros_like(evaluation.forces) if forces is None else forces
        work = 0.5 * (tension(self.stress) + tension(stress)) * self.swelled
        return replace(
            self,
            exchanged=self.exchanged + work,
            swelled=torch.zeros_like(self.swelled),
            energy=evaluation.energy + energy,
            forces=evaluation.forces + forces,
            stress=stress,
            bias_energy=energy,
            bias_forces=forces,
        )

    @property
    def plain(self) -> Evaluation:
        """Energy and forces of the potential alone."""
        return Evaluation(
            energy=self.energy - self.bias_energy, forces=self.forces - self.bias_forces
        )

    def tree(self) -> dict[str, Tensor]:
        """As tensors by name, for a file."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


OF_ATOMS = ("positions", "momenta", "bound", "forces", "bias_forces")
"""Fields of a `State` with one row per atom; the others have one per system."""


def tension(stress: Float[Tensor, "systems 3 3"]) -> Float[Tensor, " systems"]:
    """The mean normal stress tr σ / 3, eV/Å³."""
    return stress.diagonal(dim1=-2, dim2=-1).sum(-1) / 3


def at_rest(configuration: Configuration, bound: Bool[Tensor, " atoms"]) -> State:
    """A state that nothing has been said of yet.

    Args:
        configuration: where the atoms are.
        bound: (atoms) whether an atom has a neighbour.
    """
    nothing = torch.zeros(len(configuration.cell), dtype=torch.float64)
    nowhere = torch.zeros_like(configuration.positions)
    return State(
        positions=configuration.positions,
        momenta=nowhere,
        cell=configuration.cell,
        exchanged=nothing,
        swelled=nothing,
        unsure=nothing.long(),
        anchor=nothing,
        bound=bound,
        energy=nothing,
        forces=nowhere,
        stress=torch.zeros_like(configuration.cell),
        bias_energy=nothing,
        bias_forces=nowhere,
    )


def kinetic_energy(
    momenta: Float[Tensor, "atoms 3"], systems: Systems
) -> Float[Tensor, " systems"]:
    """Σ p² / 2m, eV."""
    return systems.sum(momenta.square().sum(-1) / (2 * systems.masses))


def count_modes(systems: Systems, *, keeps_momentum: bool) -> Int[Tensor, " systems"]:
    """Degrees of freedom that hold kinetic energy.

    Three for each atom that may move; three fewer where nothing changes the total momentum, which
    is zero then.

    Args:
        systems: what moves.
        keeps_momentum: whether neither thermostat nor surface changes the total momentum.
    """
    free = 3 * systems.sum((~systems.fixed).double()).long()
    held = systems.sum(systems.fixed.double()) > 0
    return torch.where(held | (not keeps_momentum), free, free - 3)


def temperature(
    kinetic: Float[Tensor, " systems"], modes: Int[Tensor, " systems"]
) -> Float[Tensor, " systems"]:
    """T with kinetic energy = modes · kT / 2, K; zero where nothing can move."""
    return torch.where(modes > 0, 2 * kinetic / (modes.clamp(min=1) * BOLTZMANN), 0.0)
