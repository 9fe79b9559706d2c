"""Where irreps stand in a layout, which of them meet in a product, and equivariant linear maps.

Values are (…, rows, components, channels), the components of all irreps one after the other.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from surefoot.blocks.angular import MAX_DEGREE, clebsch_gordan
from surefoot.blocks.couplings import Irrep, Irreps, Multiplicities, couple_irreps
from surefoot.blocks.dense import Weights
from surefoot.blocks.forms import without
from surefoot.compilation import operator
from surefoot.graph import Kinds, Rows, Width


@dataclass(frozen=True)
class Block:
    """Components of one irrep: `copies` sets of them, the copies innermost.

    Attributes:
        irrep: which.
        start: first component.
        copies: how often, as paths of a product that lead to the same irrep.
    """

    irrep: Irrep
    start: int
    copies: int = 1

    @property
    def stop(self) -> int:
        """One past the last component."""
        return self.start + self.irrep.dim * self.copies


def arrange(irreps: Sequence[Irrep], copies: Sequence[int] | None = None) -> tuple[Block, ...]:
    """Blocks of irreps that follow each other."""
    listed, start = [], 0
    for irrep, count in zip(irreps, copies or [1] * len(irreps), strict=True):
        listed.append(Block(irrep, start, count))
        start = listed[-1].stop
    return tuple(listed)


@dataclass(frozen=True, eq=False)
class ChannelProduct:
    """Channel-wise product of features with harmonics: which irreps meet, and how.

    Attributes:
        paths: (irrep of the features, of the harmonics, of the result), ordered by result.
        blocks: of the result; the copies of an irrep are its paths.
        table: (paths, 6) as the kernel reads them.
        coupling: (components of the harmonics, entries) makes M from the harmonics, float64.
        components: of the features.
    """

    paths: tuple[tuple[Irrep, Irrep, Irrep], ...]
    blocks: tuple[Block, ...]
    table: Int[np.ndarray, "paths 6"]
    coupling: Float[Tensor, "harmonics entries"]
    components: int

    @property
    def results(self) -> int:
        """Components of the result."""
        return self.blocks[-1].stop if self.blocks else 0

    @functools.cached_property
    def name(self) -> str:
        """The same in every process: by it a compiled graph tells products apart."""
        shape = repr((self.paths, self.blocks, self.components)).encode()
        content = self.table.tobytes() + self.coupling.numpy().tobytes()
        return hashlib.sha256(shape + content).hexdigest()[:16]


@functools.cache
def channel_product(features: Irreps, harmonics: Irreps, results: Irreps) -> ChannelProduct:
    """All paths from features and harmonics to the wanted irreps, of degrees up to 11."""
    highest = max(irrep.degree for irrep in (*features, *harmonics, *results))
    if highest > MAX_DEGREE:
        raise ValueError(
            f"degree {highest} of a product is not built; the highest is {MAX_DEGREE}."
        )
    paths = tuple(
        (first, second, wanted)
        for wanted in results
        for first in features
        for second in harmonics
        if wanted in couple_irreps(first, second)
    )
    reached = [irrep for irrep in results if any(path[2] == irrep for path in paths)]
    blocks = arrange(reached, [sum(path[2] == irrep for path in paths) for irrep in reached])
    starts = {block.irrep: block.start for block in arrange(features)}
    angular = {block.irrep: block.start for block in arrange(harmonics)}
    table, entry = [], 0
    parts = [np.zeros((sum(irrep.dim for irrep in harmonics), 0))]
    taken = dict.fromkeys(reached, 0)
    block_of = {block.irrep: block for block in blocks}
    for first, second, third in paths:
        block = block_of[third]
        place = block.start + taken[third]
        taken[third] += 1
        table.append((starts[first], first.dim, place, block.copies, third.dim, entry))
        entry += first.dim * third.dim
        parts.append(np.zeros((len(parts[0]), third.dim * first.dim)))
        cg = clebsch_gordan(first.degree, second.degree, third.degree).numpy()
        rows = slice(angular[second], angular[second] + second.dim)
        parts[-1][rows] = math.sqrt(third.dim) * cg.transpose(1, 2, 0).reshape(second.dim, -1)
    # A tensor born in inference mode could never again take part in a derivative.
    with torch.inference_mode(mode=False):
        coupling = torch.tensor(np.concatenate(parts, 1))
    return ChannelProduct(
        paths=paths,
        blocks=blocks,
        table=np.array(table, np.int32).reshape(-1, 6),
        coupling=coupling,
        components=sum(irrep.dim for irrep in features),
    )


def init_mix(
    generator: torch.Generator, blocks: Sequence[Block], results: Irreps, widths: tuple[int, int]
) -> Weights:
    """Standard normal weights of an equivariant linear map, float64; one matrix per irrep.

    Args:
        generator: the only source of randomness.
        blocks: of the input; an irrep that is not among the results is dropped.
        results: irreps of the output.
        widths: channels in and out.
    """
    inputs, outputs = widths
    return {
        str(block.irrep): torch.randn(
            (block.copies * inputs, outputs), generator=generator, dtype=torch.float64
        )
        for block in blocks
        if block.irrep in results
    }


def init_mix_species(
    generator: torch.Generator,
    blocks: Sequence[Block],
    results: Irreps,
    species: int,
    widths: tuple[int, int],
) -> Weights:
    """Standard normal weights of an equivariant linear map for each species, float64."""
    maps = [init_mix(generator, blocks, results, widths) for _ in range(species)]
    return {name: torch.stack([one[name] for one in maps]) for name in maps[0]}


def mix(
    x: Float[Tensor, "*members rows components channels"],
    weights: Weights,
    blocks: Sequence[Block],
    results: Irreps,
) -> Tensor:
    """Equivariant linear map: y_l = x_l W_l / √(inputs), the same for all components of an irrep.

    Copies of an irrep are inputs side by side. A result without an input is zero.

    Args:
        x: (…, rows, components, channels).
        weights: irrep → (…, copies · channels, channels out).
        blocks: layout of x.
        results: irreps of the output, in this order.
    """

    def times(piece: Tensor, matrix: Tensor) -> Tensor:
        rows = piece.flatten(-3, -2) @ (matrix / math.sqrt(matrix.shape[-2]))
        return rows.unflatten(-2, piece.shape[-3:-1])

    return _by_irrep(x, weights, blocks, results, times)


def mix_species(
    x: Float[Tensor, "*members atoms components channels"],
    weights: Weights,
    blocks: Sequence[Block],
    results: Irreps,
    kinds: Kinds,
) -> Tensor:
    """An equivariant linear map whose matrices belong to the species of each atom.

    Args:
        x: (…, atoms, components, channels).
        weights: irrep → (…, species, channels, channels out).
        blocks: layout of x.
        results: irreps of the output.
        kinds: atoms by species.
    """
    atoms = kinds.atoms

    def form(slot: int, *two: Tensor) -> Tensor:
        return _by_kind(slot, *two, atoms.order, atoms.offsets)  # type: ignore[no-any-return]

    def times(piece: Tensor, matrices: Tensor) -> Tensor:
        chosen = matrices.index_select(-3, kinds.present) / math.sqrt(matrices.shape[-2])
        return without(form, OUTPUT, piece, chosen)

    return _by_irrep(x, weights, blocks, results, times)


def _by_irrep(
    x: Tensor,
    weights: Weights,
    blocks: Sequence[Block],
    results: Irreps,
    times: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    """Each irrep of x, its copies as more channels, times what the weights have for it."""
    # One split: its slope is one concatenation, that of slices a sum of mostly zeros.
    pieces = x.split([block.stop - block.start for block in blocks], -2)
    by_irrep = {block.irrep: piece for block, piece in zip(blocks, pieces, strict=True)}
    parts = []
    for irrep in results:
        piece = by_irrep.get(irrep)
        if piece is None:
            width = next(iter(weights.values())).shape[-1]
            parts.append(x.new_zeros((*x.shape[:-2], irrep.dim, width)))
            continue
        flat = piece.reshape(*piece.shape[:-2], irrep.dim, -1)
        parts.append(times(flat, weights[str(irrep)]))
    return parts[0] if len(parts) == 1 else torch.cat(parts, -2)


OUTPUT, INPUT, MATRIX = range(3)
"""The factors of Σ_i g_i · (x_i W_kind(i)): g, x and W."""


def _run_by_kind(slot: int, a: Tensor, b: Tensor, order: Tensor, offsets: Tensor) -> Tensor:
    """The form without one factor; the other two in the order g, x, W."""
    out = _empty_by_kind(slot, a, b, order, offsets)
    if a.shape[-3] == 0:
        return out.zero_()
    bounds = offsets.tolist()
    for kind, (low, high) in enumerate(pairwise(bounds)):
        rows = order[low:high]
        first = a.index_select(-3, rows).flatten(-3, -2)
        if slot == MATRIX:
            second = b.index_select(-3, rows).flatten(-3, -2)
            out.select(-3, kind).copy_(second.mT @ first)
            continue
        matrix = b.select(-3, kind)
        product = first @ (matrix if slot == OUTPUT else matrix.mT)
        out.index_copy_(-3, rows, product.unflatten(-2, (-1, a.shape[-2])))
    return out


def _empty_by_kind(slot: int, a: Tensor, b: Tensor, order: Tensor, offsets: Tensor) -> Tensor:  # noqa: ARG001
    if slot == MATRIX:
        return a.new_empty((*a.shape[:-3], offsets.shape[0] - 1, b.shape[-1], a.shape[-1]))
    return a.new_empty((*a.shape[:-1], b.shape[-1 if slot == OUTPUT else -2]))


_by_kind = operator(
    "by_kind(int slot, Tensor a, Tensor b, Tensor order, Tensor offsets) -> Tensor",
    _run_by_kind,
    _empty_by_kind,
    device="CompositeExplicitAutograd",  # any
)


def width_of(irreps: Multiplicities) -> Width:
    """Channels of what `read_out` gives of features with these irreps."""
    channels = {irrep: count for count, irrep in irreps}
    return Width(channels[Irrep(0, 1)], channels.get(Irrep(2, 1), 0))


def read_out(x: Float[Tensor, "*members rows components channels"], irreps: Multiplicities) -> Rows:
    """What heads see of features: the scalars, and degree 2 of natural parity where it is there.

    Args:
        x: (…, rows, components, channels).
        irreps: of x, in its order, each with the channels that it fills.
    """
    blocks = arrange([irrep for _, irrep in irreps])
    parts = {
        block.irrep: x[..., block.start : block.stop, :count]
        for block, (count, _) in zip(blocks, irreps, strict=True)
    }
    return Rows(values=parts[Irrep(0, 1)].select(-2, 0), quadrupoles=parts.get(Irrep(2, 1)))
