"""What decay acts on, whatever members weights belong to."""

import pytest
import torch

from surefoot.blocks.dense import Weights
from surefoot.blocks.reference import Baseline
from surefoot.heads import HEADS
from surefoot.heads.categorical import Categorical
from surefoot.heads.scalar import Scalar
from surefoot.models import MODELS
from surefoot.models.schnet import Schnet
from surefoot.potential import Potential
from surefoot.train.adamw import AdamW
from surefoot.train.state import fresh_state


def decayed(weights: Weights, *, stacked: bool) -> dict[str, float]:
    """What a step without a slope leaves of each leaf."""
    step = AdamW(weight_decay=0.5, amsgrad=True, clip=10.0)
    state = fresh_state(weights, members=(), moments=step.fresh(weights))
    slopes = {name: torch.zeros_like(value) for name, value in weights.items()}
    step(state, lambda _: ({}, slopes), 0.1, stacked=stacked)
    return {name: float(value.mean()) for name, value in state.weights.items()}


@pytest.mark.parametrize("kind", ["one", "stacked", "heads on one model"])
def test_biases_do_not_decay(kind) -> None:
    head = (4,) if kind != "one" else ()
    model = head if kind == "stacked" else ()
    weights = {
        "model.embedding": torch.ones(*model, 2, 3),
        "model.x.bias": torch.ones(*model, 3),
        "head.layer0.out.weight": torch.ones(*head, 3, 1),
        "head.layer0.out.bias": torch.ones(*head, 1),
    }
    found = decayed(weights, stacked=kind == "stacked")
    for name, left in found.items():
        assert left == pytest.approx(1.0 if name.endswith("bias") else 0.95)


PARTS = [
    *((model(), Scalar()) for model in MODELS.values()),
    *((Schnet(), head()) for head in HEADS.values()),
    (Schnet(), Categorical(forces="direct_lab")),
]


@pytest.mark.parametrize(("model", "head"), PARTS, ids=lambda part: getattr(part, "name", None))
def test_biases_are_what_is_called_so(model, head) -> None:
    """Decay goes by the name: no vector has another one, and no matrix this one."""
    baseline = Baseline(elements=(1, 8), energies=(0.0, 0.0), scale=1.0, neighbors=5.0)
    weights = Potential(model=model, head=head, baseline=baseline).init(0, torch.float32)
    for name, value in weights.items():
        assert name.endswith("bias") == (value.dim() < 2), name


@pytest.mark.parametrize("stacked", [True, False])
def test_the_norm_of_each_member_is_bounded_as_it_is(stacked: bool) -> None:
    """One member is far above the bound and one below it: the first alone is scaled."""
    step = AdamW(weight_decay=0.0, amsgrad=True, clip=1e6, clip_norm=10.0)
    weights = {"a.weight": torch.zeros(2, 3, 1), "b.bias": torch.zeros(2, 1)}
    slopes = {
        "a.weight": torch.tensor([[[30.0]] * 3, [[1.0]] * 3]).reshape(2, 3, 1),
        "b.bias": torch.tensor([[40.0], [2.0]]),
    }
    if not stacked:
        weights, slopes = ({n: v[0] for n, v in tree.items()} for tree in (weights, slopes))
    state = fresh_state(weights, members=(2,) if stacked else (), moments=step.fresh(weights))
    step(state, lambda _: ({}, slopes), 0.0, stacked=stacked)
    moments = state.moments["exp_avg"]
    norm = float((3 * 30.0**2 + 40.0**2) ** 0.5)
    rows = {name: value if stacked else value[None] for name, value in moments.items()}
    assert rows["a.weight"][0].flatten().tolist() == pytest.approx([0.1 * 300 / norm] * 3)
    assert float(rows["b.bias"][0]) == pytest.approx(0.1 * 400 / norm)
    if stacked:
        assert rows["a.weight"][1].flatten().tolist() == pytest.approx([0.1] * 3)
