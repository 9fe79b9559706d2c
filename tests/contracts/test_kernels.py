"""Kernels built for registers of any width say what plain torch says; a new model needs a line."""

import ctypes
import platform
from pathlib import Path

import pytest
import torch
from ase import Atoms
from torch import Tensor

from surefoot.blocks import convolution, native
from surefoot.blocks.native import kernels, plain_only
from surefoot.blocks.reference import Baseline
from surefoot.data.convert import to_graph
from surefoot.graph import collate
from surefoot.heads.scalar import Scalar
from surefoot.heads.sphere import Sphere
from surefoot.models import MODELS, Model
from surefoot.models.allegro import Allegro
from surefoot.models.mace import Mace
from surefoot.models.race import Race
from surefoot.models.schnet import Schnet
from surefoot.models.scn import Scn
from surefoot.potential import Potential

CUTOFF = 4.0
SMALL: dict[str, Model] = {  # numbers of channels that fill some vectors and leave a rest
    "schnet": Schnet(cutoff=CUTOFF, features=35, interactions=2, gaussians=8),
    "mace": Mace(cutoff=CUTOFF, irreps="35x0e + 35x1o", max_ell=2, correlation=3, radial=(8,)),
    "race": Race(cutoff=CUTOFF, irreps="35x0e + 9x1o + 3x2e", channels=18, max_ell=2, radial=(8,)),
    "allegro": Allegro(cutoff=CUTOFF, layers=2, scalars=8, tensors=35, latent_width=8),
    "scn": Scn(cutoff=CUTOFF, channels=35, hidden=9, layers=1, lmax=2, mmax=1, messages="so2"),
}
BASELINE = Baseline(elements=(1, 6, 8), energies=(-1.3, -3.7, -2.2), scale=1.7, neighbors=12.0)
PROCESSORS = {
    16: ("x86-64", {"sse2"}),
    32: ("x86-64-v3", {"avx2", "fma", "bmi2", "f16c", "movbe"}),
    64: ("x86-64-v4", {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}),
}
"""Bytes of a register; a processor that has those, and what it has to know."""
TOLERANCE = {torch.float64: 1e-12, torch.float32: 3e-5}  # of the largest value


@pytest.fixture(params=PROCESSORS)
def width(request, monkeypatch, tmp_path):
    """Bytes of a register; kernels are quickly built for it."""
    march, needed = PROCESSORS[request.param]
    info = Path("/proc/cpuinfo")
    known = set(info.read_text().split()) if info.exists() else set()
    if platform.machine() != "x86_64" or not needed <= known or native.find_compiler() is None:
        pytest.skip(f"no compiler, or a processor without registers of {request.param} bytes.")
    monkeypatch.setattr(native, "FLAGS", ("-O1", f"-march={march}", *native.FLAGS[2:]))
    monkeypatch.setenv("SUREFOOT_CACHE", str(tmp_path))
    monkeypatch.setattr(convolution, "BLOCK", 16)  # so that small structures have several
    native._library.cache_clear()
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield request.param
    torch.set_num_threads(threads)
    native._library.cache_clear()


def answers(potential: Potential, weights: dict[str, Tensor], graph) -> list[Tensor]:
    """Energies, forces, both for large batches, and the slopes of a training step."""
    found = []
    for memory in ("keep", "recompute"):
        output = potential(weights, graph, memory=memory)
        found += [output.energy.mean, output.forces.mean]
    learnt = {name: value.requires_grad_() for name, value in weights.items()}
    output = potential(learnt, graph, differentiable=True)
    loss = output.energy.mean.sum() + output.forces.mean.square().sum()
    slopes = torch.autograd.grad(loss, list(learnt.values()), allow_unused=True)
    return [value.detach() for value in (*found, *slopes) if value is not None]


def test_every_model_is_tried() -> None:
    assert set(SMALL) == set(MODELS)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_widths_of_registers(width, dtype, small_structures: dict[str, Atoms]) -> None:
    library = kernels(torch.zeros(1, dtype=dtype))
    assert library is not None
    assert ctypes.c_int32.in_dll(library, "lanes").value * dtype.itemsize == width
    graph = collate([to_graph(small_structures[n], CUTOFF) for n in ("skewed_cell", "ethanol")])
    for name, model in SMALL.items():
        head = Sphere() if name == "scn" else Scalar(hidden=4)
        potential = Potential(model=model, head=head, baseline=BASELINE)
        generator = torch.Generator().manual_seed(5)
        weights = {  # so that no last map is zero
            key: value + 0.2 * torch.randn(value.shape, generator=generator, dtype=dtype)
            for key, value in potential.init(3, dtype).items()
        }
        quick = answers(potential, dict(weights), graph)
        with plain_only():
            plain = answers(potential, dict(weights), graph)
        assert len(quick) == len(plain) > 5
        for number, (one, other) in enumerate(zip(quick, plain, strict=True)):
            scale = float(other.abs().max())
            limit = TOLERANCE[dtype] * max(scale, 1e-6)
            place = f"{name}, answer {number}"
            assert float((one - other).abs().max()) <= limit, place
        assert float(plain[1].abs().max()) > 1e-2, name
