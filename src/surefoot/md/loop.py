"""The loop of a run: steps, checks, guard, frames, and a state on disk from which it goes on."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from surefoot.graph import Graph
from surefoot.md.checks import Limits, examine, find_adrift
from surefoot.md.integrator import Engine, conserved, kick, move
from surefoot.md.job import GUARD, Job, Progress, Report, write_frame
from surefoot.md.saved import Ending, Saved, full_disk, save, versions
from surefoot.md.state import State, kinetic_energy, temperature
from surefoot.md.trajectory import Frame, Writer
from surefoot.md.xyz import to_structure
from surefoot.motion.guard import judge, look_closer, mark_frame, say_verdict
from surefoot.motion.skin import NeighborLists, NoNeighbors
from surefoot.motion.surface import Evaluation

SHOWN = 0.2
"""Seconds between two looks at the progress: what it shows costs as much as some steps."""


@dataclass(kw_only=True)
class Run:
    """A run while it goes on."""

    job: Job
    engine: Engine
    lists: NeighborLists
    limits: Limits
    writer: Writer
    step: int = 0
    first_step: int = 0
    state: State | None = None
    frames: list[Frame] = field(default_factory=list)
    endings: dict[int, Ending] = field(default_factory=dict)
    began: float = 0.0
    shown: float = -float("inf")
    told: int = -1

    @property
    def needs_stress(self) -> bool:
        """Whether the barostat asks for it."""
        return self.job.settings.dynamics.barostat is not None

    def until_done(self) -> Report:
        """Make the steps that are left, and keep what they gave."""
        settings = self.job.settings
        self.began = time.monotonic()
        while self.step < settings.steps and self.engine.systems.count > 0:
            if self.job.asked():
                break
            self._make_step()
            self._show()
        if self.told != self.step:
            self._tell()
        self.keep()
        with full_disk(self.job.folder, self.step):
            self.writer.finish()
        return self.report()

    def _show(self) -> None:
        now = time.monotonic()
        if now - self.shown > SHOWN or self.step == self.job.settings.steps:
            self.shown = now
            self._tell()

    def _tell(self) -> None:
        self.told = self.step
        self.job.progress(self._progress())

    def _make_step(self) -> None:
        before = self._state()
        moved = move(before, self.step, self.engine)
        adrift = find_adrift(moved, self.engine)
        reasons = dict.fromkeys(
            adrift.nonzero()[:, 0].tolist(),
            "positions are no longer finite; use a shorter timestep",
        )
        graph = None
        while graph is None:
            if reasons:
                before, moved = self._lose(reasons, before, moved)
                if self.engine.systems.count == 0:
                    return
            try:
                graph = self.lists.graph(moved.configuration)
            except NoNeighbors as error:
                reasons = {error.number: "two atoms are at one place; it has collapsed"}
        evaluation, asked = self.evaluate(graph, self.step + 1)
        state = kick(moved.evaluated(evaluation), self.engine)
        self.step += 1
        reasons, self.state = examine(state, graph, self.step, self.engine, self.limits)
        if reasons:
            self._end(reasons, before, self.step - 1)
            broken = self._marked(reasons)
            evaluation = evaluation.select(~broken, ~broken[self.engine.systems.owner])
            asked = asked[~broken]
            self.leave(broken)
        if self.engine.systems.count > 0:
            self.finish_step(evaluation, asked)

    def _lose(self, reasons: dict[int, str], before: State, moved: State) -> tuple[State, State]:
        """End systems in the middle of a step; both states without them."""
        self._end(reasons, before, self.step)
        gone, systems = self._marked(reasons), self.engine.systems
        self.leave(gone)
        return before.select(~gone, systems), moved.select(~gone, systems)

    def _marked(self, numbers: dict[int, str]) -> Tensor:
        marked = torch.zeros(self.engine.systems.count, dtype=torch.bool)
        marked[list(numbers)] = True
        return marked

    def evaluate(self, graph: Graph, step: int) -> tuple[Evaluation, Tensor]:
        """What the surface says after a step, and (systems) whose uncertainty the guard judges."""
        guard = None if self.job.watch is None else self.job.watch.guard
        wanted, screens = self._shows(step), False
        if guard is not None and step % guard.every == 0:
            screens = guard.screens
            wanted |= guard.uncertainty is not None and not screens
        evaluation = self.job.surface(graph, stress=self.needs_stress, uncertainty=wanted)
        if self.needs_stress and evaluation.stress is None:
            raise ValueError(
                "this surface gives no stress, which constant pressure needs; leave the barostat "
                "out, or move on a surface that gives it."
            )
        if guard is not None and screens:
            return look_closer(guard, self.job.surface, graph, evaluation)
        return evaluation, torch.ones(len(evaluation.energy), dtype=torch.bool)

    def _shows(self, step: int) -> bool:
        """Whether the frame of this step, if there is one, is to have uncertainties."""
        settings = self.job.settings
        if settings.uncertainty_every == 0:
            return False
        return step % (settings.every * settings.uncertainty_every) == 0

    def finish_step(self, evaluation: Evaluation, asked: Tensor) -> None:
        """What is looked at and written after a step; see `evaluate`."""
        settings = self.job.settings
        stopped = self._guard(evaluation, asked)
        if self.step % settings.every == 0:
            self.frames.append(self._frame(evaluation))
        if stopped.any():
            self.leave(stopped)
        if len(self.frames) >= settings.chunk:
            self.keep()

    def _guard(self, evaluation: Evaluation, asked: Tensor) -> Tensor:
        """Which systems the guard stops, after it has told and recorded."""
        state, systems, watch = self._state(), self.engine.systems, self.job.watch
        stopped = torch.zeros(systems.count, dtype=torch.bool)
        if watch is None or self.step % watch.guard.every != 0:
            return stopped
        verdict = judge(watch.guard, evaluation, systems.owner, state.unsure, asked)
        self.state = replace(state, unsure=verdict.counts)
        for number in verdict.fired.nonzero()[:, 0].tolist():
            scores = verdict.atom_scores[systems.owner == number]
            exploded = bool(verdict.exploded[number])
            place = f"{self.job.places[int(systems.ids[number])]}, step {self.step}"
            atoms = (~(scores < 1)).nonzero()[:, 0].tolist()
            reason = say_verdict(
                watch.guard, float(verdict.score[number]), atoms, place, exploded=exploded
            )
            if not exploded and watch.guard.action != "warn":
                self._record(number, evaluation, scores)
            if exploded or watch.guard.action == "stop":
                stopped[number] = True
                self._told("unsure", number, self.step, reason)
            else:
                watch.warn(reason)
        if watch.guard.action == "damp":
            self._damp(verdict.fired & ~stopped)
        return stopped

    def _damp(self, which: Tensor) -> None:
        state, systems, watch = self._state(), self.engine.systems, self.job.watch
        if watch is None or not which.any():
            return
        factor = torch.where(which, watch.guard.damping, 1.0).double()
        momenta = state.momenta * factor[systems.owner, None]
        gained = kinetic_energy(momenta, systems) - kinetic_energy(state.momenta, systems)
        self.state = replace(state, momenta=momenta, exchanged=state.exchanged + gained)

    def _record(self, number: int, evaluation: Evaluation, scores: Tensor) -> None:
        """Keep a frame for labelling, under a name that a repeated step gives again."""
        system = int(self.engine.systems.ids[number])
        atoms = to_structure(
            self._frame(evaluation), number, self.job.structures[system], self.job.made_by
        )
        atoms = mark_frame(atoms, scores.numpy())
        name = f"system-{system:04d}-step-{self.step:09d}.xyz"
        with full_disk(self.job.folder, self.step):
            write_frame(self.job.folder / GUARD / name, atoms)
        if self.job.watch is not None:
            self.job.watch.record(atoms)

    def _end(self, reasons: dict[int, str], before: State, good: int) -> None:
        """Say why systems end, and write their last good frame: `before`, after `good` steps."""
        frame = self._frame(before.plain, before, good)
        for number, reason in reasons.items():
            system = int(self.engine.systems.ids[number])
            path = self.job.folder / f"last-good-{system:04d}.xyz"
            atoms = to_structure(frame, number, self.job.structures[system], self.job.made_by)
            with full_disk(self.job.folder, good):
                write_frame(path, atoms)
            place = f"{self.job.places[system]}, step {good + 1}"
            sentence = f"{place}: {reason}. The last good frame is {path}."
            self._told("broken", number, good + 1, sentence)

    def _told(self, status: str, number: int, step: int, reason: str) -> None:
        system = int(self.engine.systems.ids[number])
        self.endings[system] = Ending(status=status, step=step, reason=reason)
        self.job.warn(reason)

    def leave(self, gone: Tensor) -> None:
        """Go on without some systems."""
        keep = ~gone
        if self.state is not None:
            self.state = self.state.select(keep, self.engine.systems)
        self.engine = self.engine.select(keep)
        self.lists.select(keep)
        self.limits = replace(self.limits, hottest=self.limits.hottest[keep])

    def _frame(
        self, evaluation: Evaluation, state: State | None = None, step: int | None = None
    ) -> Frame:
        state = state or self._state()
        step = self.step if step is None else step
        kinetic = kinetic_energy(state.momenta, self.engine.systems)
        return Frame(
            step=step,
            time=step * self.job.settings.dynamics.timestep,
            systems=self.engine.systems,
            positions=state.positions,
            momenta=state.momenta,
            cell=state.cell,
            evaluation=evaluation,
            measured={
                "kinetic_energy": kinetic,
                "temperature": temperature(kinetic, self.engine.modes),
                "conserved": conserved(state, self.engine),
            },
            bias=self.job.bias_text,
        )

    def keep(self) -> None:
        """Write the frames that wait, then the state: in this order a kill loses nothing."""
        state = self._state()
        reference = state.configuration
        if self.engine.systems.count > 0:
            reference = self.lists.reference
        with full_disk(self.job.folder, self.step):
            if self.frames:
                self.writer.write(self.frames)
            saved = Saved(
                state=state,
                reference=reference,
                ids=self.engine.systems.ids,
                step=self.step,
                marks=self.writer.marks(),
                sums=self.writer.sums(),
                endings=self.endings,
                made_by=versions(),
            )
            save(self.job.folder, saved, self.job.identity)
        self.frames.clear()

    def _progress(self) -> Progress:
        state = self._state()
        kinetic = kinetic_energy(state.momenta, self.engine.systems)
        heat = temperature(kinetic, self.engine.modes)
        return Progress(
            step=self.step,
            temperature=float(heat.mean()) if len(heat) else 0.0,
            pace=self._pace(),
            moving=len(heat),
        )

    def _pace(self) -> float:
        """ns/day: fs/s · 86400 s/day · 10⁻⁶ ns/fs."""
        done = (self.step - self.first_step) * self.job.settings.dynamics.timestep
        return done / max(time.monotonic() - self.began, 1e-9) * 0.0864

    def report(self) -> Report:
        """What has been done so far."""
        last = self.frames[-1] if self.frames else None
        if self.state is not None and self.engine.systems.count > 0:
            last = self._frame(self.state.plain)
        return Report(
            step=self.step,
            endings=self.endings,
            last=last,
            pace=self._pace(),
            builds=self.lists.builds,
        )

    def _state(self) -> State:
        if self.state is None:
            raise RuntimeError("the run has not begun.")
        return self.state
