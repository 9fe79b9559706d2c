"""SCN: functions on the sphere of each atom, and messages in the frame of each edge.

Paper: Zitnick, Das, Kolluru, Lan, Shuaibi, Sriram, Ulissi, Wood, NeurIPS 2022, arXiv:2206.14331.
    `messages: so2` is the convolution of Passaro and Zitnick, ICML 2023, arXiv:2302.03655.
Faithful: with `form: published` energies and forces of fairchem-core 1.10.0 to rounding, given its
    weights (`deploy.scn`); frames of edges are fixed here, there they are random in every call.
Differs, with `form: smooth`: messages and their slopes go to zero at the cutoff, or at a radius
    that holds about `limit` neighbours, instead of the nearest by rank; frames of edges are mixed
    of two so that nothing jumps; points on the sphere are those of Gauss and Legendre, with their
    weights; derivatives run through the rotations, so that forces can be a gradient; sums over
    neighbours are divided by the root of their mean number, and the first layer too adds to what
    is there. `so2` keeps both signs of an order apart, so that reflections are exact as well.
Equivariance is a dial: exact for mmax = 0 and `so2`, as far as grid and points go (`aggregation:
    gate` and `readout: scalars` are exact); with taps up to what their average leaves over.
Cost: layers × (edges × copies × (4 rows × channels × hidden + hidden²)
    + atoms × points × (bands × channels)²), rows ~ (2 mmax + 1) lmax.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn.functional import pad, silu

from surefoot.blocks import orders, pointwise
from surefoot.blocks.conditioning import embed
from surefoot.blocks.dense import SILU_SCALE, Weights, branch, init_table, linear, lookup, under
from surefoot.blocks.edges import RECEIVER, Edges, turned_edges
from surefoot.blocks.frames import Frames, edge_frames, frame_weights, nearer_frame
from surefoot.blocks.nearest import Chosen, fade_within, take_nearest
from surefoot.blocks.orders import Layout, init_dense
from surefoot.blocks.radial import Gaussians, expand
from surefoot.blocks.sigmoids import Sigmoids
from surefoot.blocks.sphere import Points, equiangular, fibonacci, gauss, gauss_of
from surefoot.blocks.splines import Curves
from surefoot.blocks.turning import turn, turn_back
from surefoot.graph import Features, Geometry, Graph, Rows, Width, pairs_to_edges
from surefoot.segments import Segments
from surefoot.settings import Settings

NEAR = 12  # neighbours whose messages have the full resolution, where there are two


class Scn(Settings):
    """Settings of SCN, and the model itself: a pure function of weights and geometry."""

    native: ClassVar[bool] = True  # kernels in C
    recomputes: ClassVar[bool] = False  # weights by blocks of pairs
    local: ClassVar[bool] = False  # an atom's energy hangs on its own edges alone
    most_kept: ClassVar[int | None] = None  # pairs, times members
    name: Literal["scn"] = "scn"
    form: Literal["smooth", "published"] = Field(
        default="smooth",
        description="published: the numbers of the original code, jumps included; frames carry no "
        "derivative there, so forces have to be direct",
    )
    cutoff: float = Field(
        default=6.0, gt=0, description="Å; atoms farther apart do not see each other"
    )
    layers: int = Field(default=4, ge=1, le=100, description="each with its own weights")
    lmax: int = Field(default=4, ge=0, le=11, description="highest degree of the functions")
    mmax: int = Field(
        default=1, ge=0, description="highest order that messages see; 0 is equivariant"
    )
    messages: Literal["taps", "so2"] = Field(
        default="taps",
        description="taps: a network of the coefficients in the edge's frame; so2: maps that "
        "commute with turns about the edge, equivariant for any mmax",
    )
    taps: int = Field(
        default=4,
        ge=1,
        description="turns about the edge over which messages are averaged; 1 or 4 as published",
    )
    mirrors: Literal["one", "both"] | None = Field(
        default=None,
        description="both: taps are averaged over mirror images too; where not set, as published "
        "(one) in that form, and both in the smooth one",
    )
    channels: int = Field(default=32, ge=1, description="functions of each atom")
    reduced: int | None = Field(
        default=None, ge=1, description="functions within a layer; as the channels where not set"
    )
    hidden: int = Field(default=128, ge=4, description="width of the message networks")
    edge: int = Field(default=64, ge=1, description="numbers that describe an edge")
    basis: Literal["gaussian", "sigmoid", "linear_sigmoid", "silu"] = Field(
        default="gaussian",
        description="radial basis functions: Gaussians, steps, steps that go on rising, or "
        "learnt ramps",
    )
    gaussians: int = Field(
        default=64, ge=2, description="radial basis functions between 0 and the cutoff"
    )
    width: float = Field(
        default=1.0,
        gt=0,
        description="of the Gaussians, in units of spacings; steepness of the steps",
    )
    limit: int | None = Field(
        default=None, ge=1, description="neighbours that an atom sees; all where not set"
    )
    resolutions: Literal[1, 2] = Field(
        default=1, description="2: beyond the nearest 12, messages of lmax - 2 (4 at least)"
    )
    aggregation: Literal["grid", "gate", "sum"] = Field(
        default="grid",
        description="what an atom makes of its messages: a network of the values on a grid, gates "
        "of each degree (equivariant), or nothing",
    )
    rings: int | None = Field(
        default=None,
        ge=1,
        le=1000,
        description="of the grid, twice as many points each; lmax + 3 if not set",
    )
    bands: Literal[1, 2] = Field(
        default=1, description="2: the network on the grid also sees less than the highest degree"
    )
    readout: Literal["sphere", "scalars"] = Field(
        default="sphere",
        description="rows of features: values at points of the sphere, or degree 0 (equivariant)",
    )
    samples: int = Field(
        default=128, ge=2, le=100_000, description="points on the sphere, at least"
    )

    @model_validator(mode="after")
    def _check(self) -> Scn:
        if self.bands == 2 and (self.lmax == 0 or self.aggregation != "grid"):
            raise ValueError("bands: 2 needs aggregation: grid and an lmax of 1 at least.")
        if self.messages == "so2" and (self.taps, self.mirrors or "both") != (4, "both"):
            raise ValueError("messages: so2 knows no taps and no mirrors; leave them out.")
        if self.rings is not None and (self.rings <= self.lmax or self.published):
            raise ValueError(
                f"rings: {self.rings} do not do for form: {self.form} and lmax: {self.lmax}; leave "
                "them out, or give more than lmax in the smooth form."
            )
        if self.limit is not None and self.resolutions == 2 and self.limit <= NEAR:
            raise ValueError(
                f"limit: {self.limit} leaves nothing for the second of two resolutions, which "
                f"begins after {NEAR} neighbours; set resolutions: 1."
            )
        return self

    @property
    def widths(self) -> tuple[Width, ...]:
        """Channels of each read-out layer."""
        return (Width(self.channels),)

    @property
    def published(self) -> bool:
        """Whether numbers are those of the original code."""
        return self.form == "published"

    @property
    def layouts(self) -> tuple[Layout, ...]:
        """Coefficients of the messages of each resolution."""
        tapped = self.messages == "taps"
        mirrors = self.mirrors or ("one" if self.published else "both")
        copies = (self.taps, 2 if mirrors == "both" else 1) if tapped else (1, 1)
        lower = (min(self.lmax, max(4, self.lmax - 2)),) if self.resolutions == 2 else ()
        return tuple(Layout(lmax, min(self.mmax, lmax), *copies) for lmax in (self.lmax, *lower))

    def init(self, generator: torch.Generator, species: int) -> Weights:
        """Fresh weights in float64; values keep a mean square of one on their way.

        Args:
            generator: the only source of randomness.
            species: number of elements.
        """
        weights: Weights = {"embedding": init_table(generator, species, self.channels)}
        if self.basis == "silu":
            # Ramps that begin anywhere within the cutoff, some falling.
            ramp = init_dense(generator, 1, self.gaussians, gain=math.pi / self.cutoff)
            begin = torch.rand(self.gaussians, generator=generator, dtype=torch.float64)
            ramp["bias"] = -self.cutoff * begin * ramp["weight"][0]
            weights |= under("basis", ramp)
        for layer in range(self.layers):
            weights |= under(f"layer{layer}", self._init_layer(generator, species))
        return weights

    def _init_layer(self, generator: torch.Generator, species: int) -> Weights:
        width, edge = self.reduced or self.channels, self.edge
        # About √π width of the Gaussians are there at any length, and half of the steps.
        near = math.sqrt(self.gaussians / (math.sqrt(math.pi) * self.width))
        near = near if self.basis == "gaussian" else math.sqrt(2.0)
        weights = {
            **under("distance", init_dense(generator, self.gaussians, edge, gain=near)),
            "sender": 0.5 * init_table(generator, species, edge),
            "receiver": 0.5 * init_table(generator, species, edge),
            **under("edge", init_dense(generator, edge, edge, gain=SILU_SCALE)),
        }
        init = orders.init_tapped if self.messages == "taps" else orders.init_circular
        for index, layout in enumerate(self.layouts):
            hidden = self.hidden // 4 if index else self.hidden
            made = init(generator, layout, width, hidden, edge)
            weights |= under(f"message{index}", made)
        if self.aggregation == "grid":
            weights |= under("grid", pointwise.init_grid(generator, width, self.bands))
        elif self.aggregation == "gate":
            weights |= under("gate", pointwise.init_gated(generator, width, self.lmax))
        if width != self.channels:
            for name, sizes in (
                ("reduce", (self.channels, width)),
                ("expand", (width, self.channels)),
            ):
                weights |= under(name, init_dense(generator, *sizes, bias=False))
        return weights

    def __call__(self, weights: Weights, geometry: Geometry) -> Features:
        """Values of each atom's functions: one read-out layer, one row per point of the sphere.

        x_i ← x_i + grid(x_i, Σ_j Dᵀ network(D x_j, D x_i, r_ij))
        """
        return self.evaluate(weights, geometry, self.find_frames(geometry))

    def find_frames(self, geometry: Geometry) -> Frames:
        """The frames of all edges; they carry no derivative in the published form."""
        vectors = geometry.vectors
        if self.published:
            if vectors.requires_grad:
                raise ValueError(
                    "form: published turns edges by frames without a derivative, so that forces "
                    "can not be a gradient; set `head: {energy: sphere, forces: direct}`, or "
                    "`model: {form: smooth}`."
                )
        elif self.mmax and self.messages == "taps":
            return Frames(edge_frames(vectors), frame_weights(vectors))
        return Frames(nearer_frame(vectors).unsqueeze(-3))

    def evaluate(self, weights: Weights, geometry: Geometry, frames: Frames) -> Features:
        """The same with given frames."""
        edges = self._select(geometry, frames)
        basis = self._expand(branch(weights, "basis"), geometry.lengths)
        x = pad(embed(weights, geometry).unsqueeze(-2), (0, 0, 0, (self.lmax + 1) ** 2 - 1))
        for layer in range(self.layers):
            parts = branch(weights, f"layer{layer}")
            described = self._describe(parts, geometry, basis)
            update = self._update(parts, x, described, edges)
            x = update if self.published and layer == 0 else x + update
        return Features(layers=(self._rows(x, geometry.graph),), geometry=geometry)

    def _expand(self, weights: Weights, lengths: Tensor) -> Tensor:
        """Radial basis functions of each pair."""
        settings = self.cutoff, self.gaussians, self.width
        match self.basis:
            case "gaussian":
                return expand(lengths, Gaussians(*settings))
            case "silu":
                return silu(linear(lengths.unsqueeze(-1), weights))
            case _:
                tilt = 0.001 if self.basis == "linear_sigmoid" else 0.0
                return expand(lengths, Sigmoids(*settings, tilt))

    def curves(self, weights: Weights) -> dict[str, Curves]:  # noqa: ARG002
        """None: what depends on the distance depends on the elements too."""
        return {}

    def _describe(
        self, weights: Weights, geometry: Geometry, basis: Tensor
    ) -> Float[Tensor, "*members edges numbers"]:
        """What an edge is to a layer: its length and its elements, with a direction."""
        graph, species = geometry.graph, geometry.species
        lengths = pairs_to_edges(linear(basis, branch(weights, "distance")), graph)
        receiver, sender = graph.edge_index
        kinds = lookup(weights["sender"], species[sender])
        kinds = kinds + lookup(weights["receiver"], species[receiver])
        return silu(linear(silu(lengths + kinds), branch(weights, "edge")))

    def _update(
        self, weights: Weights, x: Tensor, described: Tensor, edges: list[Edges]
    ) -> Float[Tensor, "*members atoms components channels"]:
        """What one layer makes of the functions."""
        if "reduce.weight" in weights:
            x = _mix(x, weights["reduce.weight"])
        summed = x
        for index, (part, layout) in enumerate(zip(edges, self.layouts, strict=True)):
            block = branch(weights, f"message{index}")
            found = self._messages(block, x, described, part, layout)
            summed = found if index == 0 else summed + found
        if self.aggregation == "grid":
            tables = self._grid_tables(x)
            summed = pointwise.on_grid(x, summed, branch(weights, "grid"), *tables, self.bands)
        elif self.aggregation == "gate":
            summed = pointwise.gated(x, summed, branch(weights, "gate"), self.lmax)
        return _mix(summed, weights["expand.weight"]) if "expand.weight" in weights else summed

    def _messages(
        self, weights: Weights, x: Tensor, described: Tensor, edges: Edges, layout: Layout
    ) -> Float[Tensor, "*members atoms components channels"]:
        """Sum over neighbours of what edges of one resolution say."""
        if edges.chosen is not None:
            described = described.index_select(-2, edges.chosen)
        gate = silu(linear(described, branch(weights, "gate")))
        if edges.frames > 1:  # each frame of an edge is an edge to the network
            copies = (*gate.shape[:-1], edges.frames, gate.shape[-1])
            gate = gate.unsqueeze(-2).expand(copies).flatten(-3, -2)
        degrees = layout.lmax, layout.mmax
        seen = turn(x, edges.inwards, edges.ends, *degrees)
        network = orders.tapped if self.messages == "taps" else orders.circular
        said = network(seen, gate, weights, layout)
        return turn_back(said, edges.outwards, edges.ends.only(RECEIVER), *degrees, x.shape[-2])

    def _select(self, geometry: Geometry, frames: Frames) -> list[Edges]:
        """The edges of each resolution, how much each counts, and their rotations."""
        graph = geometry.graph
        lengths = pairs_to_edges(geometry.lengths.unsqueeze(-1), graph)
        chosen: Sequence[Chosen | None] = (None,) * len(self.layouts)
        weights: Sequence[Tensor | None] = chosen  # type: ignore[assignment]
        if not self.published:
            weights = self._fade(lengths, geometry)
        elif lengths.shape[-2] > 0 and (self.limit is not None or self.resolutions == 2):
            seen = lengths.detach().reshape(-1, lengths.shape[-2])[0]
            near = ((0, NEAR), (NEAR, self.limit)) if self.resolutions == 2 else ((0, self.limit),)
            chosen = [take_nearest(seen, graph.receivers, *pair) for pair in near]
        return [
            turned_edges(graph, frames, layout.lmax, layout.mmax, part, weight)
            for layout, part, weight in zip(self.layouts, chosen, weights, strict=True)
        ]

    def _fade(self, lengths: Tensor, geometry: Geometry) -> list[Tensor]:
        """How much each edge counts at each resolution; both together fade at the cutoff."""
        receivers, scale = geometry.graph.receivers, 1 / math.sqrt(geometry.neighbors)
        limits = (self.limit,) if self.resolutions == 1 else (NEAR, self.limit)
        found = [scale * fade_within(lengths, receivers, k, self.cutoff) for k in limits]
        return found if len(found) == 1 else [found[0], found[1] - found[0]]

    def _grid_tables(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """To the grid and back, in the precision of the coefficients."""
        rings, unit = self.rings or self.lmax + 3, self._unit
        whole = 2 * self.lmax + 2
        grid = equiangular(whole, whole + 1) if self.published else gauss(rings, 2 * rings)
        return (
            (unit * grid.synthesis(self.lmax)).to(x),
            (grid.analysis(self.lmax) / unit).to(x),
        )

    @property
    def _unit(self) -> float:
        """Of the harmonics: normalised by component here, to one on the sphere there."""
        return 1 / math.sqrt(4 * math.pi) if self.published else 1.0

    @property
    def _points(self) -> Points:
        return fibonacci(self.samples) if self.published else gauss_of(self.samples)

    def _rows(self, x: Float[Tensor, "*members atoms components channels"], graph: Graph) -> Rows:
        """Values at the points of the sphere about each atom, or its scalars."""
        if self.readout == "scalars":
            return Rows(values=self._unit * x[..., 0, :])
        points, atoms = self._points, graph.atoms.index.shape[0]
        count = len(points.weights)
        values = (self._unit * points.synthesis(self.lmax)).to(x) @ x
        index = torch.arange(atoms, device=x.device)
        return Rows(
            values=values.flatten(-3, -2),
            atom=Segments(
                index=index.unsqueeze(-1).expand(-1, count).flatten(),
                offsets=count * torch.arange(atoms + 1, device=x.device),
            ),
            weight=points.weights.to(x.device).expand(atoms, -1).flatten(),
            vectors=points.vectors.to(x).expand(atoms, -1, -1).flatten(0, 1),
        )


def _mix(x: Tensor, matrix: Tensor) -> Tensor:
    """A linear map of channels: (…, atoms, components, inputs) → outputs."""
    return (x.flatten(-3, -2) @ matrix).unflatten(-2, x.shape[-3:-1])
