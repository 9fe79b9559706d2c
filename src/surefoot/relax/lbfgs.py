"""LBFGS without a line search, for many systems at once.

Liu and Nocedal, Math. Program. 45 (1989) 503, apply an inverse Hessian that begins as 1/stiffness
and has learned from pairs s = x' − x, y = g' − g in two loops over the pairs. The loops are two
triangular systems (Byrd, Nocedal and Schnabel, Math. Program. 63 (1994) 129): with the columns
S, Y and the upper triangle R of SᵀY, its diagonal D, and forces f,

    R a = Sᵀf        z = (f − Y a) / stiffness        Rᵀ c = D a − Yᵀz        step = z + S c

so that a step costs four products for all systems, whatever is remembered. Steps are those of ASE's
LBFGS with the same settings, save that a pair with s·y ≤ 0 is left out: it would make the inverse
Hessian lose its positive sign, and the next step go uphill.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from surefoot.relax.rows import Memory, Rows
from surefoot.settings import Settings


class Lbfgs(Settings):
    """Settings of LBFGS; called through `begin` and `step`."""

    name: Literal["lbfgs"] = "lbfgs"
    memory: int = Field(default=100, ge=1, description="pairs of steps that are remembered")
    stiffness: float = Field(default=70.0, gt=0, description="Hessian to begin with, eV/Å²")
    longest_step: float = Field(default=0.2, gt=0, description="of any atom, Å")

    def begin(self, rows: Rows) -> Memory:
        """Nothing remembered yet."""
        row = torch.zeros(len(rows.owner), 3, dtype=torch.float64)
        history = row.new_zeros(len(row), 0, 3)
        return Memory(
            of_rows={"coordinates": row, "forces": row, "steps": history, "slopes": history},
            of_systems={
                "age": torch.zeros(rows.count, dtype=torch.int64),
                "products": row.new_zeros(rows.count, 0, 0),
            },
        )

    def join(self, first: Memory, second: Memory) -> Memory:
        """The memories of systems of different age as one; empty pairs change nothing."""
        pairs = max(one.of_systems["products"].shape[1] for one in (first, second))
        return _with_room(first, pairs).append(_with_room(second, pairs))

    def step(
        self,
        memory: Memory,
        rows: Rows,
        coordinates: Float[Tensor, "rows 3"],
        forces: Float[Tensor, "rows 3"],
    ) -> tuple[Memory, Float[Tensor, "rows 3"]]:
        """The displacement of every row, and what to carry on; see `Optimizes`."""
        memory = self._remember(memory, rows, coordinates, forces)
        steps, slopes = memory.of_rows["steps"], memory.of_rows["slopes"]
        products = memory.of_systems["products"]
        if products.shape[1] == 0:
            step = forces / self.stiffness
        else:
            diagonal = products.diagonal(dim1=-2, dim2=-1)
            # A pair that is empty, or was left out, has zeros for products: one on the diagonal
            # lets its share be zero.
            upper = products.triu() + torch.diag_embed((diagonal == 0).to(products.dtype))
            first = torch.linalg.solve_triangular(
                upper, _project(steps, forces, rows)[..., None], upper=True
            )[..., 0]
            step = (forces - _combine(slopes, first, rows)) / self.stiffness
            right = diagonal * first - _project(slopes, step, rows)
            second = torch.linalg.solve_triangular(upper.mT, right[..., None], upper=False)
            step = step + _combine(steps, second[..., 0], rows)
        scale = (self.longest_step / rows.longest(step)).clamp(max=1.0)
        return memory, step * scale[rows.owner, None]

    def _remember(self, memory: Memory, rows: Rows, coordinates: Tensor, forces: Tensor) -> Memory:
        """The memory with the pair that the last step made."""
        age = memory.of_systems["age"]
        of_rows = {**memory.of_rows, "coordinates": coordinates, "forces": forces}
        of_systems = {**memory.of_systems, "age": age + 1}
        if bool((age == 0).all()):
            return Memory(of_rows=of_rows, of_systems=of_systems)
        step = coordinates - memory.of_rows["coordinates"]
        slope = memory.of_rows["forces"] - forces
        sound = ((age > 0) & (rows.dot(step, slope) > 0))[rows.owner, None]
        for name, value in (("steps", step), ("slopes", slope)):
            kept = torch.where(sound, value, 0.0)
            of_rows[name] = torch.cat([memory.of_rows[name], kept[:, None]], 1)[:, -self.memory :]
        steps, slopes = of_rows["steps"], of_rows["slopes"]
        pairs = steps.shape[1]
        products = steps.new_zeros(rows.count, pairs, pairs)
        older = memory.of_systems["products"][:, -(pairs - 1) :, -(pairs - 1) :]
        products[:, : pairs - 1, : pairs - 1] = older if pairs > 1 else 0.0
        products[:, :, -1] = _project(steps, slopes[:, -1], rows)  # below the diagonal: not needed
        return Memory(of_rows=of_rows, of_systems={**of_systems, "products": products})


def _project(columns: Tensor, vector: Tensor, rows: Rows) -> Float[Tensor, "systems pairs"]:
    """Columnsᵀ vector of each system."""
    by_row = torch.einsum("rpx,rx->rp", columns, vector)
    return by_row.new_zeros(rows.count, by_row.shape[1]).index_add_(0, rows.owner, by_row)


def _combine(columns: Tensor, shares: Tensor, rows: Rows) -> Float[Tensor, "rows 3"]:
    """Columns · shares of each system."""
    return torch.einsum("rpx,rp->rx", columns, shares[rows.owner])


def _with_room(memory: Memory, pairs: int) -> Memory:
    """The same with as many pairs, the oldest of them empty."""
    missing = pairs - memory.of_systems["products"].shape[1]
    of_rows = dict(memory.of_rows)
    for name in ("steps", "slopes"):
        of_rows[name] = torch.nn.functional.pad(of_rows[name], (0, 0, missing, 0))
    products = torch.nn.functional.pad(memory.of_systems["products"], (missing, 0, missing, 0))
    return Memory(of_rows=of_rows, of_systems={**memory.of_systems, "products": products})
