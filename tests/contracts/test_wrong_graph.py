"""The first answer of a compiled potential is compared with its own, to what rounding allows."""

from collections.abc import Callable

import pytest
import torch
from ase.build import bulk
from torch import Tensor

from surefoot.blocks.reference import Baseline
from surefoot.compiled import compile_potential
from surefoot.data.convert import to_graph
from surefoot.heads.scalar import Scalar
from surefoot.models.schnet import Schnet
from surefoot.potential import Potential


@pytest.mark.usefixtures("tracing")
@pytest.mark.parametrize("wrong", [0.0, 1e-3])
def test_a_graph_with_another_answer_is_not_used(wrong, monkeypatch) -> None:
    """A meV is seen beside references of kiloelectronvolts, and forces may vanish by symmetry."""
    from torch._inductor import compile_fx

    def spoil(graph: Callable[..., list[Tensor]], _: object) -> Callable[..., list[Tensor]]:
        def run(*tensors: Tensor) -> list[Tensor]:
            energy, *others = graph(*tensors)
            return [energy + wrong, *others]

        return run

    monkeypatch.setattr(compile_fx, "compile_fx", spoil)
    potential = Potential(
        model=Schnet(cutoff=4.0, features=8, interactions=1, gaussians=8),
        head=Scalar(),
        baseline=Baseline(elements=(6, 8), energies=(-1029.0, -2042.0), scale=1.0, neighbors=20.0),
    )
    weights = potential.init(1, torch.float32)
    graph = to_graph(bulk("CO", "rocksalt", a=3.6, cubic=True), 4.0)
    expected = potential(weights, graph)
    assert expected.forces is not None
    assert float(expected.forces.mean.detach().abs().max()) < 1e-5
    evaluate = compile_potential(potential)
    if wrong:
        with pytest.warns(RuntimeWarning, match="differs by 1.0e-03 of 1.2e"):
            found = evaluate(weights, graph)
    else:
        found = evaluate(weights, graph)
    assert float(found.energy.mean.detach()) == pytest.approx(
        float(expected.energy.mean.detach()), rel=1e-9
    )
