"""Products of the tensors on an atom's rows with the tensors of the atom's environment.

    out_e = Σ_paths w_path √(2 l3 + 1) C(l1, l2, l3) · (x_e ⊗ A_{atom(e)})        channel by channel

The environment A is one for all rows e of an atom, and rows outnumber atoms by far. So A is coupled
first, once per atom, to a matrix M from the components of x to those of the result, and each row is
multiplied by its atom's matrix:

    M_a[i, k] = Σ_{path, j} w_path √(2 l3 + 1) C[i, j, k] A_a[j]
    out_e[k] = Σ_i x_e[i] M_{atom(e)}[i, k]

Per row and channel that is the number of matrix entries, whatever the number of paths.
"""

from __future__ import annotations

import ctypes
import functools
import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from surefoot.blocks.angular import clebsch_gordan
from surefoot.blocks.couplings import Irrep, Irreps, couple_irreps
from surefoot.blocks.dense import lookup
from surefoot.blocks.forms import without
from surefoot.blocks.native import address, kernels, share
from surefoot.compilation import operator
from surefoot.segments import Segments, gather

LEAST_ATOMS = 16  # fewer atoms than this are not worth a thread of their own


@dataclass(frozen=True, eq=False)
class EnvironmentCouplings:
    """Which irreps of rows and environment couple to which, and by what coefficients.

    Attributes:
        inputs: irreps of the rows.
        environment: irreps of the atoms.
        outputs: irreps of the result.
        paths: positions in (inputs, environment, outputs) of each path; the weights are in this
            order: by output, then by input, then by environment.
        path: (environment × inputs × outputs components) the path of each triple of components.
        values: of the same shape, √(2 l3 + 1) C; zero where no path is.
    """

    inputs: Irreps
    environment: Irreps
    outputs: Irreps
    paths: tuple[tuple[int, int, int], ...]
    path: Int[np.ndarray, "environment inputs outputs"]
    values: Float[np.ndarray, "environment inputs outputs"]


@functools.cache
def environment_couplings(
    inputs: Irreps, environment: Irreps, outputs: Irreps
) -> EnvironmentCouplings:
    """All paths from inputs ⊗ environment to outputs, component-normalised; cached.

    Args:
        inputs: irreps of the rows, each with every channel.
        environment: irreps of the atoms.
        outputs: irreps wanted.
    """
    starts = [_starts(irreps) for irreps in (environment, inputs, outputs)]
    path = np.zeros([start[-1] for start in starts], dtype=np.int64)
    values = np.zeros(path.shape)
    paths = []
    for c, third in enumerate(outputs):
        for a, first in enumerate(inputs):
            for b, second in enumerate(environment):
                if third in couple_irreps(first, second):
                    block = np.ix_(
                        *(range(*s[n : n + 2]) for s, n in zip(starts, (b, a, c), strict=True))
                    )
                    path[block] = len(paths)
                    values[block] = _component_coupling(first, second, third)
                    paths.append((a, b, c))
    return EnvironmentCouplings(inputs, environment, outputs, tuple(paths), path, values)


def _starts(irreps: Irreps) -> list[int]:
    return np.cumsum([0, *(irrep.dim for irrep in irreps)]).tolist()


def _component_coupling(
    first: Irrep, second: Irrep, third: Irrep
) -> Float[np.ndarray, "environment inputs outputs"]:
    """√(2 l3 + 1) C: components of unit variance couple to components of unit variance."""
    coupling = clebsch_gordan(first.degree, second.degree, third.degree).numpy()
    return math.sqrt(third.dim) * coupling.transpose(1, 0, 2)


def couple_environment(
    rows: Float[Tensor, "*members rows components channels"],
    environment: Float[Tensor, "*members atoms second channels"],
    weights: Float[Tensor, "*members paths channels"],
    couplings: EnvironmentCouplings,
    atoms: Segments,
) -> Float[Tensor, "*members rows outputs channels"]:
    """The tensor product of each row with its atom's environment; see the top of the file.

    Args:
        rows: x (…, rows, components, channels), sorted by atom.
        environment: A (…, atoms, components, channels).
        weights: w (…, paths, channels).
        couplings: the paths.
        atoms: rows by atom, sorted.
    """
    path = torch.as_tensor(couplings.path, device=rows.device)
    values = torch.as_tensor(couplings.values, device=rows.device).to(rows.dtype)
    table = lookup(weights, path.flatten()) * values.reshape(-1, 1)
    second, inputs, outputs = path.shape
    # Copies: batched products of operands without a contiguous axis fall back to a slow loop.
    table = table.mT.contiguous().unflatten(-1, (second, inputs * outputs))
    matrices = environment.movedim(-1, -3).contiguous() @ table
    matrices = matrices.movedim(-3, -1).contiguous()
    return multiply_rows(rows, matrices.unflatten(-2, (inputs, outputs)), atoms)


def multiply_rows(
    rows: Float[Tensor, "*members rows inputs channels"],
    matrices: Float[Tensor, "*members atoms inputs outputs channels"],
    atoms: Segments,
) -> Float[Tensor, "*members rows outputs channels"]:
    """Each row times its atom's matrix, channel by channel.

    out_e[k] = Σ_i x_e[i] M_{atom(e)}[i, k]

    The hot loop of the product. Only rows and matrices are kept for the backward pass, never a
    product per row: with a cotangent g it is a form linear in g, x and M, and every derivative is
    the same form without one of the three.
    """
    if kernels(rows, matrices) is None:
        return _plain(rows, matrices, atoms)
    return without(lambda slot, *two: _form(slot, *two, atoms.offsets), OUTPUT, rows, matrices)


def _plain(rows: Tensor, matrices: Tensor, atoms: Segments) -> Tensor:
    """The same in plain torch, one component of the rows after the other."""
    parts = (
        rows[..., i : i + 1, :] * gather(matrices[..., i, :, :], atoms, axis=-3)
        for i in range(rows.shape[-2])
    )
    return sum(parts, start=rows.new_zeros(()))


OUTPUT, ROWS, MATRIX = range(3)
"""The factors of Σ_e g_e[k] x_e[i] M_atom(e)[i, k]: g, x and M."""


def _empty(slot: int, a: Tensor, b: Tensor, offsets: Tensor) -> Tensor:
    if slot == MATRIX:  # from g and x
        inputs, outputs = b.shape[-2], a.shape[-2]
        atoms = offsets.shape[0] - 1
        return a.new_empty((*a.shape[:-3], atoms, inputs, outputs, a.shape[-1]))
    result = b.shape[-2] if slot == OUTPUT else b.shape[-3]
    return a.new_empty((*a.shape[:-2], result, a.shape[-1]))


class _Plan(ctypes.Structure):
    _fields_ = (
        ("offsets", ctypes.c_void_p),
        *((name, ctypes.c_int32) for name in ("inputs", "outputs", "channels")),
    )


def _run(slot: int, a: Tensor, b: Tensor, offsets: Tensor) -> Tensor:
    """The form without one factor; the other two in the order g, x, M."""
    library = kernels(a, b)
    if library is None:
        raise RuntimeError("a derivative was asked for where the kernels are not to be used.")
    a, b = a.contiguous(), b.contiguous()
    out = _empty(slot, a, b, offsets)
    matrix = out if slot == MATRIX else b
    inputs, outputs, channels = matrix.shape[-3:]
    atoms = offsets.shape[0] - 1
    # The kernel reads raw memory: what does not fit would be read past its end.
    first = inputs if slot == OUTPUT else outputs
    if a.shape[-2:] != (first, channels) or (
        slot == MATRIX and (a.shape[-3] != b.shape[-3] or b.shape[-1] != channels)
    ):
        raise ValueError(f"rows {tuple(a.shape)} do not fit to {tuple(b.shape)} in a product.")
    if slot != MATRIX and b.shape[-4] != atoms:
        raise ValueError(f"{b.shape[-4]} matrices are given for {atoms} atoms.")
    if int(offsets[-1]) != a.shape[-3]:
        raise ValueError(f"{a.shape[-3]} rows are given, but the atoms have {int(offsets[-1])}.")
    plan = _Plan(address(offsets), inputs, outputs, channels)
    kernel = (library.rows_out, library.rows_in, library.rows_matrix)[slot]
    bound = ctypes.c_int64
    members = a.dim() > 3
    for one, other, result in zip(a, b, out, strict=True) if members else [(a, b, out)]:
        places = [address(one), address(other), address(result)]

        def work(begin: int, end: int, places: list[ctypes.c_void_p] = places) -> None:
            kernel(ctypes.byref(plan), *places, bound(begin), bound(end))

        share(atoms, LEAST_ATOMS, work)
    return out


_form = operator("rows(int slot, Tensor a, Tensor b, Tensor offsets) -> Tensor", _run, _empty)
