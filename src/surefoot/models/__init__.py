"""One paper, one file: Geometry → Features. May import blocks and below; models are strangers.

Comes in: weights and a `Geometry` (species and edge vectors, no positions). Goes out: `Features`.
"""

from __future__ import annotations

from typing import Any, ClassVar, Protocol, runtime_checkable

import torch

from surefoot.blocks.dense import Weights
from surefoot.blocks.splines import Curves
from surefoot.graph import Features, Geometry, Width
from surefoot.models.allegro import Allegro
from surefoot.models.mace import Mace
from surefoot.models.race import Race
from surefoot.models.schnet import Schnet
from surefoot.models.scn import Scn


@runtime_checkable
class Model(Protocol):
    """What the rest of the house knows of a model.

    Attributes:
        native: whether it uses kernels in C where there are some.
        recomputes: whether it can make radial weights anew for some pairs at a time in training.
        local: whether what it says of an atom depends on the edges that the atom receives alone.
        most_kept: pairs, times members; of more, large values of pairs are not kept in inference.
            None where they always are.
    """

    native: ClassVar[bool]
    recomputes: ClassVar[bool]
    local: ClassVar[bool]
    most_kept: ClassVar[int | None]

    @property
    def name(self) -> str:
        """As a config spells it."""
        ...

    @property
    def cutoff(self) -> float:
        """Å."""
        ...

    @property
    def widths(self) -> tuple[Width, ...]:
        """Channels of each read-out layer."""
        ...

    def init(self, generator: torch.Generator, species: int) -> Weights:
        """Fresh weights in float64; `embedding` (species, channels) is among them."""
        ...

    def curves(self, weights: Weights) -> dict[str, Curves]:
        """Networks of the distance alone: branch of the tree → what it gives, for splines.

        Where the branch holds a `table`, made by `tabulate`, the model looks it up there.
        """
        ...

    def model_dump(self) -> dict[str, Any]:
        """The settings, for the saved file."""
        ...

    def __call__(self, weights: Weights, geometry: Geometry) -> Features:
        """Rows of features, with a leading member axis where the weights have one."""
        ...


MODELS: dict[str, type[Allegro] | type[Mace] | type[Race] | type[Schnet] | type[Scn]] = {
    "allegro": Allegro,
    "mace": Mace,
    "race": Race,
    "schnet": Schnet,
    "scn": Scn,
}
"""Name in a config → model."""
