"""Fixtures of all tests: seeds, small structures, labels, the folder of real data."""

import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import jaxtyping
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import fcc111, molecule

from surefoot.blocks.native import kernels
from surefoot.data.convert import Sample, to_graph
from surefoot.graph import Targets

SEED = 20240229


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    """Sums in one order, and no fight for cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def compiling(unchecked, tmp_path_factory, monkeypatch) -> None:
    """Nothing is left in the user's folder, and nothing found there.

    A size without a value is no int, which checks of types in tests would refuse.
    """
    monkeypatch.setenv("SUREFOOT_CACHE", str(tmp_path_factory.getbasetemp()))


@pytest.fixture
def tracing(compiling, monkeypatch) -> None:
    """The graph that would be compiled runs as it is: all but the C++, in less time."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the import
        from torch._inductor import compile_fx
    monkeypatch.setattr(compile_fx, "compile_fx", lambda graph, _: graph)


@pytest.fixture
def unchecked() -> Iterator[None]:
    """No shapes are checked: trainings are five times faster, and others check the same shapes."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)


@pytest.fixture
def compiled() -> None:
    """The kernels; where there is no compiler only the plain forms can be tested."""
    if kernels(torch.zeros(1)) is None:
        pytest.skip("there is no C compiler, hence no kernels to test.")


@pytest.fixture
def generator() -> torch.Generator:
    """Torch's randomness of a test."""
    return torch.Generator().manual_seed(SEED)


@pytest.fixture
def rng() -> np.random.Generator:
    """Numpy's randomness of a test."""
    return np.random.default_rng(SEED)


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of real data sets that SUREFOOT_DATA names; without it the test is skipped."""
    folder = os.environ.get("SUREFOOT_DATA")
    if folder is None or not Path(folder).is_dir():
        pytest.skip("SUREFOOT_DATA does not name the folder of data sets.")
    return Path(folder)


def ethanol() -> Atoms:
    """Off its minimum, so that no force is zero by symmetry."""
    atoms = molecule("CH3CH2OH")
    atoms.rattle(0.08, seed=1)
    return atoms


def water_cluster() -> Atoms:
    """Four waters, some pairs beyond a cutoff of 4 Å."""
    atoms = Atoms()
    for index, place in enumerate([(0, 0, 0), (2.9, 0.3, 0), (0.2, 3.0, 0.4), (3.0, 2.9, 2.2)]):
        water = molecule("H2O")
        water.rotate(70 * index, (1, 2, 3))
        water.translate(place)
        atoms += water
    atoms.rattle(0.05, seed=2)
    return atoms


def skewed_cell() -> Atoms:
    """Edges and heights below the cutoff: atoms see several images of themselves."""
    cell = [[3.1, 0.0, 0.0], [1.4, 2.9, 0.0], [-0.9, 0.7, 3.3]]
    places = [[0.1, 0.1, 0.1], [0.6, 0.45, 0.5], [0.2, 0.7, 0.8]]
    return Atoms("OHC", scaled_positions=places, cell=cell, pbc=True)


def slab() -> Atoms:
    """Two periodic axes; one atom stands outside the cell."""
    atoms = fcc111("Al", (2, 2, 2), vacuum=4.0, orthogonal=False)
    atoms.numbers[:] = 6
    atoms.numbers[-2:] = 8
    atoms.rattle(0.1, seed=3)
    atoms.pbc = (True, True, False)
    atoms.positions[0] -= 2 * atoms.cell.array[1]
    return atoms


def far_atoms() -> Atoms:
    """Nobody sees anybody."""
    return Atoms("HCO", positions=[[0, 0, 0], [40.0, 0, 0], [0, 55.0, 1.0]])


BUILDERS: dict[str, Callable[[], Atoms]] = {
    "ethanol": ethanol,
    "water_cluster": water_cluster,
    "skewed_cell": skewed_cell,
    "slab": slab,
    "atom": lambda: Atoms("O", positions=[[0.3, -0.2, 0.1]]),
    "far_atoms": far_atoms,
}


@pytest.fixture
def small_structures() -> dict[str, Atoms]:
    """Fresh copies of the small structures; elements are H, C and O throughout."""
    return {name: build() for name, build in BUILDERS.items()}


def make_targets(atoms: Atoms, rng: np.random.Generator) -> Targets:
    """Random labels of a structure; stress only where it has a volume."""
    periodic = bool(atoms.pbc.all())
    stress = rng.normal(size=(3, 3))
    return Targets(
        energy=torch.tensor(rng.normal(size=1)),
        forces=torch.tensor(rng.normal(size=(len(atoms), 3))),
        stress=torch.tensor(0.5 * (stress + stress.T))[None] * periodic,
        has_energy=torch.tensor([True]),
        has_forces=torch.tensor([True]),
        has_stress=torch.tensor([periodic]),
        weight=torch.ones(1, dtype=torch.float64),
        fixed=torch.zeros(len(atoms), dtype=torch.bool),
        group=torch.zeros(1, dtype=torch.int64),
    )


@pytest.fixture
def make_samples(
    small_structures: dict[str, Atoms],
) -> Callable[..., list[Sample]]:
    """A function that makes rattled copies of small structures with random labels."""

    def make(
        names: tuple[str, ...] = ("ethanol", "skewed_cell", "slab"),
        copies: int = 2,
        cutoff: float = 4.0,
        seed: int = SEED,
    ) -> list[Sample]:
        rng = np.random.default_rng(seed)
        samples = []
        for index in range(copies * len(names)):
            name = names[index % len(names)]
            atoms = small_structures[name].copy()
            atoms.positions += 0.05 * rng.normal(size=atoms.positions.shape)
            samples.append(
                Sample(
                    graph=to_graph(atoms, cutoff),
                    targets=make_targets(atoms, rng),
                    place=f"{name}, frame {index}",
                    config_type=name,
                    group=f"{name}{index}",
                )
            )
        return samples

    return make
