"""Hydrogen transfers in the frames of a protein: candidates, their cut-outs and rigid scans."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from ase import Atoms
from pydantic import Field

from surefoot.hat.candidates import (
    REACH,
    Candidate,
    ends_of,
    find_candidates,
    too_close,
)
from surefoot.hat.cutouts import Caps, Cutout, TwoRadicals, cut_out, without_ions, without_solvent
from surefoot.hat.endpoints import Cone
from surefoot.hat.proteins import Snapshot, Topology
from surefoot.hat.regions import Region, around, displacements
from surefoot.hat.sample import scan
from surefoot.hat.transfer import Transfer
from surefoot.hat.valence import Radical
from surefoot.settings import Settings


class Search(Settings):
    """What is looked for around each radical; lengths in Å.

    Attributes:
        radius: residues with any atom so near to the radical belong to its cut-out.
        caps: what closes cut peptide bonds, see `Caps`.
        water: whether water belongs to cut-outs; it never gives a hydrogen away.
        cone: end positions of a radical with one bond, see `Cone`.
        shortest: scans that are kept of each radical and hydrogen, those with the shortest ways
            over all frames.
        points: frames of each scan.
        rebuild_carbonyls: whether backbone oxygens that are torn off are put in place first.
        charges: residue name → charge in e, of residues that are not known.
    """

    radius: float = Field(default=8.0, ge=5.0)
    caps: Caps = "ace_nme"
    water: bool = False
    cone: Cone = "molecule"
    shortest: int = Field(default=100, gt=0)
    points: int = Field(default=11, ge=3)
    rebuild_carbonyls: bool = False
    charges: dict[str, int] = Field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Row:
    """One candidate as the table has it, and its scan where it has one.

    Attributes:
        frame: number in the file, from 0.
        candidate: indices are those of the region.
        hydrogen, donor, acceptor: names of the atoms.
        source: their places in the file, in this order; −1 for what was added.
        codes: names of the residues of donor and acceptor, such as GLY.
        same_residue: whether donor and acceptor belong to one residue.
        to_cap, to_missing: from the reacting atoms to the nearest cap, and to the nearest atom that
            is not in the cut-out, Å; infinite where there is none, or none within the radius.
        cutout: the molecule the scan is made in; None where an atom is in the way.
    """

    frame: int
    candidate: Candidate
    hydrogen: str
    donor: str
    acceptor: str
    source: tuple[int, int, int]
    codes: tuple[str, str]
    same_residue: bool
    to_cap: float
    to_missing: float
    cutout: Cutout | None

    @property
    def key(self) -> str:
        """The hydrogen, the same in all frames: its name, and its place in the file or donor's."""
        hydrogen, donor, _ = self.source
        return f"{self.hydrogen}.{hydrogen if hydrogen >= 0 else f'on{donor}'}"

    @property
    def name(self) -> str:
        """Frame, acceptor, hydrogen and end position in one word; atoms with places in the file."""
        acceptor = f"{self.acceptor}.{self.source[2]}"
        return f"f{self.frame}-{acceptor}-{self.key}-{self.candidate.end_index}".replace(":", ".")

    def system(self, file: str) -> str:
        """What the scan of this candidate is called: its `system` in info."""
        return f"{Path(file).name.partition('.')[0]}-{self.name}"


@dataclass(eq=False)
class Findings:
    """What a search has found.

    Attributes:
        rows: every candidate of every frame.
        frames: frames that were looked at.
        hydrogens: how many hydrogens were added around a radical → how often.
        oxygens: how many oxygens were put in place there → how often.
        skipped: why a radical was left alone in a frame → how often.
        reasons: one whole sentence for each of these.
    """

    rows: list[Row] = field(default_factory=list)
    frames: int = 0
    hydrogens: Counter[int] = field(default_factory=Counter)
    oxygens: Counter[int] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    reasons: dict[str, str] = field(default_factory=dict)

    def skip(self, kind: str, reason: str) -> None:
        """Note that a radical was left alone in a frame."""
        self.skipped[kind] += 1
        self.reasons.setdefault(kind, reason)


def search_frames(
    topology: Topology,
    snapshots: Iterable[Snapshot],
    radicals: Sequence[tuple[Radical, str | None]],
    search: Search = Search(),
    progress: Callable[[], None] = lambda: None,
) -> Findings:
    """Candidates of all radicals in all frames, with the cut-outs of the shortest ways.

    Args:
        topology: of the structure.
        snapshots: the frames, read once and one by one.
        radicals: each with the name of a hydrogen that is still to be added and removed.
        search: settings.
        progress: called after each frame.

    Raises:
        ValueError: if there is no radical, no frame, or no scan comes out, with the reason.
    """
    if not radicals:
        raise ValueError(
            f"{topology.file}: every atom has all its bonds, so there is no radical to take a "
            "hydrogen; name one with --radical, such as A:GLY30:CA-HA2 for the one that is left "
            "when HA2 leaves CA."
        )
    findings = Findings()
    best: dict[tuple[int, str], list[tuple[float, int]]] = {}
    for snapshot in snapshots:
        findings.frames += 1
        _search_frame(topology, snapshot, radicals, search, findings, best)
        progress()
    if not findings.frames:
        raise ValueError(f"{topology.file}: there are no frames.")
    kept = {number for heap in best.values() for _, number in heap}
    findings.rows = [
        row if number in kept else replace(row, cutout=None)
        for number, row in enumerate(findings.rows)
    ]
    if not kept:
        reasons = [findings.reasons[kind] for kind, _ in findings.skipped.most_common()]
        raise ValueError(" ".join(reasons[:1]) or f"{topology.file}: nothing was found.")
    return findings


def _search_frame(
    topology: Topology,
    snapshot: Snapshot,
    radicals: Sequence[tuple[Radical, str | None]],
    search: Search,
    findings: Findings,
    best: dict[tuple[int, str], list[tuple[float, int]]],
) -> None:
    """Add the rows of one frame; a radical that fails is noted, the others go on."""
    places = np.array([radical.atom for radical, _ in radicals])
    vectors = [displacements(snapshot, atom)[places] for atom in places.tolist()]
    close = too_close(vectors)
    for number, (radical, hydrogen) in enumerate(radicals):
        label = topology.label(radical.atom)
        if close[number]:
            findings.skip(
                "radicals closer than 3 Å",
                f"{topology.file}: {label} has another radical within 3 Å.",
            )
            continue
        try:
            region = around(
                topology, snapshot, radical, hydrogen, search.radius, search.rebuild_carbonyls
            )
            others = np.delete(places, number)
            _refuse_second(topology, region, others)
            rows = _rows(region, snapshot.frame, search)
        except ValueError as error:
            findings.skip(type(error).__name__ + f" at {label}", f"{error}")
            continue
        findings.hydrogens[region.added] += 1
        findings.oxygens[region.moved] += 1
        free = [row for row in rows if row.cutout is not None]
        if not free:
            findings.skip("no hydrogen in reach", _why_none(region, rows, search))
        for row in rows:
            place = len(findings.rows)
            findings.rows.append(row)
            if row.cutout is None:
                continue
            heap = best.setdefault((number, row.key), [])
            heapq.heappush(heap, (-row.candidate.translation, place))
            if len(heap) > search.shortest:
                _, dropped = heapq.heappop(heap)
                findings.rows[dropped] = replace(findings.rows[dropped], cutout=None)


def _refuse_second(topology: Topology, region: Region, others: np.ndarray) -> None:
    """Refuse another named radical within the radius, also of a residue in no dictionary."""
    inside = region.near[region.topology.owner]
    for other in others.tolist():
        (found,) = np.nonzero(region.topology.source == topology.source[other])
        if len(found) and inside[found[0]]:
            raise TwoRadicals(
                f"{topology.label(other)} is a radical too and would be the second in the cut-out "
                f"of {region.topology.label(region.radical)}; one is allowed. Choose a smaller "
                "--radius."
            )


def _rows(region: Region, frame: int, search: Search) -> list[Row]:
    topology, positions = region.topology, region.positions
    found = find_candidates(topology, positions, region.radical, search.cone)
    if not found:
        return []
    choose = without_ions if search.water else without_solvent
    residues = choose(topology, region.near)
    cutout = cut_out(topology, positions, region.radical, residues, search.caps, search.charges)
    rows = []
    for one in found:
        atoms = (one.hydrogen, one.donor, one.acceptor)
        points = np.vstack([positions[list(atoms)], one.end[None]])
        whole = all(cutout.index(atom) >= 0 for atom in atoms)
        rows.append(
            Row(
                frame=frame,
                candidate=one,
                hydrogen=topology.label(one.hydrogen),
                donor=topology.label(one.donor),
                acceptor=topology.label(one.acceptor),
                source=(
                    int(topology.source[one.hydrogen]),
                    int(topology.source[one.donor]),
                    int(topology.source[one.acceptor]),
                ),
                codes=(topology.residue(one.donor).name, topology.residue(one.acceptor).name),
                same_residue=bool(topology.owner[one.donor] == topology.owner[one.acceptor]),
                to_cap=cutout.to_boundary(points),
                to_missing=cutout.to_missing(points, positions),
                cutout=None if one.clash or not whole else cutout,
            )
        )
    return rows


def _why_none(region: Region, rows: Sequence[Row], search: Search) -> str:
    """Why a radical has no scan in a frame, in one sentence."""
    topology = region.topology
    label = topology.label(region.radical)
    if rows:
        return (
            f"All {len(rows)} ways of a hydrogen to {label} have an atom within 0.8 Å; there is "
            "none to scan."
        )
    hydrogens = np.flatnonzero((topology.numbers == 1) & region.near[topology.owner])
    hydrogens = np.setdiff1d(hydrogens, topology.bonded(region.radical))
    solvent = ~without_solvent(topology, np.ones(len(topology.residues), bool))
    hydrogens = hydrogens[~solvent[topology.owner[hydrogens]]]
    if not len(hydrogens):
        return (
            f"{label} finds no hydrogen to abstract: no residue within {search.radius:g} Å has one."
        )
    ends = ends_of(topology, region.positions, region.radical, search.cone)
    apart = np.linalg.norm(region.positions[hydrogens][:, None] - ends, axis=2).min(axis=1)
    nearest = int(hydrogens[apart.argmin()])
    return (
        f"No hydrogen is within {REACH:g} Å of {label}; the nearest, {topology.label(nearest)}, "
        f"would go {apart.min():.2f} Å. Other frames may bring one closer."
    )


def scans(topology: Topology, findings: Findings, search: Search) -> Iterator[list[Atoms]]:
    """A rigid scan of each candidate that is kept, with all that is known of it in its info.

    `info` holds what `describe_frame` says, with the charge of the cut-out, and `source_file`,
    `source_frame`, `donor_residue`, `acceptor_residue`, `hydrogen_name`, `residues` (all whole
    ones), `angle` (degrees), `degeneracy`, `cap_distance` and `missing_distance` (Å, −1 where there
    is none). `group` is the radical in its file: frames of one trajectory resemble each other.

    Args:
        topology: of the structure.
        findings: of `search_frames`.
        search: settings.
    """
    file = Path(topology.file).name
    for row in findings.rows:
        cutout = row.cutout
        if cutout is None:
            continue
        one = row.candidate
        hydrogen, donor, acceptor = (
            cutout.index(atom) for atom in (one.hydrogen, one.donor, one.acceptor)
        )
        donor_residue, _, site = row.donor.rpartition(":")
        acceptor_residue, _, radical_site = row.acceptor.rpartition(":")
        names = (row.codes[0], site, f"{row.codes[1]}-{radical_site}")
        transfer = Transfer(cutout.atoms, hydrogen, donor, acceptor, one.start, one.end, names)
        images = scan(transfer, row.system(file), search.points)
        for atoms in images:
            atoms.info |= {
                "charge": cutout.charge,
                "group": f"{file}#{row.acceptor}",
                "source_file": file,
                "source_frame": row.frame,
                "donor_residue": donor_residue,
                "acceptor_residue": acceptor_residue,
                "hydrogen_name": row.hydrogen.rpartition(":")[2],
                "residues": " ".join(cutout.residues),
                "angle": round(one.angle, 3),
                "degeneracy": one.degeneracy,
                "cap_distance": _finite(row.to_cap),
                "missing_distance": _finite(row.to_missing),
            }
        yield images


def _finite(distance: float) -> float:
    return round(distance, 3) if np.isfinite(distance) else -1.0
