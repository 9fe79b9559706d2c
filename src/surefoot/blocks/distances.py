"""Distances measured in bond lengths: smooth maps of r before a radial basis.

The range in which energies change fast is another for each pair of elements. These maps end below
the first bond and resolve what lies around it, so that one basis serves all pairs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from surefoot.graph import Geometry

Transform = Literal["none", "agnesi", "soft"]

AGNESI = {"a": 1.0805, "q": 0.9183, "p": 4.5791}
"""Constants of Witt et al. 2023, as mace-torch has them."""

SOFT = 4.0
"""Steepness of the soft clamp, as mace-torch has it."""

# fmt: off
COVALENT_RADII = (
    0.31, 0.28, 1.28, 0.96, 0.84, 0.76, 0.71, 0.66, 0.57, 0.58, 1.66, 1.41,  # from 1
    1.21, 1.11, 1.07, 1.05, 1.02, 1.06, 2.03, 1.76, 1.70, 1.60, 1.53, 1.39,  # from 13
    1.39, 1.32, 1.26, 1.24, 1.32, 1.22, 1.22, 1.20, 1.19, 1.20, 1.20, 1.16,  # from 25
    2.20, 1.95, 1.90, 1.75, 1.64, 1.54, 1.47, 1.46, 1.42, 1.39, 1.45, 1.44,  # from 37
    1.42, 1.39, 1.39, 1.38, 1.39, 1.40, 2.44, 2.15, 2.07, 2.04, 2.03, 2.01,  # from 49
    1.99, 1.98, 1.98, 1.96, 1.94, 1.92, 1.92, 1.89, 1.90, 1.87, 1.87, 1.75,  # from 61
    1.70, 1.62, 1.51, 1.44, 1.41, 1.36, 1.36, 1.32, 1.45, 1.46, 1.48, 1.40,  # from 73
    1.50, 1.50, 2.60, 2.21, 2.15, 2.06, 2.00, 1.96, 1.90, 1.87, 1.80, 1.69,  # from 85
    2.00, 2.00, 2.00, 2.00, 2.00, 2.00, 2.00, 2.00, 2.00, 2.00, 2.00, 2.00,  # from 97
    2.00, 2.00, 2.00, 2.00, 2.00, 2.00, 2.00, 2.00, 2.00, 2.00,  # from 109
)
# fmt: on
"""Å, of the elements 1 to 118 (Cordero et al. 2008); 2.00 from 97 on, where there are none."""


def agnesi(
    lengths: Float[Tensor, "*members pairs"], bonds: Float[Tensor, " pairs"]
) -> Float[Tensor, "*members pairs"]:
    """X = 1 / (1 + a s^q / (1 + s^(q − p))),  s = 2 r / bond: from 1 at contact down to 0.

    Args:
        lengths: r in Å.
        bonds: sum of the covalent radii of each pair in Å.

    Source: Witt et al., J. Chem. Phys. 159, 164101 (2023); constants as in mace-torch.
    """
    a, q, p = AGNESI["a"], AGNESI["q"], AGNESI["p"]
    s = 2.0 * lengths / bonds
    return 1.0 / (1.0 + a * s**q / (1.0 + s ** (q - p)))


def soft(
    lengths: Float[Tensor, "*members pairs"], bonds: Float[Tensor, " pairs"]
) -> Float[Tensor, "*members pairs"]:
    """R for long distances, ¾ bond for short ones.

    x = p0 + ½ (r − p0) (1 + tanh(α (r − ½ (p0 + p1)) / (p1 − p0))),  p0 = ¾ bond, p1 = 4/3 bond

    Args:
        lengths: r in Å.
        bonds: sum of the covalent radii of each pair in Å.

    Source: mace-torch.
    """
    low, high = 0.75 * bonds, 4.0 / 3.0 * bonds
    step = torch.tanh(SOFT / (high - low) * (lengths - 0.5 * (low + high)))
    return low + 0.5 * (lengths - low) * (1.0 + step)


TRANSFORMS: dict[Transform, Callable[[Tensor, Tensor], Tensor]] = {"agnesi": agnesi, "soft": soft}


def bond_lengths(geometry: Geometry) -> Float[Tensor, " pairs"]:
    """Sum of the covalent radii of each pair in Å."""
    graph = geometry.graph
    like = {"dtype": geometry.lengths.dtype, "device": geometry.lengths.device}
    radii = torch.tensor((0.2, *COVALENT_RADII), **like)  # 0 is no element, but ASE's X
    first = graph.pair_edges[0]
    receiver, sender = graph.edge_index[0, first], graph.edge_index[1, first]
    return radii[graph.numbers[receiver]] + radii[graph.numbers[sender]]
