"""Arithmetic and memory traffic of one evaluation of ours, energy and forces, from its sizes.

The kernels are in C, so no counter of torch sees them; these are formulas. A multiplication and an
addition are two operations. A map with fixed weights runs forward and once more for the slope of
its input; a product of n factors that depend on the positions runs forward and n times back.
Elementwise functions, harmonics, couplings of harmonics and reductions over threads are not
counted, nor what is done again rather than kept: the count is a lower bound by some per cent.

Bytes are those of the large tensors (weights of edges or pairs, features of edges, sums of atoms),
each written once and read once, and their slopes likewise. Caches may spare some of it, so it is
neither bound; beside the measured triad it says whether memory or arithmetic sets the pace.
"""

from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import Any

from speed.ours import build_potential
from surefoot.models.allegro import Allegro
from surefoot.models.mace import Mace
from surefoot.models.schnet import Schnet

PASSES = 4  # written and read, forward and back


@dataclass
class Effort:
    """Multiply-adds and numbers moved, so far."""

    multiplies: float = 0.0
    numbers: float = 0.0

    def multiply(self, count: float, factors: int) -> None:
        """A product whose value depends on positions through so many factors."""
        self.multiplies += count * (1 + factors)

    def keep(self, count: float) -> None:
        """A tensor that the backward pass reads again."""
        self.numbers += count * PASSES


def estimate(order: dict[str, Any], edges: int) -> dict[str, float]:
    """Operations in 10⁹ and bytes in 10⁹ of what a worker is told by this order."""
    model = build_potential(order).model
    atoms = sum(len(one["numbers"]) for one in order["structures"])
    effort = Effort()
    if isinstance(model, Mace):
        of_mace(effort, model, atoms, edges)
    elif isinstance(model, Allegro):
        of_allegro(effort, model, atoms, edges)
    elif isinstance(model, Schnet):
        of_schnet(effort, model, atoms, edges)
    size = 8 if order["dtype"] == "float64" else 4
    return {"gflop": 2 * effort.multiplies / 1e9, "gbyte": effort.numbers * size / 1e9}


def networks(effort: Effort, rows: int, widths: list[int]) -> None:
    for inputs, outputs in pairwise(widths):
        effort.multiply(rows * inputs * outputs, 1)
        effort.keep(rows * outputs)


def of_mace(effort: Effort, model: Mace, atoms: int, edges: int) -> None:
    """Per layer: maps of atoms, radial network of pairs, convolution of edges, contraction."""
    width, pairs = model.channels, edges // 2
    for index, layer in enumerate(model.layers()):
        product, plan = layer.product, layer.plan
        first = index == 0  # features of the first layer know no positions
        components = sum(irrep.dim for irrep in layer.outputs)
        effort.multiply(atoms * product.components * width**2, 0 if first else 1)
        networks(effort, pairs, [model.basis_size, *model.radial, len(product.paths) * width])
        sizes = [(2 * a.degree + 1) * (2 * c.degree + 1) for a, _, c in product.paths]
        effort.multiply(edges * width * sum(sizes), 2 if first else 3)
        effort.keep(atoms * product.results * width)
        effort.multiply(atoms * product.results * width**2, 1)
        effort.keep(atoms * plan.inputs * width)
        # Each monomial and each term is one multiply-add; a slope runs through both again.
        effort.multiply(atoms * width * (len(plan.parents) + len(plan.results)), 2)
        effort.multiply(prod((4, len(plan.results), plan.path_count, width)), 0)
        effort.keep(2 * atoms * components * width)
        effort.multiply(2 * atoms * components * width**2, 1)


def of_allegro(effort: Effort, model: Allegro, atoms: int, edges: int) -> None:
    """Networks of edges; per layer a sum over neighbours, a matrix per atom, a product per edge."""
    scalars, tensors = model.scalars, model.tensors
    weights = (model.lmax + 1) * tensors
    embedded = [model.embed_width] * model.embed_depth
    networks(effort, edges // 2, [model.bessels, model.embedding or scalars])
    networks(effort, edges, [model.embedding or scalars, *embedded, scalars])
    networks(effort, edges, [scalars, weights])
    networks(effort, edges, [scalars, scalars + weights])
    for index, coupling in enumerate(model.couplings):
        environment, inputs, outputs = coupling.values.shape
        effort.multiply(edges * tensors * environment, 2)
        triples = int((coupling.values != 0).sum())
        effort.multiply(atoms * tensors * triples, 1)
        effort.multiply(edges * tensors * inputs * outputs, 2)
        effort.keep(edges * tensors * (inputs + outputs))
        last = index == model.layers - 1
        hidden = [model.latent_width] * model.latent_depth
        start, stop = scalars * (index + 1) + tensors, scalars + (0 if last else weights)
        networks(effort, edges, [start, *hidden, stop])


def of_schnet(effort: Effort, model: Schnet, atoms: int, edges: int) -> None:
    """Per interaction: filters of pairs, products of edges, three maps of atoms."""
    width = model.features
    for index in range(model.interactions):
        networks(effort, edges // 2, [model.gaussians, width, width])
        effort.multiply(edges * width, 1 if index == 0 else 2)
        effort.keep(edges * width)
        networks(effort, atoms, [width] * 4)
