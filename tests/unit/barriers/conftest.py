"""Surfaces with known saddle points, and paths on them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import SupportsInt

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.constraints import FixAtoms
from torch import Tensor

from surefoot.barriers.paths import TransferPath
from surefoot.data.read import Frame
from surefoot.graph import Graph
from surefoot.motion.surface import Evaluation


@dataclass(frozen=True)
class Formula:
    """A `Surface` of one formula: energies (graphs) of positions (graphs, atoms, 3)."""

    energy: Callable[[Tensor], Tensor]
    cutoff: float = 3.0

    @property
    def bias(self) -> None:
        """There is none."""

    def require(
        self, numbers: Iterable[SupportsInt], charge: int | None, spin: int | None, place: str
    ) -> None:
        """Anything goes."""

    def __call__(self, graph: Graph, *, stress: bool, uncertainty: bool) -> Evaluation:  # noqa: ARG002
        count = graph.charge.shape[0]
        free = graph.positions.clone().requires_grad_()
        with torch.enable_grad():
            energy = self.energy(free.reshape(count, -1, 3))
            (slope,) = torch.autograd.grad(energy.sum(), free)
        return Evaluation(energy=energy.detach(), forces=-slope)


D = (4.9, 4.9, 3.9)  # eV, of the bonds donor–H, H–acceptor and donor–acceptor
BETA = (1.9, 1.9, 1.6)  # 1/Å
REST = (1.09, 1.09, 1.54)  # Å
SATO = (0.05, 0.05, 0.05)


def leps(positions: Tensor) -> Tensor:
    """London, Eyring, Polanyi and Sato's energy of donor (0), hydrogen (1) and acceptor (2).

    Q_i = D_i/2 (3/2 e^{−2x} − e^{−x}), J_i = D_i/4 (e^{−2x} − 6 e^{−x}), x = β (r − r⁰),
    E = Σ Q/(1 + S) − √(½ Σ (J_i/(1 + S_i) − J_j/(1 + S_j))²), and 0.3 eV (1 + cos of the angle at
    the hydrogen), without which the three would not stay in a line.
    """
    donor, hydrogen, acceptor = positions.unbind(1)
    lengths = [
        (one - other).norm(dim=-1)
        for one, other in ((donor, hydrogen), (hydrogen, acceptor), (donor, acceptor))
    ]
    coulomb, exchange = [], []
    for length, depth, beta, rest, sato in zip(lengths, D, BETA, REST, SATO, strict=True):
        decay = torch.exp(-beta * (length - rest))
        coulomb.append(depth / 2 * (1.5 * decay**2 - decay) / (1 + sato))
        exchange.append(depth / 4 * (decay**2 - 6 * decay) / (1 + sato))
    a, b, c = exchange
    root = 0.5 * ((a - b) ** 2 + (b - c) ** 2 + (c - a) ** 2)
    arms = (donor - hydrogen), (acceptor - hydrogen)
    bend = 1 + (arms[0] * arms[1]).sum(-1) / (lengths[0] * lengths[1])
    return sum(coulomb, torch.zeros_like(a)) - root.sqrt() + 0.3 * bend


MULLER = (
    (-200.0, -1.0, 0.0, -10.0, 1.0, 0.0),
    (-100.0, -1.0, 0.0, -10.0, 0.0, 0.5),
    (-170.0, -6.5, 11.0, -6.5, -0.5, 1.5),
    (15.0, 0.7, 0.6, 0.7, -1.0, 1.0),
)
SCALE = 0.01  # eV for one unit of the published surface
MINIMA = ((-0.5582, 1.4417), (-0.0500, 0.4667), (0.6235, 0.0280))
SADDLES = (((-0.8220, 0.6243), -40.6648), ((0.2125, 0.2930), -72.2489))


def muller_brown(positions: Tensor) -> Tensor:
    """The surface of Müller and Brown 1979 in x and y of the last atom, and a valley in z."""
    x, y, z = positions[:, -1].unbind(-1)
    energy = 50.0 * z**2
    for height, a, b, c, x0, y0 in MULLER:
        dx, dy = x - x0, y - y0
        energy = energy + height * torch.exp(a * dx**2 + b * dx * dy + c * dy**2)
    return SCALE * energy


def at(x: float, y: float) -> Atoms:
    """The moving atom, the last one, at a place of the plane, and three that are fixed.

    Without three of them a turn about the others would count as rigid motion.
    """
    corners = [[9.0, 9.0, 9.0], [9.0, -9.0, 9.0], [-9.0, 9.0, 9.0]]
    atoms = Atoms("Ar3H", positions=[*corners, [x, y, 0.0]])
    atoms.set_constraint(FixAtoms([0, 1, 2]))
    return atoms


@pytest.fixture
def leps_surface() -> Formula:
    """A hydrogen between two carbon atoms."""
    return Formula(leps)


@pytest.fixture
def plane() -> Formula:
    """Müller and Brown's."""
    return Formula(muller_brown)


def frames_of(images: list[Atoms], energies: np.ndarray | None = None) -> list[Frame]:
    """As the reader gives them; charge and spin from info."""
    return [
        Frame(
            atoms=atoms,
            energy=None if energies is None else float(energies[number]),
            charge=atoms.info.get("charge"),
            spin=atoms.info.get("spin"),
            group="g",
            config_type="path",
            file="scans.xyz",
            index=number,
        )
        for number, atoms in enumerate(images)
    ]


def transfer(points: int = 5, way: float = 0.7, name: str = "p") -> list[Atoms]:
    """CH + C: the hydrogen (1) goes from carbon 0 towards carbon 2, which stands still."""
    images = []
    for number in range(points):
        x = 1.1 + way * number / max(points - 1, 1)
        atoms = Atoms("CHC", positions=[[0, 0, 0], [x, 0, 0], [2.2 + way, 0, 0]])
        atoms.info |= {"system": name, "path_point": number, "moving_h": 1, "charge": 0, "spin": 2}
        images.append(atoms)
    return images


def path_of(
    points: int = 5, reference: np.ndarray | None = None, name: str = "p", method: str = "EMT",
    way: float = 0.7,
) -> TransferPath:  # fmt: skip
    """A path as it is read."""
    return TransferPath(
        name=name,
        images=tuple(transfer(points, way, name)),
        hydrogen=1,
        donor=0,
        acceptor=2,
        reference=reference,
        method=method,
        place="scans.xyz, frame 0",
    )
