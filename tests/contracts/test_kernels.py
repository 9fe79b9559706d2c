"""Kernels built for registers of any width say what plain torch says; a new model needs a line."""

import platform
from pathlib import Path

import pytest
import torch
from ase import Atoms

from surefoot.blocks import native
from surefoot.blocks.native import kernels, plain_only
from surefoot.blocks.reference import Baseline
from surefoot.data.convert import to_graph
from surefoot.graph import collate
from surefoot.heads.scalar import Scalar
from surefoot.heads.sphere import Sphere
from surefoot.models import Model
from surefoot.models.allegro import Allegro
from surefoot.models.mace import Mace
from surefoot.models.race import Race
from surefoot.models.schnet import Schnet
from surefoot.models.scn import Scn
from surefoot.potential import Potential

CUTOFF = 4.0
MODELS: dict[str, Model] = {  # numbers of channels that fill some vectors and leave a rest
    "schnet": Schnet(cutoff=CUTOFF, features=18, interactions=2, gaussians=8),
    "mace": Mace(cutoff=CUTOFF, irreps="19x0e + 19x1o", max_ell=2, correlation=3, radial=(8,)),
    "race": Race(cutoff=CUTOFF, irreps="18x0e + 9x1o + 3x2e", channels=18, max_ell=2, radial=(8,)),
    "allegro": Allegro(cutoff=CUTOFF, layers=2, scalars=8, tensors=18, latent_width=8),
    "scn": Scn(cutoff=CUTOFF, channels=18, hidden=9, layers=1, lmax=2, mmax=1, messages="so2"),
}
WIDTHS = {16: "x86-64", 32: "x86-64-v3", 64: "x86-64-v4"}
"""Bytes of a register, and a processor that has those."""


@pytest.fixture(params=WIDTHS)
def _built(request, monkeypatch, tmp_path) -> None:
    """Kernels for registers of that width, quickly built."""
    info = Path("/proc/cpuinfo")
    flags = set(info.read_text().split()) if info.exists() else set()
    able = {16: {"sse2"}, 32: {"avx2", "fma"}, 64: {"avx512f"}}[request.param]
    if platform.machine() != "x86_64" or not able <= flags or native.find_compiler() is None:
        pytest.skip(f"no compiler, or a processor without registers of {request.param} bytes.")
    march = f"-march={WIDTHS[request.param]}"
    options = ["-O1" if flag == "-O3" else flag for flag in native.FLAGS]
    replaced = tuple(march if flag == native.NATIVE else flag for flag in options)
    monkeypatch.setattr(native, "FLAGS", replaced)
    monkeypatch.setenv("SUREFOOT_CACHE", str(tmp_path))
    native._library.cache_clear()
    yield
    native._library.cache_clear()


@pytest.mark.slow
@pytest.mark.usefixtures("_built")
def test_widths_of_registers(small_structures: dict[str, Atoms]) -> None:
    dtype = torch.float64
    assert kernels(torch.zeros(1, dtype=dtype)) is not None
    graph = collate([to_graph(small_structures[n], CUTOFF) for n in ("skewed_cell", "ethanol")])
    baseline = Baseline(elements=(1, 6, 8), energies=(-1.3, -3.7, -2.2), scale=1.7, neighbors=12.0)
    for name, model in MODELS.items():
        head = Sphere() if name == "scn" else Scalar(hidden=4)
        potential = Potential(model=model, head=head, baseline=baseline)
        generator = torch.Generator().manual_seed(5)
        weights = {  # so that no last map is zero
            key: value + 0.2 * torch.randn(value.shape, generator=generator, dtype=dtype)
            for key, value in potential.init(3, dtype).items()
        }
        quick = potential(weights, graph)
        with plain_only():
            plain = potential(weights, graph)
        for one, other in (
            (quick.energy.mean, plain.energy.mean),
            (quick.forces.mean, plain.forces.mean),
        ):
            scale = float(other.detach().abs().max())
            assert scale > 1e-2, name
            torch.testing.assert_close(one, other, rtol=0, atol=1e-12 * scale, msg=name)
