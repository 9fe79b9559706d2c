"""Steps along the distance and their derivatives."""

import pytest
import torch

from surefoot.blocks.radial import expand
from surefoot.blocks.sigmoids import Sigmoids

LENGTHS = torch.linspace(0.3, 4.9, 9, dtype=torch.float64)


@pytest.mark.parametrize("tilt", [0.0, 0.001])
def test_values(tilt) -> None:
    found = Sigmoids(5.0, 11, 2.0, tilt).derivative(LENGTHS, 0)
    x = 2.0 * (LENGTHS[:, None] - torch.linspace(0, 5, 11, dtype=torch.float64)) / 0.5
    torch.testing.assert_close(found, torch.sigmoid(x) + tilt * x)


@pytest.mark.parametrize("tilt", [0.0, 0.001])
@pytest.mark.parametrize("order", range(5))
def test_derivatives(tilt, order) -> None:
    """Each is the slope of the one before."""
    basis = Sigmoids(5.0, 11, 1.5, tilt)
    lengths = LENGTHS.clone().requires_grad_()
    value = basis.derivative(lengths, order)
    slopes = [
        torch.autograd.grad(value[:, k].sum(), lengths, retain_graph=True)[0] for k in range(11)
    ]
    torch.testing.assert_close(torch.stack(slopes, -1), basis.derivative(LENGTHS, order + 1))


def test_steps_far_away_are_no_denormal_numbers() -> None:
    lengths = torch.tensor([0.0, 4.0, 8.0])
    for order in range(3):
        found = Sigmoids(8.0, 400, 1.0).derivative(lengths, order)
        assert not ((found != 0) & (found.abs() < 1e-36)).any()
    assert torch.isfinite(expand(lengths, Sigmoids(8.0, 400, 1.0))).all()
