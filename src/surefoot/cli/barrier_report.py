"""What `barrier` leaves: a table on the screen and a folder with records, paths and profiles."""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ase import Atoms

    from surefoot.barriers.heights import Curve
    from surefoot.barriers.judgement import SaddleSettings
    from surefoot.barriers.records import Judged, Record, ReportSettings
    from surefoot.barriers.scans import Scan
    from surefoot.posteriors.predictor import Predictor

MOST_ROWS = 80  # of the table; all are in the files
SECONDS = 30.0  # between two writings of what is finished
STYLE = """
svg { font-family: system-ui, sans-serif; background: #fff } .title { font-size: 13px;
  font-weight: 600 } .label { font-size: 12px } .tick { font-size: 10px; fill: #444 }
.mid { text-anchor: middle } .end { text-anchor: end } .grid { stroke: #eee }
.box { fill: none; stroke: #888 } polyline { stroke-width: 1.7 }
"""


@dataclass(kw_only=True)
class Report:
    """What is finished, and the folder that it is written to.

    Attributes:
        folder: a new one.
        settings: of intervals and rates.
        search: of saddle points; None of rigid scans.
        predictor: what is asked.
        potential: its file.
        file: of the paths.
        scans: rigid scans that are finished.
        searches: searches that are finished, failures among them.
    """

    folder: Path
    settings: ReportSettings
    search: SaddleSettings | None
    predictor: Predictor
    potential: Path
    file: str
    scans: list[Scan] = field(default_factory=list)
    searches: list[Judged] = field(default_factory=list)
    _written: float = field(default_factory=time.monotonic)

    def records(self) -> list[Record]:
        """Of all that is finished."""
        from surefoot.barriers.records import record_scan, record_search

        scans = (record_scan(one, self.settings) for one in self.scans)
        searches = (record_search(one, self.settings) for one in self.searches)
        return list(chain.from_iterable(chain(scans, searches)))

    def write_now_and_then(self) -> None:
        """Write if the last time is long ago."""
        if time.monotonic() - self._written > SECONDS:
            self.write()
            self._written = time.monotonic()

    def write(self) -> None:
        """Everything that is finished, each file whole or not at all."""
        from surefoot.cli.predict import write_images
        from surefoot.train.checkpoint import write_atomically

        records = self.records()
        if not records:
            return
        profiles = self.profiles()
        for number, (name, drawn) in enumerate(profiles):
            safe = re.sub(r"[^\w.-]+", "_", name)
            place = self.folder / "profiles" / f"{number:04d}-{safe}.svg"
            if not place.exists():
                write_atomically(place, drawn.encode())
        images = self.images()
        if images:
            write_images(self.folder / "paths.xyz", images)
        text = json.dumps(self.header() | {"records": records}, indent=1, ensure_ascii=False)
        write_atomically(self.folder / "barriers.json", text.encode())
        write_atomically(self.folder / "barriers.csv", self.format_csv(records).encode())

    def header(self) -> dict[str, Any]:
        """What the records are of."""
        from surefoot import __version__

        return {
            "kind": "rigid scan" if self.search is None else "saddle point",
            "potential": str(self.potential),
            "paths": self.file,
            "surefoot": __version__,
            "error_bars": self.predictor.calibration.describe(),
            "difference_factor": self.predictor.calibration.difference,
            "rates": self.settings.rates.describe(),
            "settings": self.settings.model_dump(),
            "search": None if self.search is None else self.search.model_dump(),
        }

    def format_csv(self, records: list[Record]) -> str:
        """The records as CSV, with a first line that says what the numbers are not."""
        import csv
        import io

        text = io.StringIO()
        text.write(f"# {self.kind()}, not true barriers\n")
        writer: csv.DictWriter[str] = csv.DictWriter(text, list(records[0]))
        writer.writeheader()
        writer.writerows(records)
        return text.getvalue()

    def kind(self) -> str:
        """What the barriers are, in words."""
        if self.search is None:
            return f"rigid scans on the surface of {self.scans[0].path.method}"
        return "saddle points on the surface of the potential"

    def images(self) -> list[Atoms]:
        """All images with what is predicted of them."""
        found = []
        for one in self.scans:
            found += mark_images(one.path.images, one.curve, one.path.name, one.path.reference)
        for judged in self.searches:
            images, name = judged.search.images(), judged.search.path.name
            if judged.curve is None:
                continue
            marked = mark_images(images, judged.curve, name, None)
            if judged.search.refined is not None:
                marked[-1].info["config_type"] = "saddle" if judged.search.found else "refined"
            found += marked
        return found

    def profiles(self) -> list[tuple[str, str]]:
        """Name and picture of every path, in their order."""
        scans = [(one.path.name, draw_scan(one, self.settings.level)) for one in self.scans]
        bands = [
            (one.search.path.name, draw_band(one, self.settings.level))
            for one in self.searches
            if one.curve is not None
        ]
        return scans + bands

    def show(self) -> None:
        """The table and what can be said of it."""
        from surefoot.cli.screen import say, show_table

        records = self.records()
        if self.search is None:  # the way back stands in the files
            records = [one for one in records if one["direction"] == "forward"]
        columns = ["transfer", "H, Å", "reference", "kcal/mol", f"{self.settings.level:.0%}", "eV",
                   "rate, 1/ps", "flags"]  # fmt: skip
        rows = [row(record) for record in records]
        if all(one[2] == "–" for one in rows):
            columns, rows = columns[:2] + columns[3:], [one[:2] + one[3:] for one in rows]
        what = "forward barriers" if self.search is None else "barriers both ways"
        show_table(f"{self.kind()}: {what} ± σ", columns, rows[:MOST_ROWS])
        if len(rows) > MOST_ROWS:
            say(f"{len(rows) - MOST_ROWS} more rows are in {self.folder / 'barriers.csv'}")
        for line in self.describe():
            say(line)
        say(f"wrote {self.folder}: barriers.csv, barriers.json, paths.xyz, profiles")

    def describe(self) -> list[str]:
        """What the table shows, in sentences."""
        from surefoot.barriers.scans import describe, summarize, warn_of

        rates = f"Rates: {self.settings.rates.describe()}"
        if self.search is None:
            return [*describe(summarize(self.scans, self.settings.level)), f"{rates}."]
        found = sum(one.search.found for one in self.searches)
        kind = {"electronic": "energies alone", "zero-point": "energies with zero-point energies",
                "free": "harmonic free energies"}[self.settings.energy]  # fmt: skip
        lines = [
            f"{found} of {len(self.searches)} paths have a saddle point of their transfer",
            f"{rates}, barriers of {kind}; tunnelling: {self.settings.tunnelling}.",
        ]
        lines += [
            f"{one.search.path.name}: {one.search.reason}"
            for one in self.searches
            if not one.search.found
        ]
        told = "These are barriers on the surface of the potential, above relaxed ends."
        return [*lines, told + warn_of(self.searches[0].search.path.method)]


def require_new(folder: Path) -> None:
    """Refuse a folder that holds something, before any work is done.

    Raises:
        UserError: if it is a file, is not empty or can not be made.
    """
    from surefoot.cli.screen import UserError, require_writable

    if folder.is_dir():
        if any(folder.iterdir()):
            raise UserError(f"{folder}: this folder is not empty; name a new one.")
        return
    if folder.exists():
        raise UserError(f"{folder}: this is a file; name a folder to write.")
    require_writable(folder)


def row(record: Record) -> list[str]:
    """A record as cells of the table."""
    ends = [
        str(record[side])
        if record[side] == record[f"{side}_atom"]
        else f"{record[side]} {record[f'{side}_atom']}"
        for side in ("donor", "acceptor")
    ]
    if record["direction"] == "reverse":
        ends.reverse()
    spread = record["uncertainty_kcal"]
    return [
        " → ".join(ends),
        _cell(record["translation_A"], ".2f"),
        _cell(record["reference_kcal"], ".1f"),
        _cell(record["predicted_kcal"], ".1f") + ("" if spread == "" else f" ± {spread:.1f}"),
        _range(record["low_kcal"], record["high_kcal"], ".1f"),
        _cell(record["predicted_eV"], ".3f"),
        _cell(record["rate_per_ps"], ".1e"),
        "no saddle" if record.get("status") == "no saddle" else short_flags(record),
    ]


def short_flags(record: Record) -> str:
    """The flags of a record but those of its reference, in few words."""
    flags = [flag for flag in str(record["flags"]).split("; ") if "reference" not in flag]
    return "; ".join(flags)


def _cell(value: str | float, form: str) -> str:
    return "–" if isinstance(value, str) else f"{value:{form}}"


def _range(low: str | float, high: str | float, form: str) -> str:
    return "–" if isinstance(low, str) else f"{low:{form}} … {high:{form}}"


def mark_images(images: tuple[Atoms, ...], curve: Curve, name: str, reference: Any) -> list[Atoms]:
    """Copies with predicted energies and uncertainties in info.

    `energy_difference_uncertainty` is that of the energy above the first image, all in eV.
    """
    from ase.calculators.singlepoint import SinglePointCalculator

    from surefoot import __version__
    from surefoot.data.read import PREDICTED
    from surefoot.motion.frames import without_results

    marked = []
    relative = curve.from_first()
    columns = {
        "REF_energy": reference,
        "energy_uncertainty": curve.std,
        "energy_difference_uncertainty": relative,
        "ood": curve.ood,
    }
    for number, image in enumerate(images):
        atoms = without_results(image)
        atoms.info |= {PREDICTED: f"surefoot {__version__}", "system": name, "path_point": number}
        for key, values in columns.items():
            if values is not None:
                atoms.info[key] = float(values[number])
        atoms.calc = SinglePointCalculator(atoms, energy=float(curve.energies[number]))
        marked.append(atoms)
    return marked


def draw_scan(scan: Scan, level: float) -> str:
    """Energies above the first point: labels, prediction and its interval."""
    import numpy as np

    from surefoot.report.svg import Line, colour
    from surefoot.units import KCAL_PER_MOL

    places = [image.positions[scan.path.hydrogen] for image in scan.path.images]
    x = [float(np.linalg.norm(place - places[0])) for place in places]
    lines = _curve_lines(x, scan.curve, slice(None), level)
    if scan.path.reference is not None:
        y = ((scan.path.reference - scan.path.reference[0]) / KCAL_PER_MOL).tolist()
        lines.append(Line(name="reference", x=x, y=y, colour=colour(1), points=True))
    return _picture(scan.path.name, "way of the hydrogen (Å)", lines)


def draw_band(judged: Judged, level: float) -> str:
    """Energies above the start, on a band or at both ends alone, and the saddle point."""
    import numpy as np

    from surefoot.barriers.interpolation import lay_on
    from surefoot.report.svg import Line, colour
    from surefoot.units import KCAL_PER_MOL

    search, curve = judged.search, judged.curve
    if curve is None:
        raise ValueError("there is nothing to be drawn.")
    images = search.images()
    way = images if search.refined is None else images[:-1]
    if search.band is None and search.refined is not None:  # start, saddle point, end
        way, order = (images[0], images[-1], images[1]), [0, 2, 1]
    else:
        order = list(range(len(way)))
    first = images[0]
    places = np.stack(
        [
            image.positions if first.pbc.any() else lay_on(image.positions, first.positions)
            for image in way
        ]
    )
    steps = np.linalg.norm(np.diff(places, axis=0), axis=(1, 2))
    x = np.concatenate([[0.0], steps.cumsum()]).tolist()
    lines = _curve_lines(x, curve, order, level)
    if search.found:
        energies = curve.energies[order]
        y = float(curve.energies[-1] - curve.energies[0]) / KCAL_PER_MOL
        top = x[1 + int(energies[1:-1].argmax())]
        lines.append(Line(name="saddle point", x=[top], y=[y], colour=colour(2), points=True))
    return _picture(search.path.name, "length of the way (Å)", lines)


def _curve_lines(
    x: list[float], curve: Curve, points: slice | list[int], level: float
) -> list[Any]:
    from surefoot.evaluate.calibration import central_bound
    from surefoot.report.svg import Line, colour
    from surefoot.units import KCAL_PER_MOL

    y = (curve.energies[points] - curve.energies[0]) / KCAL_PER_MOL
    lines = [Line(name="prediction", x=x, y=y.tolist(), colour=colour(0), points=True)]
    std = curve.from_first()
    if std is not None:
        width = central_bound(level) * std[points] / KCAL_PER_MOL
        for name, side in ((f"{level:.0%} interval", y - width), ("", y + width)):
            lines.append(Line(name=name, x=x, y=side.tolist(), colour=colour(0), dashed=True))
    return lines


def _picture(title: str, way: str, lines: list[Any]) -> str:
    """A plot as a file of its own."""
    from surefoot.report.svg import HEIGHT, WIDTH, Axis, plot

    drawn = plot(title, Axis(label=way), Axis(label="energy (kcal/mol)"), lines)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{2 * WIDTH}" height="{2 * HEIGHT}" '
    body = drawn.removeprefix("<svg ")
    start, _, rest = body.partition(">")
    return f"{head}{start}><style>{STYLE}</style>{rest}\n"
