"""Data sets of hydrogen transfers from names, sequences and SMILES.

Each split has molecules of its own; frames and scans are drawn from their displaced conformers.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from ase import Atoms
from pydantic import Field, field_validator, model_validator

from surefoot.hat.acceptance import Limits
from surefoot.hat.compounds import Compound, from_smiles, identity
from surefoot.hat.draws import (
    Configurations,
    Drawn,
    Recipe,
    Scans,
    draw,
)
from surefoot.hat.dynamics import Dynamics
from surefoot.hat.ensembles import Conformers, Ensemble, Progress, Workshop, build_ensembles
from surefoot.hat.plan import Kind, Member, Pairing, Request, plan
from surefoot.hat.radicals import radical
from surefoot.hat.sequences import Charges, Termini, parse_residue, parse_sequence
from surefoot.hat.sites import Site, compound_sites
from surefoot.hat.tasks import run_all
from surefoot.label import LABELERS
from surefoot.label.journal import content_hash
from surefoot.label.labeler import Labeler
from surefoot.label.xtb import Xtb
from surefoot.settings import Settings, any_of, choose_class

NAME = re.compile(r"[A-Za-z0-9_]+")
PATHS = "_paths"  # behind the name of a split: the file of its scans
DUPLICATE = "the structure is there already"
AHEAD = 256  # transfers handed out at once


class Split(Settings):
    """The molecules of one data set, and what is made of them."""

    residues: list[str] = Field(
        default=[], description="capped amino acids by three-letter code: ALA, Asp(-), HIP, DOPA"
    )
    sequences: list[str] = Field(
        default=[], description="peptides: GPO, Gly-Pro-Hyp, H-Asp(-)-Lys(+)-NH2"
    )
    smiles: dict[str, str] = Field(default={}, description="other molecules, SMILES by name")
    termini: Termini = Field(
        default="capped",
        description="ends of sequences that name none: capped, neutral, zwitterion, amidated",
    )
    charges: Charges = Field(
        default="neutral",
        description="of Asp, Glu, Lys, Arg and His that state none: neutral, or physiological",
    )
    frames: int = Field(default=0, ge=0, description="configurations to make")
    paths: int = Field(default=0, ge=0, description="rigid scans to make")

    @model_validator(mode="after")
    def _something(self) -> Split:
        if not (self.residues or self.sequences or self.smiles):
            raise ValueError("name a molecule among residues, sequences or smiles")
        if not self.frames + self.paths:
            raise ValueError("ask for frames or paths")
        return self


class BuildSettings(Settings):
    """Everything that decides a data set."""

    splits: dict[str, Split] = Field(description="data sets by name; no molecule is in two of them")
    seed: int = Field(default=0, ge=0, description="the same seed gives the same files")
    radicals: list[str] = Field(
        default=["methyl", "methoxy", "hydroxymethyl"],
        description="small radicals that take hydrogens in all splits",
    )
    elements: list[str] = Field(
        default=["C", "N", "O", "S"], description="of the atoms that give or take a hydrogen"
    )
    pairing: Pairing = Pairing()
    configurations: Configurations = Configurations()
    scans: Scans = Scans()
    conformers: Conformers = Conformers()
    dynamics: Dynamics = Dynamics()
    limits: Limits = Limits()
    labeler: any_of(LABELERS) = Xtb()  # type: ignore[valid-type]

    @field_validator("labeler", mode="before")
    @classmethod
    def _choose(cls, section: Any) -> Any:
        return choose_class(section, LABELERS, "name", "xtb")

    @model_validator(mode="after")
    def _possible(self) -> BuildSettings:
        if not self.splits:
            raise ValueError("splits: name at least one data set, such as `train`")
        for name in self.splits:
            if not NAME.fullmatch(name) or name.endswith(PATHS):
                raise ValueError(
                    f"splits: '{name}' is to be the name of a file; letters, digits and _ are "
                    f"allowed, but {PATHS} at the end is kept for scans"
                )
        for name in self.radicals:
            radical(name)
        if self.pairing.radical and not self.radicals:
            raise ValueError("radicals: none is named; name one or set `pairing: {radical: 0}`")
        for ranges in (self.configurations, self.scans):
            if ranges.translations[0] > self.limits.longest:
                raise ValueError(
                    f"translations begin at {ranges.translations[0]} Å, beyond the longest that is "
                    f"allowed (limits.longest, {self.limits.longest} Å)"
                )
        return self


@dataclass(frozen=True)
class Built:
    """A data set.

    Attributes:
        frames: by name of the file without suffix.
        ensembles: by name of the molecule.
        molecules: names by split.
        rejected: how often which reason, of conformers and of each file.
    """

    frames: dict[str, list[Atoms]]
    ensembles: dict[str, Ensemble]
    molecules: dict[str, list[str]]
    rejected: dict[str, Counter[str]] = field(default_factory=dict)


def build(
    settings: BuildSettings,
    executor: Executor | None = None,
    progress: Progress | None = None,
) -> Built:
    """Make all frames and scans of a data set.

    A split has two files at most: its frames, under its name, and its scans, `NAME_paths`. Frame n
    depends on the settings of molecules and geometry, the seed and n alone, and not on how many
    are asked for, nor on the number of processes.

    Args:
        settings: what to make.
        executor: runs the calculations, for example `worker_pool(2)`; None runs them here.
        progress: called with what is done, how much of it, and how much there is.

    Raises:
        ValueError: if a molecule can not be made, has no hydrogen to give, or finds no acceptor.
    """
    labeler: Labeler = settings.labeler
    compounds = {name: _read_molecules(name, split) for name, split in settings.splits.items()}
    _refuse_shared(compounds)
    parents = {name: _parent(name) for name in settings.radicals if settings.pairing.radical}
    every = [compound for found in compounds.values() for compound in found]
    every += list({compound.name: compound for compound in parents.values()}.values())
    _check_names(every)
    offered = {name: _offered(found, settings.elements) for name, found in compounds.items()}
    workshop = Workshop(
        labeler,
        settings.conformers,
        settings.dynamics,
        settings.limits,
        settings.seed,
        executor,
        progress,
    )
    ensembles, dropped = build_ensembles(every, workshop)
    recipe = Recipe(
        settings.seed,
        labeler,
        settings.limits,
        settings.pairing,
        settings.configurations,
        settings.scans,
    )
    small = [_small(name, ensembles[compound.name]) for name, compound in parents.items()]
    frames: dict[str, list[Atoms]] = {}
    rejected = {"conformers": dropped}
    for name, split in settings.splits.items():
        members = [Member(key, ensembles[key], sites) for key, sites in offered[name].items()]
        wanted: list[tuple[str, Kind, int]] = [
            (name, "frames", split.frames),
            (f"{name}{PATHS}", "paths", split.paths * settings.scans.points),
        ]
        for file, kind, number in wanted:
            if number:
                requests = plan(name, kind, members, small, settings.pairing)
                frames[file], rejected[file] = _collect(
                    (file, kind, number), recipe, requests, executor, progress
                )
    molecules = {name: [compound.name for compound in found] for name, found in compounds.items()}
    return Built(frames, ensembles, molecules, rejected)


def _collect(
    asked: tuple[str, Kind, int],
    recipe: Recipe,
    requests: Iterator[Request],
    executor: Executor | None,
    progress: Progress | None,
) -> tuple[list[Atoms], Counter[str]]:
    """As many frames as are wanted, in the order of the requests, none of them twice."""
    file, kind, wanted = asked
    each = recipe.scans.points if kind == "paths" else recipe.configurations.per_transfer
    frames: list[Atoms] = []
    rejected: Counter[str] = Counter()
    seen: set[str] = set()

    def note(drawn: Drawn) -> None:
        rejected.update(drawn.rejected)
        for atoms in drawn.frames:
            key = content_hash(atoms, atoms.info["charge"], atoms.info["spin"], {})
            if key in seen:
                rejected[DUPLICATE] += 1
            elif len(frames) < wanted:
                frames.append(atoms)
            seen.add(key)
        if progress is not None:
            progress(file, len(frames), wanted)

    while len(frames) < wanted:
        batch = [next(requests) for _ in range(min(-(-(wanted - len(frames)) // each), AHEAD))]
        run_all(partial(draw, recipe), batch, executor, note)
    return frames, rejected


def _read_molecules(name: str, split: Split) -> list[Compound]:
    compounds = [parse_residue(text, split.charges) for text in split.residues]
    compounds += [parse_sequence(text, split.termini, split.charges) for text in split.sequences]
    compounds += [from_smiles(key, text) for key, text in split.smiles.items()]
    repeated = [key for key, times in Counter(map(identity, compounds)).items() if times > 1]
    if repeated:
        twice = [compound.name for compound in compounds if identity(compound) == repeated[0]]
        raise ValueError(f"Split '{name}': {twice[0]} is named twice; name each molecule once.")
    return compounds


def _refuse_shared(compounds: Mapping[str, Sequence[Compound]]) -> None:
    """Splits are by molecule: what one has learnt the other does not test."""
    held: dict[str, tuple[str, str]] = {}
    for split, found in compounds.items():
        for compound in found:
            key = identity(compound)
            if key in held and held[key][0] != split:
                raise ValueError(
                    f"{compound.name} is in the splits '{held[key][0]}' and '{split}'; splits "
                    "share no molecule, so that errors are those of molecules nobody trained on. "
                    "`paths` of the first gives scans of known molecules."
                )
            held[key] = split, compound.name


def _check_names(compounds: Sequence[Compound]) -> None:
    for name, times in Counter(compound.name for compound in compounds).items():
        if times > 1 or not name or any(c.isspace() for c in name):
            raise ValueError(
                f"A molecule is called '{name}', which is taken, empty or has spaces; give it "
                "another name in `smiles`."
            )


def _offered(compounds: Sequence[Compound], elements: Sequence[str]) -> dict[str, tuple[Site, ...]]:
    """Sites of all molecules; each has to have one."""
    offered = {compound.name: tuple(compound_sites(compound, elements)) for compound in compounds}
    for name, sites in offered.items():
        if not sites:
            raise ValueError(
                f"{name} has no abstractable hydrogen on an atom of {', '.join(elements)}; caps, "
                "termini and backbone nitrogens count for none. Widen `elements` or leave it out."
            )
    return offered


def _parent(name: str) -> Compound:
    """The molecule that a small radical is made of."""
    smiles = radical(name).parent
    return from_smiles(f"parent:{smiles}", smiles)


def _small(name: str, ensemble: Ensemble) -> Member:
    acceptor = radical(name).acceptor
    element = ensemble.compound.names[acceptor].rstrip("0123456789")
    sites = compound_sites(ensemble.compound, (element,))
    return Member(name, ensemble, tuple(site for site in sites if site.donor == acceptor))
