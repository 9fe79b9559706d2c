import json

import pytest
import torch

from surefoot.train.adamw import MOMENTS
from surefoot.train.schedule import Plateau
from surefoot.train.state import State, fresh_state, restore_state


def weights_of(generator, members: tuple[int, ...] = ()) -> dict[str, torch.Tensor]:
    shape = (*members, 2, 3)
    return {"model.embedding": torch.randn(shape, generator=generator, dtype=torch.float64)}


@pytest.mark.parametrize("members", [(), (4,)])
def test_fresh_state_owns_its_tensors(members, generator) -> None:
    weights = weights_of(generator, members)
    before = weights["model.embedding"].clone()
    zeros = {name: torch.zeros_like(value) for name, value in weights.items()}
    state = fresh_state(weights, moments={"exp_avg": zeros})
    assert state.best_scores.shape == members
    for tree in (state.weights, state.averages, state.best, *state.moments.values()):
        tree["model.embedding"] += 1.0
    assert torch.equal(weights["model.embedding"], before)
    assert torch.equal(state.averages["model.embedding"], before + 1)
    assert torch.equal(state.moments["exp_avg"]["model.embedding"], torch.ones_like(before))


@pytest.mark.parametrize("best", [float("inf"), 0.25])
def test_restored_state_is_the_same(best, generator) -> None:
    weights = weights_of(generator, (2,))
    state = State(
        weights=weights,
        averages=weights_of(generator, (2,)),
        best=weights_of(generator, (2,)),
        best_scores=torch.tensor([0.5, torch.inf]),
        moments={kind: weights_of(generator, (2,)) for kind in MOMENTS},
        step=7,
        epoch=2,
        batch=1,
        sums={"energy": torch.tensor([1.0, 2.0])},
        plateau=Plateau(share=0.5, best=best, stale=5, waited=2),
        history=[{"epoch": 1.0, "train_total": 3.5}],
    )
    header = json.loads(json.dumps(state.header(), allow_nan=False))
    again = restore_state(state.tree(), header)
    assert again.header() == state.header()
    assert again.plateau == state.plateau
    assert again.tree().keys() == state.tree().keys()
    assert all(torch.equal(again.tree()[name], value) for name, value in state.tree().items())
