"""docs/speed.md and its plot from results/speed.json."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

DOCS = Path(__file__).parents[2] / "docs"
NOTES = Path(__file__).parent / "notes.md"  # what the figures mean, where a mark is missed
MOST_KEPT = 100_000  # pairs above which MACE makes its radial weights anew: another memory
PLOT = "speed.svg"
TITLES = {
    "mace64": "MACE 64x0e+64x1o",
    "mace128": "MACE 128x0e+128x1o",
    "allegro32": "Allegro, 32 channels",
    "allegro64": "Allegro, 64 channels",
    "schnet": "SchNet, 128 features",
}
PEERS = {"mace": "mace-torch", "nequip": "nequip-allegro", "schnetpack": "schnetpack"}
WORK = {
    "forces": "energy + forces, {} atoms",
    "train": "training step, {} molecules",
    "peak": "peak memory, {} atoms",
    "members": "five members with forces, {} atoms",
}
MARKS = {  # at least so many times faster, or at most this share; float32, one thread
    ("mace", "forces", 27): 7.0,
    ("mace", "forces", 192): 5.0,
    ("mace", "forces", 1029): 5.0,
    ("mace", "train", 5): 4.5,
    ("mace", "train", 16): 4.5,
    ("mace", "peak", 1029): 0.4,
    ("mace", "members", 27): 0.6,
    ("mace", "members", 192): 0.8,
    ("mace", "members", 1029): 0.8,
    ("allegro", "forces", 0): 1.3,
    ("allegro", "train", 0): 1.3,
    ("schnet", "forces", 0): 1.5,
    ("schnet", "train", 0): 1.5,
}
HEAD = """# Speed

Written by `python benchmarks/speed.py table` from `benchmarks/results/speed.json`.

{machine}

Every program in every form is a process of its own; they take turns within one run, on the same
positions, in the same precision and with as many threads. Weights are random. Neighbour lists are
made before the clock starts, each by its own program, except where they are what is timed. A
training step is the loss of energies and forces and its gradient, without the optimiser. Surefoot
is compiled, as `--compile` and `compiled(predictor)` do it; five members are a `Predictor` with its
error bars. Of the peer's forms that took part the faster one counts; {forms}.
Times are medians in milliseconds, quartiles in brackets; a
ratio is the median over rounds of peer over surefoot (more than 1: surefoot is faster), of wall
times and of CPU times, which a busy machine spoils less. Peak memory is what one call holds above
the imports; with it and with members the ratio is surefoot over peer. Allocator: {allocators}.
Rows of one thread were taken while another calculation ran on the other core.
"""
BODY = "| {} |"
ALONE = ("scaling", "neighbors")  # work without a peer
ALLOCATORS = {"untouched": "glibc's as it is", "kept": "glibc's told to keep what is freed"}


def write_page(results: Path) -> None:
    found = json.loads(results.read_text())
    rows = rows_of(found)
    words = {"machine": machine_line(found), "allocators": allocators(rows), "forms": forms(rows)}
    lines = [HEAD.format(**words), *table_lines(rows, "##")]
    lines += ["## Compiling", "", *compile_lines(rows)]
    lines += ["", "## Arithmetic and memory", "", *effort_lines(rows, found["peaks"])]
    for other in sorted(results.parent.glob("speed_on_*.json")):
        also = json.loads(other.read_text())
        lines += ["", "## Another machine", "", f"From `{other.name}`, taken in the same way.", ""]
        lines += [machine_line(also), "", *table_lines(rows_of(also), "###")]
    processes = results.with_name("torchrun_speed.json")
    if processes.exists():
        lines += ["", "## Processes", "", *process_lines(json.loads(processes.read_text()))]
    profile = results.with_name("speed_profile.json")
    if profile.exists():
        lines += ["", "## Profiles", "", *profile_lines(json.loads(profile.read_text()))]
    (DOCS / PLOT).write_text(draw(rows))
    lines += ["", *NOTES.read_text().splitlines(), "", f"![ratios]({PLOT})"]
    (DOCS / "speed.md").write_text("\n".join(lines) + "\n")


def rows_of(found: dict[str, Any]) -> dict[Any, dict[str, Any]]:
    return {tuple(key.split("/")): row for key, row in found["rows"].items()}


def table_lines(rows: dict[Any, dict[str, Any]], level: str) -> list[str]:
    """A section for each precision and number of threads."""
    lines: list[str] = []
    for dtype, threads in sorted({(dtype, threads) for _, _, _, dtype, threads in rows}):
        part = {
            (s, w, int(n)): row
            for (s, w, n, d, t), row in rows.items()
            if (d, t) == (dtype, threads)
        }
        plural = "thread" if threads == "1" else "threads"
        lines += [f"{level} {dtype}, {threads} {plural}", "", *comparison(part, dtype, threads)]
        lines += [*neighbor_lines(part), *scaling_lines(part), ""]
    return lines


def machine_line(found: dict[str, Any]) -> str:
    machine, peaks = found["machine"], found["peaks"]
    return (
        f"Machine: {machine['cpu']}, {machine['cores']} cores, {machine['vectors']}, "
        f"{machine['libc']}, torch {machine['torch']}; one thread reaches "
        f"{peaks['gemm_float32_gflops']:.0f} GFLOP/s in float32 and "
        f"{peaks['gemm_float64_gflops']:.0f} in float64 matrix products and "
        f"{peaks['triad_gb_per_s']:.1f} GB/s in a triad."
    )


def allocators(rows: dict[Any, dict[str, Any]]) -> str:
    """Which were used; both sides of a row have the same."""
    compared = {row["allocator"] for key, row in rows.items() if key[1] not in ALONE}
    return ", ".join(sorted(ALLOCATORS[name] for name in compared)) + ", on both sides"


def forms(rows: dict[Any, dict[str, Any]]) -> str:
    """How the forms of a peer compare where both took part."""
    found: dict[str, list[float]] = {}
    for (_, work, *_), row in rows.items():
        entries = {name: e for name, e in row["programs"].items() if "wall_ms" in e}
        for peer, title in PEERS.items():
            eager, quick = entries.get(f"{peer} eager"), entries.get(f"{peer} compile")
            if work != "peak" and eager and quick:
                found.setdefault(title, []).append(eager["wall_ms"][0] / quick["wall_ms"][0])
    parts = [
        f"where both did, {title}'s eager form took {min(x):.2f} to {max(x):.2f} times as long as "
        f"its compiled one ({len(x)} rows)"
        for title, x in found.items()
    ]
    return "; ".join(parts)


def best_peer(row: dict[str, Any], measure: str) -> tuple[str, dict[str, Any]] | None:
    """The faster form of the peer, or the smaller one."""
    able = {
        name: entry
        for name, entry in row["programs"].items()
        if name.partition(" ")[0] in PEERS and measure in entry and "error" not in entry
    }
    if not able:
        return None
    return min(able.items(), key=lambda item: np.atleast_1d(item[1][measure])[0])


def comparison(part: dict[Any, dict[str, Any]], dtype: str, threads: str) -> Iterator[str]:
    yield "| model | work | surefoot | peer | ratio | CPU times | mark |"
    yield "|---|---|---|---|---|---|---|"
    for system, title in TITLES.items():
        for work, words in WORK.items():
            sizes = sorted(n for s, w, n in part if (s, w) == (system, work))
            for size in sizes:
                mark = ""
                cells = compare(part[system, work, size], work)
                if (dtype, threads) == ("float32", "1"):
                    mark = mark_of(system, work, size, cells[2])
                yield BODY.format(" | ".join([title, words.format(size), *cells, mark]))


def mark_of(system: str, work: str, size: int, ratio: str) -> str:
    """The mark, and whether the median meets it."""
    family = system.rstrip("0123456789")
    mark = MARKS.get((family, work, size), MARKS.get((family, work, 0)))
    if mark is None:
        return ""
    share = work in ("peak", "members")
    shown = f"{'≤' if share else '≥'} {mark:g}"
    if ratio == "–":
        return shown
    median = float(ratio.split(maxsplit=1)[0])
    return f"{shown}: {'met' if (median <= mark if share else median >= mark) else 'missed'}"


def compare(row: dict[str, Any], work: str) -> list[str]:
    """Ours, the peer, the ratio of wall times and of CPU times."""
    ours = row["programs"].get(row["ours"], {})
    if work == "peak":
        peer = best_peer(row, "megabytes")
        mine = ours.get("megabytes")
        shown = "–" if mine is None else f"{mine:.0f} MB"
        if peer is None or mine is None:
            return [shown, "–", "–", ""]
        name, entry = peer
        ratio = mine / entry["megabytes"]
        return [shown, f"{entry['megabytes']:.0f} MB, {named(name)}", f"{ratio:.2f}", ""]
    shown = times(ours["wall_ms"]) if "wall_ms" in ours else "–"
    peer = best_peer(row, "wall_ms")
    if peer is None or "wall_over_ours" not in peer[1]:
        return [shown, "–", "–", ""]
    name, entry = peer
    ratios = [np.array(entry[f"{kind}_over_ours"]) for kind in ("wall", "cpu")]
    if work == "members":
        ratios = [1 / ratio[[0, 2, 1]] for ratio in ratios]
    words = ["{:.2f} ({:.2f} to {:.2f})".format(*ratio) for ratio in ratios]
    return [shown, f"{times(entry['wall_ms'])}, {named(name)}", *words]


def named(name: str) -> str:
    program, _, form = name.partition(" ")
    return f"{PEERS[program]} {form}"


def times(values: list[float]) -> str:
    median, low, high = (f"{v:.0f}" if v >= 100 else f"{v:.3g}" for v in values)
    return f"{median} ({low} to {high}) ms"


def neighbor_lines(part: dict[Any, dict[str, Any]]) -> Iterator[str]:
    found = {(s, n): row for (s, work, n), row in part.items() if work == "neighbors"}
    if not found:
        return
    yield ""
    yield "| model | atoms | neighbour list | energy + forces | share (mark: ≤ 5 %) |"
    yield "|---|---|---|---|---|"
    for (system, size), row in sorted(found.items()):
        each = row["programs"]["neighbor list"]
        share = 100 * each["wall_over_ours"][0]
        evaluation = row["programs"][row["ours"]]
        cells = [TITLES[system], f"{size}", times(each["wall_ms"]), times(evaluation["wall_ms"])]
        yield BODY.format(" | ".join([*cells, f"{share:.1f} %"]))


def scaling_lines(part: dict[Any, dict[str, Any]]) -> Iterator[str]:
    found = {(s, n): row for (s, work, n), row in part.items() if work == "scaling"}
    systems = [s for s in TITLES if sum(s == other for other, _ in found) > 1]
    if not systems:
        return
    yield ""
    yield "Memory is the peak above the imports; its exponent is of the sizes held in one way:"
    yield (
        "MACE makes its radial weights anew above 100 000 pairs, SchNet streams its filters and "
        "Allegro is asked part by part above some 10 000. *kept*: the allocator keeps what is "
        "freed, as the verbs of the command line make it do for small batches."
    )
    yield ""
    yield "| model | atoms | time | memory | exponents: time, CPU time, memory (mark: ≤ 1.05) |"
    yield "|---|---|---|---|---|"
    for system in systems:
        sizes = sorted(n for s, n in found if s == system)
        ours = [found[system, n]["programs"][found[system, n]["ours"]] for n in sizes]
        kept = [(n, o) for n, o in zip(sizes, ours, strict=True) if "wall_ms" in o]
        atoms = [n for n, _ in kept]
        memory = [o["megabytes"] for _, o in kept]
        slopes = [exponent(atoms, [o[kind][0] for _, o in kept]) for kind in ("wall_ms", "cpu_ms")]
        # Within one way to hold the weights, where three sizes are left of it.
        alike = [
            n for n in sizes if not system.startswith("mace") or pairs(found[system, n]) > MOST_KEPT
        ]
        same = [m for n, m in zip(atoms, memory, strict=True) if n in alike]
        slopes += [exponent(alike, same)] if all(memory) and len(same) > 2 else []
        cells = [
            TITLES[system] + (", kept" if found[system, sizes[0]]["allocator"] == "kept" else ""),
            ", ".join(map(str, atoms)),
            ", ".join(f"{o['wall_ms'][0] / 1000:.2f}" for _, o in kept) + " s",
            ", ".join(f"{m:.0f}" for m in memory) + " MB" if all(memory) else "–",
        ]
        yield BODY.format(" | ".join([*cells, ", ".join(f"{slope:.3f}" for slope in slopes)]))


def pairs(row: dict[str, Any]) -> float:
    return row["edges"] / 2


def exponent(atoms: list[int], values: list[float]) -> float:
    """Slope of a straight line through logarithms."""
    return float(np.polyfit(np.log(atoms), np.log(values), 1)[0])


def compile_lines(rows: dict[Any, dict[str, Any]]) -> Iterator[str]:
    yield "Seconds to build the model, compile it and run it once, the longest of all sizes."
    yield ""
    yield "| model | work | program | seconds | cache of the compiler |"
    yield "|---|---|---|---|---|"
    longest: dict[tuple[str, str, str], tuple[float, str]] = {}
    for (system, work, _, _, _), row in rows.items():
        for name, entry in row["programs"].items():
            if work in ("forces", "train") and "first" in entry:
                key, seconds = (system, work, name), entry["build"] + entry["first"]
                if seconds > longest.get(key, (0.0, ""))[0]:
                    longest[key] = (seconds, row["compiler_cache"])
    for (system, work, name), (seconds, cache) in sorted(longest.items()):
        yield BODY.format(" | ".join([TITLES[system], work, name, f"{seconds:.1f}", cache]))


def effort_lines(rows: dict[Any, dict[str, Any]], peaks: dict[str, float]) -> Iterator[str]:
    yield (
        "Operations and bytes of one evaluation of surefoot by the formulas of "
        "`benchmarks/speed/flops.py`; the shares are of the peaks above, at the CPU time taken."
    )
    yield ""
    yield "| model | atoms | precision | GFLOP | GB | share of matrix product | share of triad |"
    yield "|---|---|---|---|---|---|---|"
    for system, work, size, dtype, threads in sorted(rows, key=lambda key: (*key[:2], int(key[2]))):
        row = rows[system, work, size, dtype, threads]
        ours = row["programs"].get(row["ours"], {})
        if work != "forces" or threads != "1" or "effort" not in row or "cpu_ms" not in ours:
            continue
        effort, seconds = row["effort"], ours["cpu_ms"][0] / 1000
        rate = effort["gflop"] / seconds / peaks[f"gemm_{dtype}_gflops"]
        traffic = effort["gbyte"] / seconds / peaks["triad_gb_per_s"]
        cells = [TITLES[system], size, dtype, f"{effort['gflop']:.3g}", f"{effort['gbyte']:.3g}"]
        yield BODY.format(" | ".join([*cells, f"{100 * rate:.0f} %", f"{100 * traffic:.0f} %"]))


def process_lines(found: dict[str, Any]) -> Iterator[str]:
    """Training by several processes through torchrun."""
    yield (
        f"Seconds of an epoch of a small MACE, {found['frames']} frames of 3BPA, {found['cpu']}, "
        f"{found['cores']} cores, one thread for each process, load of the machine before "
        f"{found['load_before']:.1f}; written by `python benchmarks/torchrun_speed.py`."
    )
    yield ""
    yield "| processes | lowest | median | times faster: lowest, median | weights differ by |"
    yield "|---|---|---|---|---|"
    for count, one in found["processes"].items():
        faster = f"{one['speed_up_lowest']:.2f}, {one['speed_up_median']:.2f}"
        spent = [f"{one[f'seconds_{kind}']:.2f} s" for kind in ("lowest", "median")]
        yield BODY.format(" | ".join([count, *spent, faster, f"{one['weights_deviation']:.0e}"]))


def profile_lines(found: dict[str, Any]) -> Iterator[str]:
    """Where the time goes, before compiling and after."""
    yield (
        f"Processor time of one call and its shares by operation, float32, one thread of "
        f"{found['cpu']}; written by `python benchmarks/speed_profile.py`."
    )
    yield ""
    yield "| model | work | form | ms | operations | where |"
    yield "|---|---|---|---|---|---|"
    for key, forms in found["cases"].items():
        system, work, size, *_ = key.split("/")
        for form, one in forms.items():
            where = ", ".join(f"{name} {100 * share:.0f} %" for name, share in one["shares"])
            title = [TITLES[system], WORK[work].format(size)]
            cells = [*title, form, f"{one['ms']:.3g}", str(one["operations"]), where]
            yield BODY.format(" | ".join(cells))


def draw(rows: dict[Any, dict[str, Any]]) -> str:
    """Bars of the ratios of energy + forces and of training, float32, one thread."""
    bars = []
    for system, title in TITLES.items():
        for work in ("forces", "train"):
            for size in (27, 192, 1029, 5, 16):
                row = rows.get((system, work, str(size), "float32", "1"))
                peer = best_peer(row, "wall_ms") if row else None
                if peer is not None and "wall_over_ours" in peer[1]:
                    label = f"{title}: {WORK[work].format(size)}"
                    bars.append((label, peer[1]["wall_over_ours"]))
    step, left, width = 20, 340, 420
    top = max([ratio[2] for _, ratio in bars], default=1.0)
    height = step * (len(bars) + 2)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + 60}" height="{height}" '
        'font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{left}" y="14">times faster than the peer; line: equal; '
        "float32, one thread</text>",
    ]
    for number, (label, (median, low, high)) in enumerate(bars):
        y = step * (number + 1) + 4
        x0, x1, x2 = (left + width * value / top for value in (median, low, high))
        parts += [
            f'<text x="{left - 6}" y="{y + 11}" text-anchor="end">{label}</text>',
            f'<rect x="{left}" y="{y}" width="{x0 - left:.1f}" height="14" fill="#4878a8"/>',
            f'<path d="M{x1:.1f} {y + 7}H{x2:.1f}" stroke="black"/>',
            f'<text x="{x2 + 4:.1f}" y="{y + 11}">{median:.1f}</text>',
        ]
    one = left + width / top
    parts += [f'<path d="M{one:.1f} {step}V{height - 8}" stroke="#c03030"/>', "</svg>"]
    return "\n".join(parts) + "\n"
