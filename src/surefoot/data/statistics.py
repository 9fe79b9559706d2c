"""What a potential takes from its training split once: reference energies, scale, neighbours."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from ase.data import atomic_numbers, chemical_symbols

from surefoot.data.adsorption import require_subtracted
from surefoot.data.read import ISOLATED, Frame
from surefoot.wording import counted

References = Literal["auto", "isolated", "least_squares", "zero"] | dict[str, float]
RIDGE = 1e-8  # relative: only there to choose the shortest of many equal solutions


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """Measured on the training split.

    Attributes:
        elements: atomic numbers, ascending.
        energies: reference energy of each element in eV.
        source: where the reference energies come from, in words.
        scale: root mean square of force components in eV/Å, or of the energy per atom that is
            left beyond the references in eV where there are no forces.
    """

    elements: tuple[int, ...]
    energies: tuple[float, ...]
    source: str
    scale: float


def measure(
    frames: Sequence[Frame], references: References, scale: float | None = None
) -> Statistics:
    """References and scale of a training split.

    Args:
        frames: the training split, isolated atoms included.
        references: a mapping symbol → eV; `isolated` (frames of `config_type=IsolatedAtom`);
            `least_squares`; `auto` takes isolated atoms where every element has one, else least
            squares over all other frames; `zero` for energies that have a reference already, such
            as adsorption energies.
        scale: of the config, in eV and eV/Å; measured where not given.
    Raises:
        ValueError: if an element has no reference, with its symbol and the remedy.
    """
    elements = tuple(sorted({z for f in frames for z in f.structure.numbers.tolist()}))
    energies, source = reference_energies(frames, elements, references)
    return Statistics(
        elements=elements,
        energies=tuple(energies[z] for z in elements),
        source=source,
        scale=_scale(frames, energies) if scale is None else scale,
    )


def reference_energies(
    frames: Sequence[Frame], elements: Sequence[int], references: References
) -> tuple[dict[int, float], str]:
    """Reference energy of each element in eV, and a sentence on where they come from."""
    if isinstance(references, Mapping):
        return _from_mapping(references, elements), "a mapping in the config"
    if references == "zero":
        require_subtracted(frame.keys.get("energy", "") for frame in frames)
        return dict.fromkeys(elements, 0.0), "the config, which says zero"
    if not any(frame.energy is not None for frame in frames):
        return dict.fromkeys(elements, 0.0), "zero: the training data hold no energies"
    isolated = {
        int(frame.structure.numbers[0]): frame.energy
        for frame in frames
        if is_isolated(frame) and frame.energy is not None
    }
    missing = [chemical_symbols[z] for z in elements if z not in isolated]
    if references == "isolated" and missing:
        raise ValueError(
            f"references: isolated needs a frame with config_type={ISOLATED} and an energy for "
            f"each element; {', '.join(missing)} has none. Add them, or set references to "
            "least_squares or to a mapping such as {H: -13.6}."
        )
    if references == "isolated" or (references == "auto" and not missing):
        return {z: isolated[z] for z in elements}, f"frames of config_type={ISOLATED}"
    if references == "auto" and isolated:
        return _fit_without_isolated(frames, elements, missing)
    return _least_squares(frames, elements)


def _fit_without_isolated(
    frames: Sequence[Frame], elements: Sequence[int], missing: Sequence[str]
) -> tuple[dict[int, float], str]:
    """Least squares over what is bound: a free atom lacks the binding that the fit shares out."""
    bound = [frame for frame in frames if not is_isolated(frame)]
    count = len(frames) - len(bound)
    left_out = (
        f"{counted(count, 'isolated atom')} left out because {', '.join(missing)} "
        f"ha{'ve' if len(missing) > 1 else 's'} none"
    )
    if not any(frame.energy is not None for frame in bound):
        return dict.fromkeys(elements, 0.0), f"zero: no other frame has an energy, {left_out}"
    energies, source = _least_squares(bound, elements)
    return energies, f"{source}; {left_out}"


def is_isolated(frame: Frame) -> bool:
    """Whether a frame is a reference atom: a single atom that says so."""
    return frame.config_type == ISOLATED and len(frame.structure) == 1


def _from_mapping(references: Mapping[str, float], elements: Sequence[int]) -> dict[int, float]:
    unknown = [symbol for symbol in references if symbol not in atomic_numbers]
    if unknown:
        raise ValueError(f"references: '{unknown[0]}' is not the symbol of an element.")
    given = {atomic_numbers[symbol]: float(value) for symbol, value in references.items()}
    missing = [chemical_symbols[z] for z in elements if z not in given]
    if missing:
        raise ValueError(
            f"references: no energy for {', '.join(missing)}, which the training data hold."
        )
    return {z: given[z] for z in elements}


def _least_squares(
    frames: Sequence[Frame], elements: Sequence[int]
) -> tuple[dict[int, float], str]:
    """The smallest sum of (E − Σ n_Z E0(Z))² per atom squared; the shortest solution if many."""
    labelled = [frame for frame in frames if frame.energy is not None]
    chosen, size = list(elements), max(elements) + 1
    counts = np.array(
        [np.bincount(f.structure.numbers, minlength=size)[chosen] for f in labelled], float
    )
    sizes = counts.sum(1)
    design = counts / sizes[:, None]
    target = np.array([frame.energy for frame in labelled], float) / sizes
    solution, _, rank, _ = np.linalg.lstsq(design, target, rcond=RIDGE)
    source = f"least squares over {len(labelled)} frames"
    if rank < len(elements):
        source += (
            f" (their compositions fix {rank} of {len(elements)} combinations; the shortest "
            "solution is taken)"
        )
    return dict(zip(elements, solution.tolist(), strict=True)), source


def _scale(frames: Sequence[Frame], energies: Mapping[int, float]) -> float:
    # Frame by frame: all at once would be as large as the data set.
    squares = [
        (float(np.sum(np.square(frame.forces))), frame.forces.size)
        for frame in frames
        if frame.forces is not None and len(frame.structure) > 1
    ]
    if squares:
        rms = math.sqrt(math.fsum(s for s, _ in squares) / sum(count for _, count in squares))
    else:
        left = [
            (f.energy - sum(energies[z] for z in numbers)) / len(numbers)
            for f in frames
            for numbers in [f.structure.numbers.tolist()]
            if f.energy is not None and len(numbers) > 1
        ]
        rms = float(np.std(left)) if left else 0.0
    return rms if rms > 1e-6 else 1.0
