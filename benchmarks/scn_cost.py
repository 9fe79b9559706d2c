"""What a message costs over the highest degree L: SO(2) maps in the edge's frame, tensor products.

Usage: OMP_NUM_THREADS=1 python benchmarks/scn_cost.py [--most 8] [--seconds 0.3]

Four ways to mix coefficients of all degrees up to L along an edge, each with weights of every path
and channel that depend on the edge:

- tensor product: coefficients with the edge's harmonics, every path l1, l2 → l3, coupled component
  by component, (2 l1 + 1)(2 l2 + 1)(2 l3 + 1) products to a path: O(L⁶);
- the same with harmonics and coupling made one matrix of each edge and path first, for all
  channels: (2 l1 + 1)(2 l3 + 1) products to a path and channel, O(L⁵), and O(L⁶) once per edge;
- SO(2), m ≤ L: into the frame of the edge, maps of each order, back: O(L³), since an edge's
  rotation costs Σ (2 l + 1)² and the maps Σ_m (L + 1 − m)²;
- SO(2), m ≤ 2: the same with fewer orders: O(L²).

Sums over neighbours are left out. Times are CPU times of one thread, the best of some calls, in
microseconds per edge, forward and with the backward pass; multiplications are counted from the
tables. Writes benchmarks/results/scn_cost.json and .svg; slopes are those of the upper half.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from surefoot.blocks.angular import clebsch_gordan, harmonics
from surefoot.blocks.frames import nearer_frame, wigner_blocks
from surefoot.blocks.orders import Layout
from surefoot.blocks.turning import count_entries, ends_of, turn, turn_back
from surefoot.segments import group

HERE = Path(__file__).parent
EDGES, ATOMS, CHANNELS = 256, 16, 16
Message = Callable[[Tensor, Tensor], Tensor]


def tensor_product(lmax: int, edge_first: bool, generator: torch.Generator) -> tuple[Message, int]:
    """Every path, and the multiplications of an edge and channel."""
    degrees = range(lmax + 1)
    paths = [
        (a, b, c) for a in degrees for b in degrees for c in range(abs(a - b), min(a + b, lmax) + 1)
    ]
    tables = [clebsch_gordan(*path).float() for path in paths]
    weights = torch.randn((len(paths), EDGES, 1, CHANNELS), generator=generator)

    def couple(x: Tensor, y: Tensor, table: Tensor) -> Tensor:
        if edge_first:
            return torch.einsum("eb,abc->eca", y, table) @ x
        both = x.unsqueeze(2) * y[:, None, :, None]
        return table.flatten(0, 1).mT @ both.flatten(1, 2)

    def message(x: Tensor, vectors: Tensor) -> Tensor:
        y = harmonics(vectors, lmax)
        parts: list[list[Tensor]] = [[] for _ in degrees]
        for (a, b, c), table, weight in zip(paths, tables, weights, strict=True):
            first, second = (slice(degree**2, (degree + 1) ** 2) for degree in (a, b))
            parts[c].append(weight * couple(x[:, first], y[:, second], table))
        return torch.cat([torch.stack(part).sum(0) for part in parts], dim=1)

    sizes = [(2 * a + 1) * (2 * c + 1) * (1 if edge_first else 2 * b + 1) for a, b, c in paths]
    return message, sum(sizes)


def circular(lmax: int, mmax: int, generator: torch.Generator) -> tuple[Message, int]:
    """Maps between the degrees of each order, with weights of the edge, channel by channel."""
    layout = Layout(lmax, min(mmax, lmax))
    orders = range(layout.mmax + 1)
    maps = [
        torch.randn((EDGES, lmax + 1 - m, lmax + 1 - m, CHANNELS), generator=generator)
        for m in orders
    ]
    index = group(torch.arange(EDGES), EDGES)
    ends = ends_of(index)

    def message(x: Tensor, vectors: Tensor) -> Tensor:
        matrices = wigner_blocks(nearer_frame(vectors), lmax, layout.mmax)
        seen = turn(x, matrices, ends, lmax, layout.mmax)
        sizes = [(lmax + 1 - m) for m in orders for _ in range(1 if m == 0 else 2)]
        signs = [m for m in orders for _ in range(1 if m == 0 else 2)]
        parts = [
            (maps[m] * part.unsqueeze(1)).sum(2)
            for m, part in zip(signs, seen.split(sizes, dim=1), strict=True)
        ]
        said = torch.cat(parts, dim=1)
        return turn_back(said, matrices, ends, lmax, layout.mmax, x.shape[1])

    products = sum((1 if m == 0 else 2) * (lmax + 1 - m) ** 2 for m in orders)
    return message, products + 2 * count_entries(lmax, layout.mmax)


def measure(message: Message, lmax: int, seconds: float) -> tuple[float, float]:
    """Microseconds per edge: forward alone, and with the slope of the coefficients."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn((EDGES, (lmax + 1) ** 2, CHANNELS), generator=generator)
    vectors = torch.randn((EDGES, 3), generator=generator)
    leaf = x.clone().requires_grad_()

    def forward() -> None:
        with torch.no_grad():
            message(x, vectors)

    def both() -> None:
        torch.autograd.grad(message(leaf, vectors).square().sum(), leaf)

    return best(forward, seconds), best(both, seconds)


def best(call: Callable[[], None], seconds: float) -> float:
    call()
    times: list[float] = []
    while len(times) < 3 or sum(times) < seconds:
        began = time.process_time()
        call()
        times.append(time.process_time() - began)
    return 1e6 * min(times) / EDGES


def slope(points: list[tuple[float, float]]) -> float:
    """Of the logarithms, over the upper half, in powers of L + 1."""
    upper = points[len(points) // 2 :]
    x, y = (np.log([p[n] + (n == 0) for p in upper]) for n in (0, 1))
    return round(float(np.polyfit(x, y, 1)[0]), 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--most", type=int, default=8, help="highest L")
    parser.add_argument("--seconds", type=float, default=0.3, help="of each measurement")
    parser.add_argument("--target", type=Path, default=HERE / "results")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    ways: dict[str, Callable[[int, torch.Generator], tuple[Message, int]]] = {
        "tensor product": lambda lmax, generator: tensor_product(lmax, False, generator),
        "tensor product, edge first": lambda lmax, generator: tensor_product(lmax, True, generator),
        "SO(2), m ≤ L": lambda lmax, generator: circular(lmax, lmax, generator),
        "SO(2), m ≤ 2": lambda lmax, generator: circular(lmax, 2, generator),
    }
    found: dict[str, Any] = {"edges": EDGES, "channels": CHANNELS, "torch": torch.__version__}
    for name, make in ways.items():
        rows = []
        for lmax in range(1, chosen.most + 1):
            message, count = make(lmax, torch.Generator().manual_seed(0))
            forward, both = measure(message, lmax, chosen.seconds)
            rows.append(
                {"lmax": lmax, "products": count, "forward": forward, "with_backward": both}
            )
            print(name, {key: round(value, 2) for key, value in rows[-1].items()}, flush=True)
        found[name] = {
            "rows": rows,
            "slopes": {
                key: slope([(row["lmax"], row[key]) for row in rows])
                for key in ("products", "forward", "with_backward")
            },
        }
    chosen.target.mkdir(exist_ok=True)
    (chosen.target / "scn_cost.json").write_text(json.dumps(found, indent=1) + "\n")
    sys.path.insert(0, str(HERE))
    from scn.plot import lines

    curves = {
        name: [(row["lmax"] + 1, row["with_backward"]) for row in found[name]["rows"]]
        for name in ways
    }
    picture = lines(curves, "L + 1", "μs per edge, forward and backward, 16 channels")
    (chosen.target / "scn_cost.svg").write_text(picture)


if __name__ == "__main__":
    main()
