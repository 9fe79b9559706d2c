"""The relaxation of many structures: a batch that is refilled as systems leave it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from ase import Atoms
from jaxtyping import Bool
from torch import Tensor

from surefoot.data.batches import BatchLimits
from surefoot.data.convert import to_graph
from surefoot.data.read import read_state
from surefoot.graph import Graph
from surefoot.motion.frames import without_results
from surefoot.motion.guard import (
    Verdict,
    Watch,
    judge,
    look_closer,
    mark_frame,
    require_scores,
    say_verdict,
)
from surefoot.motion.skin import NeighborLists, NoNeighbors
from surefoot.motion.slices import take_graphs
from surefoot.motion.surface import Evaluation, Surface
from surefoot.motion.systems import Configuration, Systems, join_systems, to_atoms
from surefoot.relax.batch import Batch, begin, longest_forces, require_free
from surefoot.relax.settings import LIMITS, Relaxation, Relaxed, Status
from surefoot.units import GPA


@dataclass(frozen=True, kw_only=True)
class Keeper:
    """Who keeps what a relaxation does, while it goes on.

    Attributes:
        finished: called with the number of a structure and what became of it, as it leaves.
        follow: called with the number of a structure, its step, where it is and what the surface
            says there, at every step of every structure before it leaves; None is cheaper.
    """

    finished: Callable[[int, Relaxed], None] = lambda *_: None
    follow: Callable[[int, int, Atoms, Evaluation], None] | None = None


def relax(
    structures: Sequence[Atoms],
    surface: Surface,
    settings: Relaxation = Relaxation(),
    *,
    places: Sequence[str] | None = None,
    watch: Watch | None = None,
    limits: BatchLimits = LIMITS,
    progress: Callable[[int, int], None] = lambda *_: None,
    keeper: Keeper = Keeper(),
) -> list[Relaxed]:
    """Relax every structure until its forces are below `fmax`.

    Args:
        structures: any number; they are moved in batches within the limits, and a structure enters
            as soon as another has left.
        surface: what they are relaxed on.
        settings: optimiser and where it ends.
        places: how messages name the structures.
        watch: a guard that stops or reports structures that leave what the potential has learned.
        limits: how many move together.
        progress: called with structures done, and steps taken by the batch.
        keeper: told what becomes of each structure as it leaves.
    Returns:
        One for each structure, in their order.
    Raises:
        UnfitStructure: before anything moves, if a structure can not be relaxed.
        ValueError: likewise, if the surface has a bias, or no stress for free cells.
        NoUncertainty: if the guard has a limit on what the potential does not say.
    """
    if not structures:
        return []
    if surface.bias is not None:
        raise ValueError(
            "this surface has a bias, and a relaxation ends where the forces of the potential "
            "alone vanish; relax on the surface without it, or let it pull in dynamics."
        )
    places = places or [f"structure {number}" for number in range(len(structures))]
    for atoms, place in zip(structures, places, strict=True):
        surface.require(atoms.numbers, *read_state(atoms.info), place)
        if settings.cell == "free":
            require_free(atoms, surface, place)
    everything, start = join_systems(structures, places)
    if watch is not None and watch.guard.screens:  # or it would show only where one comes near
        first = structures[0]
        graph = to_graph(first, surface.cutoff, *read_state(first.info))
        require_scores(watch.guard, surface, graph)
    run = _Run(
        structures=structures,
        places=places,
        surface=surface,
        settings=settings,
        watch=watch,
        limits=limits,
        everything=everything,
        start=start,
        keeper=keeper,
    )
    return run.until_done(progress)


@dataclass(kw_only=True)
class _Run:
    """The relaxation while it goes on: a queue, a batch, and results."""

    structures: Sequence[Atoms]
    places: Sequence[str]
    surface: Surface
    settings: Relaxation
    watch: Watch | None
    limits: BatchLimits
    everything: Systems
    start: Configuration
    keeper: Keeper
    waiting: int = 0
    batch: Batch | None = None
    lists: NeighborLists | None = None
    results: dict[int, Relaxed] = field(default_factory=dict)

    def until_done(self, progress: Callable[[int, int], None]) -> list[Relaxed]:
        taken = 0
        while self.waiting < len(self.structures) or self.batch is not None:
            self._fill()
            found = self._evaluate()
            if found is not None:
                self._advance(*found)
            if self.batch is not None:
                taken += 1
            progress(len(self.results), taken)
        return [self.results[number] for number in range(len(self.structures))]

    def _fill(self) -> None:
        """Let waiting structures in while there is room; an empty batch takes any."""
        count = 0 if self.batch is None else self.batch.count
        atoms = 0 if self.batch is None else len(self.batch.systems.owner)
        sizes = self.everything.atom_counts.tolist()
        stop = self.waiting
        while stop < len(sizes):
            fits = count < self.limits.graphs and (
                self.limits.atoms is None or atoms + sizes[stop] <= self.limits.atoms
            )
            if not fits and count > 0:
                break
            count, atoms, stop = count + 1, atoms + sizes[stop], stop + 1
        if stop == self.waiting:
            return
        new = self._enter(self.waiting, stop)
        self.waiting = stop
        if self.batch is None or self.lists is None:
            self.batch = new
            self.lists = NeighborLists(new.systems, self.surface.cutoff, self.settings.skin)
            return
        self.batch = self.batch.append(new, self.settings.optimizer)
        self.lists.append(self.batch.systems)

    def _enter(self, first: int, stop: int) -> Batch:
        chosen = torch.zeros(self.everything.count, dtype=torch.bool)
        chosen[first:stop] = True
        start = Configuration(
            positions=self.start.positions[chosen[self.everything.owner]],
            cell=self.start.cell[chosen],
        )
        pressure = self.settings.pressure * GPA if self.settings.cell == "free" else None
        return begin(self.everything.select(chosen), start, self.settings.optimizer, pressure)

    def _evaluate(self) -> tuple[Configuration, Graph, Evaluation, Tensor] | None:
        """Where the batch is, what the surface says there, and (systems) whom the guard judges.

        None where nothing is left of the batch.
        """
        guard = None if self.watch is None else self.watch.guard
        screens = guard is not None and guard.screens
        while self.batch is not None and self.lists is not None:
            configuration = self.batch.coordinates.configuration()
            try:
                graph = self.lists.graph(configuration)
            except NoNeighbors as error:
                self._collapse(error.number, configuration)
                continue
            evaluation = self.surface(
                graph, stress=self.settings.cell == "free", uncertainty=not screens
            )
            asked = torch.ones(self.batch.count, dtype=torch.bool)
            if guard is not None and screens:
                due = self.batch.steps % guard.every == 0
                evaluation, asked = look_closer(guard, self.surface, graph, evaluation, due)
            first = torch.where(self.batch.steps == 0, evaluation.energy, self.batch.first_energy)
            self.batch = replace(self.batch, first_energy=first)
            return configuration, graph, evaluation, asked
        return None

    def _collapse(self, number: int, now: Configuration) -> None:
        """End a system that has two atoms at one place, of which no surface can say anything."""
        batch, _ = self._moving()
        count = int(batch.systems.atom_counts[number])
        nothing = Evaluation(
            energy=torch.full((1,), torch.nan, dtype=torch.float64),
            forces=torch.full((count, 3), torch.nan, dtype=torch.float64),
        )
        reason = (
            f"{self._place(number)}: two atoms are at one place; the structure has collapsed to "
            "where the potential can describe nothing."
        )
        self._keep(number, "broken", now, nothing, reason)
        self._leave(torch.arange(batch.count) != number)

    def _leave(self, keep: Bool[Tensor, " systems"]) -> None:
        batch, lists = self._moving()
        if keep.any():
            self.batch = batch.select(keep)
            lists.select(keep)
        else:
            self.batch = self.lists = None

    def _advance(
        self, now: Configuration, graph: Graph, evaluation: Evaluation, asked: Tensor
    ) -> None:
        """Take a step with the systems that are not done, and keep what became of the others."""
        batch, _ = self._moving()
        self._show(now, evaluation)
        forces = batch.coordinates.forces(evaluation, batch.systems, now.cell)
        verdict = self._guard(now, evaluation, asked)
        longest = longest_forces(batch.systems, evaluation.forces)
        done = self._converged(longest, evaluation)
        stopped = torch.zeros_like(done)
        if verdict is not None and self.watch is not None:
            batch = replace(batch, guarded=verdict.counts)
            stopped = verdict.fired if self.watch.guard.action == "stop" else verdict.exploded
        exhausted = batch.steps >= self.settings.steps
        memory, step = self.settings.optimizer.step(
            batch.memory, batch.coordinates.rows, batch.coordinates.values, forces
        )
        if verdict is not None and self.watch is not None and self.watch.guard.action == "damp":
            slowed = torch.where(verdict.fired, self.watch.guard.damping, 1.0)
            step = step * slowed[batch.coordinates.rows.owner, None].double()
        broken = ~batch.coordinates.rows.sum(step.abs().sum(-1)).isfinite()
        broken |= ~evaluation.energy.isfinite()
        going = ~(done | stopped | exhausted | broken)
        for number in (~going).nonzero()[:, 0].tolist():
            status: Status = "exhausted"
            if done[number]:
                status = "converged"
            if stopped[number]:
                status = "unsure"
            if broken[number]:
                status = "broken"
            mine = self._finish(number, graph, evaluation, asked)
            self._keep(number, status, now, mine, self._reason(number, status, verdict))
        self.batch = replace(
            batch,
            coordinates=batch.coordinates.moved(step),
            memory=memory,
            steps=batch.steps + 1,
        )
        if not going.all():
            self._leave(going)

    def _show(self, now: Configuration, evaluation: Evaluation) -> None:
        if self.keeper.follow is None:
            return
        batch, _ = self._moving()
        for number, system in enumerate(batch.systems.ids.tolist()):
            chosen = torch.arange(batch.count) == number
            mine = evaluation.select(chosen, chosen[batch.systems.owner])
            self.keeper.follow(system, int(batch.steps[number]), self._atoms(number, now), mine)

    def _finish(
        self, number: int, graph: Graph, evaluation: Evaluation, asked: Tensor
    ) -> Evaluation:
        """All that the surface knows of one system where it ends."""
        chosen = torch.arange(len(asked)) == number
        mine = evaluation.select(chosen, chosen[graph.graph_index])
        norm = mine.forces_uncertainty_norm
        if asked[number] or (norm is not None and not norm.isnan().any()):
            return mine
        whole = self.surface(take_graphs(graph, chosen), stress=False, uncertainty=True)
        return replace(
            mine,
            energy_uncertainty=whole.energy_uncertainty,
            forces_uncertainty_norm=whole.forces_uncertainty_norm,
        )

    def _converged(self, longest: Tensor, evaluation: Evaluation) -> Bool[Tensor, " systems"]:
        done = longest < self.settings.fmax
        if self.settings.cell == "free" and evaluation.stress is not None:
            identity = torch.eye(3, dtype=torch.float64)
            left = evaluation.stress + self.settings.pressure * GPA * identity
            done &= left.abs().flatten(1).amax(-1) < self.settings.stress * GPA
        return done

    def _guard(self, now: Configuration, evaluation: Evaluation, asked: Tensor) -> Verdict | None:
        """The verdict of the guard, told and recorded where it acts."""
        if self.watch is None:
            return None
        batch, _ = self._moving()
        owner = batch.systems.owner
        verdict = judge(self.watch.guard, evaluation, owner, batch.guarded, asked)
        checked = batch.steps % self.watch.guard.every == 0
        verdict = replace(
            verdict,
            counts=torch.where(checked, verdict.counts, batch.guarded),
            fired=verdict.fired & checked,
            exploded=verdict.exploded & checked,
        )
        for number in verdict.fired.nonzero()[:, 0].tolist():
            exploded = bool(verdict.exploded[number])
            if not exploded and self.watch.guard.action != "warn":
                scores = verdict.atom_scores[batch.systems.owner == number].numpy()
                bare = without_results(self._atoms(number, now))
                self.watch.record(mark_frame(bare, scores))
            if not exploded and self.watch.guard.action != "stop":
                self.watch.warn(self._say(number, verdict))
        return verdict

    def _say(self, number: int, verdict: Verdict) -> str:
        batch, _ = self._moving()
        assert self.watch is not None  # noqa: S101 - for the type checker
        scores = verdict.atom_scores[batch.systems.owner == number]
        return say_verdict(
            self.watch.guard,
            float(verdict.score[number]),
            (~(scores < 1)).nonzero()[:, 0].tolist(),
            self._place(number),
            exploded=bool(verdict.exploded[number]),
        )

    def _reason(self, number: int, status: Status, verdict: Verdict | None) -> str:
        if status == "unsure" and verdict is not None:
            return self._say(number, verdict)
        if status == "broken":
            return (
                f"{self._place(number)}: the forces are no longer finite; the structure has left "
                "what the potential can describe."
            )
        return ""

    def _place(self, number: int) -> str:
        batch, _ = self._moving()
        return f"{self.places[int(batch.systems.ids[number])]}, step {int(batch.steps[number])}"

    def _keep(
        self, number: int, status: Status, now: Configuration, evaluation: Evaluation, reason: str
    ) -> None:
        """The result of one system of the batch; `evaluation` is of it alone."""
        batch, _ = self._moving()
        alone, score = torch.zeros(len(evaluation.forces), dtype=torch.int64), None
        if self.watch is not None and evaluation.energy.isfinite().all():
            score = float(judge(self.watch.guard, evaluation, alone, alone[:1]).score[0])
        free = ~batch.systems.fixed[batch.systems.owner == number]
        lengths = torch.linalg.vector_norm(evaluation.forces[free], dim=-1)
        system = int(batch.systems.ids[number])
        self.results[system] = Relaxed(
            atoms=self._atoms(number, now),
            status=status,
            steps=int(batch.steps[number]),
            first_energy=float(batch.first_energy[number]),
            evaluation=evaluation,
            fmax=float(lengths.max()) if len(lengths) else 0.0,
            score=score,
            reason=reason,
        )
        self.keeper.finished(system, self.results[system])

    def _atoms(self, number: int, now: Configuration) -> Atoms:
        batch, _ = self._moving()
        template = self.structures[int(batch.systems.ids[number])]
        atoms = to_atoms(template, now.positions[batch.systems.owner == number], now.cell[number])
        atoms.calc = None
        return atoms

    def _moving(self) -> tuple[Batch, NeighborLists]:
        if self.batch is None or self.lists is None:
            raise RuntimeError("nothing is being relaxed.")
        return self.batch, self.lists
