"""Parts of a Predictor as its file spells them, and weights that are not those of its potential."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch.overrides import TorchFunctionMode

from surefoot.blocks.conditioning import States
from surefoot.blocks.dense import Weights
from surefoot.blocks.reference import Baseline
from surefoot.blocks.repulsion import Repulsion
from surefoot.data.read import MOST
from surefoot.members import count_members, shares_model
from surefoot.potential import Potential
from surefoot.train.checkpoint import SHOWN, RefusedFile

ROOM = 1_000_000  # numbers that making fresh weights may need beside them
MAKERS = (torch.rand, torch.randn, torch.zeros, torch.ones, torch.empty, torch.full)


def say_setting(error: ValidationError) -> str:
    """The first setting that is not as this version has it, on one line."""
    problem = error.errors()[0]
    name = ".".join([error.title, *map(str, problem["loc"])])
    return f"{name}: {problem['msg']:.{SHOWN}}, found {problem['input']!r:.{SHOWN}}"


class _Bounded(TorchFunctionMode):
    """Inside, tensors that are made have so many numbers together, and no more.

    The settings of a file that is made to harm may ask for weights that fill the memory.
    """

    def __init__(self, left: int) -> None:
        super().__init__()
        self.left = left

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if func in MAKERS and args:
            shape = args[0] if isinstance(args[0], tuple | list) else args
            self.left -= math.prod(n for n in shape if isinstance(n, int))
            if self.left < 0:
                raise ValueError("its settings ask for far more weights than it holds")
        return func(*args, **(kwargs or {}))


def require_weights(potential: Potential, found: Weights, path: Path) -> None:
    """Refuse draws that are not weights of the potential: read as they are, some would not matter.

    Args:
        potential: whose weights they should be.
        found: a stack, whole or partial.
        path: of the file.
    Raises:
        RefusedFile: naming the first weight that is missing, left over or of another shape or kind.
    """
    try:
        with _Bounded(ROOM + 4 * sum(value.numel() for value in found.values())):
            fresh = potential.init(0, torch.float64)
    except (ValueError, TypeError, OverflowError, RuntimeError, MemoryError) as error:
        raise RefusedFile(
            f"{path}: no weights can be made with its settings ({error!s:.{SHOWN}})."
        ) from error
    found = {name: value for name, value in found.items() if name.startswith(("model.", "head."))}
    _require_kinds(found, path)
    for name in sorted(fresh.keys() - found.keys()):
        raise RefusedFile(
            f"{path}: the weight {name} of shape {tuple(fresh[name].shape)} is missing; the file "
            "is of no use."
        )
    for name in sorted(found.keys() - fresh.keys()):
        raise RefusedFile(
            f"{path}: the weight {name} of shape {tuple(found[name].shape[1:])} is not one of the "
            "potential; the file is of no use."
        )
    stacked = ("head.",) if shares_model(found) else ("model.", "head.")
    count = (count_members(found),)
    for name in sorted(fresh):
        sets = count if name.startswith(stacked) else ()
        shape, needed = tuple(found[name].shape), (*sets, *fresh[name].shape)
        if shape != needed:
            raise RefusedFile(
                f"{path}: the weight {name} has the shape {shape}, and the potential needs "
                f"{needed}, sets of weights first; the file is of no use."
            )


def _require_kinds(found: Weights, path: Path) -> None:
    """Refuse weights that are no real numbers, or of several precisions."""
    kinds = {value.dtype for value in found.values()}
    if len(kinds) > 1 or not kinds <= {torch.float32, torch.float64}:
        told = ", ".join(sorted(str(kind).removeprefix("torch.") for kind in kinds))
        raise RefusedFile(
            f"{path}: its weights are {told}; all float32 or all float64 is needed; the file is of "
            "no use."
        )


def read_baseline(header: dict[str, Any]) -> Baseline:
    """The baseline.

    Raises:
        KeyError, TypeError, ValueError: if it is none.
    """
    elements = tuple(header["elements"])
    if not all(type(one) is int and 1 <= one <= MOST for one in elements):
        raise ValueError("the elements of its baseline are no atomic numbers")
    energies = read_numbers(header["energies"], "the energies of its baseline")
    if list(elements) != sorted(set(elements)) or len(energies) != len(elements):
        raise ValueError("its baseline does not have one energy for each element, ascending")
    return Baseline(
        elements=elements,
        energies=energies,
        scale=read_number(header["scale"], "the scale"),
        neighbors=read_number(header["neighbors"], "the number of neighbours"),
        repulsion=_read_repulsion(header["repulsion"], len(elements)),
    )


def _read_repulsion(header: dict[str, Any] | None, species: int) -> Repulsion | None:
    if header is None:
        return None
    radii = read_numbers(header["radii"], "the radii of its repulsion")
    others = {n: read_number(v, f"{n:.20} of its repulsion") for n, v in header.items()
              if n != "radii"}  # fmt: skip
    if len(radii) != species or others.get("power", 6) not in range(1, 101):
        raise ValueError("its repulsion is not one of its elements")
    power = {"power": int(others["power"])} if "power" in others else {}
    return Repulsion(**{**others, **power, "radii": radii})


def read_number(value: Any, name: str) -> float:
    """A finite number.

    Raises:
        ValueError: if it is none, with the name.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{name} is no finite number")
    return float(value)


def read_numbers(values: Iterable[Any], name: str) -> tuple[float, ...]:
    """Finite numbers; see `read_number`."""
    return tuple(read_number(value, name) for value in values)


def read_provenance(header: Any) -> dict[str, Any]:
    """How a potential was made, of which the states are looked at in every structure.

    Raises:
        ValueError: if it is no description, or the states are none.
    """
    if not isinstance(header, dict):
        raise ValueError("its provenance is no description")
    states = header.get("states", [])
    if not isinstance(states, list) or not all(_is_stated(pair) for pair in states):
        raise ValueError("the states of its provenance are no charges and spins")
    return header


def _is_stated(pair: Any) -> bool:
    return (
        isinstance(pair, list)
        and len(pair) == 2
        and all(one is None or type(one) is int for one in pair)
    )


def read_states(pairs: list[list[int]] | None) -> States | None:
    """The states that are told apart.

    Raises:
        ValueError: if they are none.
    """
    if pairs is None:
        return None
    if not pairs or not all(_is_stated(pair) and None not in pair for pair in pairs):
        raise ValueError("its states are no charges and spins")
    if not all(-(2**31) < number < 2**31 for pair in pairs for number in pair):
        raise ValueError("a charge or spin of its states is enormous")
    return States(tuple((charge, spin) for charge, spin in pairs))
