"""Functions that are linear in each of several factors, differentiable to any order.

With a cotangent for one more factor such a function is a number, a form linear in each of them, and
its derivative by any factor is that form without this factor: one operator closes the family.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Form = Callable[..., Tensor]
"""(slot, other factors in their order) → the form without the factor of that slot."""


def without(form: Form, slot: int, *factors: Tensor) -> Tensor:
    """The form without one factor.

    Args:
        form: what computes it.
        slot: which factor is left out.
        factors: all others, in their order.
    """
    return _Without.apply(form, slot, *factors)  # type: ignore[no-any-return]


class _Without(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, form: Form, slot: int, *factors: Tensor) -> Tensor:
        ctx.form, ctx.slot = form, slot
        ctx.save_for_backward(*factors)
        return form(slot, *factors)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        factors = list(ctx.saved_tensors)
        factors.insert(ctx.slot, grads[0])
        slopes = []
        for slot in range(len(factors)):
            if slot == ctx.slot:
                continue
            needed = ctx.needs_input_grad[2 + len(slopes)]
            others = factors[:slot] + factors[slot + 1 :]
            slopes.append(_Without.apply(ctx.form, slot, *others) if needed else None)
        return None, None, *slopes
