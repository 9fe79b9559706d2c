"""The guard as an observer of ASE's own dynamics, optimisers and bands."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from ase import Atoms

from surefoot.data.convert import to_graph
from surefoot.data.read import read_state
from surefoot.motion.frames import without_results
from surefoot.motion.guard import Watch, judge, look_closer, mark_frame, say_verdict
from surefoot.motion.surface import Evaluation, PredictorSurface, Surface
from surefoot.posteriors.predictor import knows_energies


class LostGround(RuntimeError):
    """An ASE run that its guard has stopped; the message says where and why."""


class AseGuard:
    """The guard for runs of ASE's own dynamics, optimisers and bands.

    Attach it: `dynamics.attach(AseGuard(Watch(guard=guard), atoms), interval=guard.every)`; to a
    band one for each image. It reads the results of `atoms.calc`, which is asked again where they
    are not of where the atoms are, as with one calculator for all images. `damp` acts on momenta,
    and has nothing to act on in an optimiser of ASE.

    Args:
        watch: the guard, and whom it tells.
        atoms: what moves, or the image of a band that is looked at.
        surface: what is asked for the uncertainty of forces, where the calculator moves the atoms
            by one draw: `PredictorSurface(predictor=predictor)` beside
            `SurefootCalculator(driver(predictor))`. Whether it is asked at all is then for the
            guard's `near_ood` and `near_energy` to say, from the results of the calculator.
        place: how messages name it.
    Raises:
        ValueError: if the guard is to look at what is cheap first, and there is no surface to ask.
    """

    def __init__(
        self, watch: Watch, atoms: Atoms, surface: Surface | None = None, place: str = ""
    ) -> None:
        if watch.guard.screens and surface is None:
            raise ValueError(
                "`near_ood` and `near_energy` of the guard say when all draws are asked, and there "
                "is nothing to ask: give `surface`, or leave them out."
            )
        self.watch, self.atoms, self.surface, self.place = watch, atoms, surface, place
        self._counts = torch.zeros(1, dtype=torch.int64)
        self._checks = 0

    def __call__(self) -> None:
        """Check the atoms where they are.

        Raises:
            LostGround: if the guard stops the run.
        """
        self._checks += 1
        guard = self.watch.guard
        owner = torch.zeros(len(self.atoms), dtype=torch.int64)
        evaluation, asked = self._evaluation(), None
        if self.surface is not None and guard.uncertainty is not None:
            state = read_state(self.atoms.info)
            graph = to_graph(self.atoms, self.surface.cutoff, *state)
            quick = replace(evaluation, forces_uncertainty_norm=None)
            if not self._closed:  # what a head says of one draw is no spread
                quick = replace(quick, energy_uncertainty=None)
            evaluation, asked = look_closer(guard, self.surface, graph, quick)
        verdict = judge(guard, evaluation, owner, self._counts, asked)
        self._counts = verdict.counts
        if not verdict.fired[0]:
            return
        exploded = bool(verdict.exploded[0])
        responsible = (~(verdict.atom_scores < 1)).nonzero()[:, 0].tolist()
        place = f"{self.place}, check {self._checks}" if self.place else f"check {self._checks}"
        sentence = say_verdict(
            guard, float(verdict.score[0]), responsible, place, exploded=exploded
        )
        if not exploded and guard.action != "warn":
            bare = without_results(self.atoms)
            self.watch.record(mark_frame(bare, verdict.atom_scores.numpy()))
        if exploded or guard.action == "stop":
            raise LostGround(sentence)
        self.watch.warn(sentence)
        if guard.action == "damp" and self.atoms.has("momenta"):
            self.atoms.set_momenta(self.atoms.get_momenta() * guard.damping)

    @property
    def _closed(self) -> bool:
        """Whether the surface knows the spread of energies without asking all draws."""
        surface = self.surface
        return isinstance(surface, PredictorSurface) and knows_energies(surface.predictor)

    def _evaluation(self) -> Evaluation:
        """What the calculator says of where the atoms are."""
        results = {}
        if self.atoms.calc is not None:
            self.atoms.calc.get_property("forces", self.atoms)  # calculates only what has moved
            results = self.atoms.calc.results
        names = ("energy_uncertainty", "ood", "forces_uncertainty_norm", "ood_atoms")
        found = {
            name: torch.tensor(np.atleast_1d(np.asarray(results[name], float)))
            for name in names
            if name in results
        }
        return Evaluation(
            energy=torch.zeros(1, dtype=torch.float64),
            forces=torch.zeros(len(self.atoms), 3, dtype=torch.float64),
            **found,
        )
