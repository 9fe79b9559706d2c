"""Random numbers as a function of seed, system and step: there is no state to lose.

A counter-based generator (Philox; Salmon et al., SC 2011) is keyed by seed and system and counts
from the step, so a restart draws what the uninterrupted run would have drawn, and a system draws
the same whoever moves beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

BLOCK = 32  # steps drawn at once, since making a generator costs more than using it
Purpose = Literal["momenta", "thermostat", "barostat"]
PURPOSES: dict[Purpose, int] = {"momenta": 0, "thermostat": 1, "barostat": 2}


class Noise:
    """Normals and sums of squares of normals for many systems; caches the block it is in.

    Args:
        seed: of all systems.
        ids: (systems) number of each; equal numbers draw equally.
    """

    def __init__(self, seed: int, ids: Sequence[int]) -> None:
        self.seed, self.ids = seed, tuple(ids)
        self._drawn: dict[object, tuple[int, Tensor]] = {}

    def vectors(
        self, purpose: Purpose, step: int, counts: Sequence[int]
    ) -> Float[Tensor, "atoms 3"]:
        """Standard normals for every atom.

        Args:
            purpose: what they are for; each has its own.
            step: of the run.
            counts: (systems) atoms of each system.
        """
        shapes = [(BLOCK, count, 3) for count in counts]
        return self._block(
            (purpose, "vectors"),
            step,
            lambda generator, system: generator.standard_normal(shapes[system]),
        )

    def normals(self, purpose: Purpose, step: int) -> Float[Tensor, " systems"]:
        """A standard normal for every system."""
        return self._block(
            (purpose, "normals"), step, lambda generator, _: generator.standard_normal((BLOCK, 1))
        )

    def squares(self, purpose: Purpose, step: int, counts: Sequence[int]) -> Tensor:
        """The sum of the squares of that many standard normals for every system, (systems).

        Args:
            purpose: what they are for.
            step: of the run.
            counts: (systems) normals in the sum, 0 or more.
        """
        return self._block(
            (purpose, "squares"),
            step,
            # After the normals of the same purpose in the stream: they must not be the same bits.
            lambda generator, system: (
                2 * generator.standard_gamma(counts[system] / 2, size=(BLOCK, 1))
            ),
            stream=1,
        )

    def _block(
        self,
        key: tuple[Purpose, str],
        step: int,
        draw: Callable[[np.random.Generator, int], np.ndarray],
        stream: int = 0,
    ) -> Tensor:
        block, place = divmod(step, BLOCK)
        held = self._drawn.get(key)
        if held is None or held[0] != block:
            parts = []
            for number, system in enumerate(self.ids):
                counter = [0, stream, block, PURPOSES[key[0]]]
                key_of = np.array([self.seed, system], np.uint64)  # a list would go through floats
                bits = np.random.Philox(key=key_of, counter=counter)
                parts.append(draw(np.random.Generator(bits), number))
            held = block, torch.tensor(np.concatenate(parts, axis=1))
            self._drawn[key] = held
        return held[1][place]
