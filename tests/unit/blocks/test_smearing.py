"""Gaussians of any width."""

import pytest
import torch

from surefoot.blocks.radial import Gaussians
from surefoot.blocks.smearing import Smearing

LENGTHS = torch.linspace(0.1, 5.9, 37, dtype=torch.float64)


def test_as_wide_as_their_spacing_they_are_those_of_schnet() -> None:
    for order in range(3):
        found = Smearing(6.0, 20, 1.0).derivative(LENGTHS, order)
        assert torch.equal(found, Gaussians(6.0, 20).derivative(LENGTHS, order))


@pytest.mark.parametrize("width", [0.7, 2.0])
def test_values_and_slopes(width) -> None:
    smearing, spacing = Smearing(6.0, 13, width), 0.5
    centres = spacing * torch.arange(13)
    expected = torch.exp(-(((LENGTHS[:, None] - centres) / (width * spacing)) ** 2) / 2)
    torch.testing.assert_close(smearing.derivative(LENGTHS, 0), expected)
    for order in range(3):
        ahead, behind = (smearing.derivative(LENGTHS + s, order) for s in (1e-5, -1e-5))
        slope = (ahead - behind) / 2e-5
        found = smearing.derivative(LENGTHS, order + 1)
        torch.testing.assert_close(found, slope, rtol=1e-7, atol=1e-7)
