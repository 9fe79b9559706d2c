"""What an atom makes of its coefficients and of the messages it got: networks over the sphere.

`on_grid` is a network of the values at each point of a grid, which any function may enter, so that
it turns with its input only as well as the grid resolves what comes out. `gated` maps channels of
each degree and multiplies by what invariants say: exact, and poorer.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import silu

from surefoot.blocks.dense import SILU_SCALE, Weights, branch, linear, under
from surefoot.blocks.orders import init_dense


def init_grid(generator: torch.Generator, channels: int, bands: int) -> Weights:
    """Fresh weights of `on_grid` in float64."""
    wide, middle = 2 * bands * channels, 2 * channels
    return {
        **under("first", init_dense(generator, wide, wide)),
        **under("second", init_dense(generator, wide, middle, gain=SILU_SCALE)),
        **under("third", init_dense(generator, middle, channels, gain=SILU_SCALE)),
    }


def on_grid(
    x: Float[Tensor, "*members atoms components channels"],
    messages: Float[Tensor, "*members atoms components channels"],
    weights: Weights,
    synthesis: Float[Tensor, "points components"],
    analysis: Float[Tensor, "components points"],
    bands: int,
) -> Float[Tensor, "*members atoms components channels"]:
    """A network of three layers of the values of both functions at each point.

    With two bands it also sees both without their highest degree. The first layer is linear in the
    values, hence in the coefficients, of which there are fewer than points: it acts on those.

    Args:
        x: coefficients before.
        messages: coefficients of the sum of messages.
        weights: `first`, `second` and `third`, input first; the inputs of `first` are x, x without
            its highest degree, messages, and messages likewise (one band: x and messages).
        synthesis: from coefficients to values.
        analysis: from values to coefficients.
        bands: 1 or 2.
    """
    atoms, components, channels = x.shape[-3:]
    matrix = weights["first.weight"].unflatten(-2, (2, bands, channels))
    both = torch.cat([x, messages], dim=-1)
    lower = components - (2 * round(components**0.5) - 1) if bands == 2 else components
    parts = []
    # Components that all bands have see the sum of their maps, the highest degree only the first.
    for part, seen in zip(both.split([lower, components - lower], dim=-2), (bands, 1), strict=True):
        mapped = matrix[..., :seen, :, :].sum(-3).flatten(-3, -2)
        size = part.shape[-2]
        parts.append((part.flatten(-3, -2) @ mapped).unflatten(-2, (atoms, size)))
    values = (synthesis @ torch.cat(parts, dim=-2)).flatten(-3, -2)
    hidden = silu(values + weights["first.bias"].unsqueeze(-2))
    hidden = silu(linear(hidden, branch(weights, "second")))
    found = linear(hidden, branch(weights, "third")).unflatten(-2, (atoms, synthesis.shape[0]))
    return analysis @ found


def init_gated(generator: torch.Generator, channels: int, lmax: int) -> Weights:
    """Fresh weights of `gated` in float64."""
    mix = [
        init_dense(generator, 2 * channels, channels, bias=False)["weight"] for _ in range(lmax + 1)
    ]
    return {
        "mix": torch.stack(mix),
        **under("hidden", init_dense(generator, 2 * channels, 2 * channels)),
        **under(
            "gates", init_dense(generator, 2 * channels, (lmax + 1) * channels, gain=SILU_SCALE)
        ),
    }


def gated(
    x: Float[Tensor, "*members atoms components channels"],
    messages: Float[Tensor, "*members atoms components channels"],
    weights: Weights,
    lmax: int,
) -> Float[Tensor, "*members atoms components channels"]:
    """Linear maps of each degree, times what a network of degree 0 says.

    y_0 = network(x_0, M_0)_0,  y_l = W_l (x_l, M_l) ∘ σ(network(x_0, M_0)_l)

    Args:
        x: coefficients before.
        messages: coefficients of the sum of messages.
        weights: of `init_gated`.
        lmax: highest degree.
    """
    both = torch.cat([x, messages], dim=-1)
    channels = x.shape[-1]
    degrees = both.split([2 * degree + 1 for degree in range(lmax + 1)], dim=-2)
    hidden = silu(linear(degrees[0].squeeze(-2), branch(weights, "hidden")))
    zero, *gates = linear(hidden, branch(weights, "gates")).split(channels, dim=-1)
    parts = []
    for degree, values in enumerate(degrees):
        matrix = weights["mix"][..., degree, :, :]
        mapped = (values.flatten(-3, -2) @ matrix).unflatten(-2, values.shape[-3:-1])
        parts.append(
            mapped + zero.unsqueeze(-2)
            if degree == 0
            else mapped * gates[degree - 1].sigmoid().unsqueeze(-2)
        )
    return torch.cat(parts, dim=-2)
