"""A session: blows, damages, and whether the run comes to what it comes to without them."""

import re
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from surefoot.lock import LOCK
from torture.cases import Case, prepare
from torture.damage import Damage, strike
from torture.process import Blow, Ended, run

SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGKILL, signal.SIGINT, signal.SIGTERM)
MOST_BLOWS = 4
DAMAGED = 1 / 3  # of the sessions
COMPILING = 3600.0  # s that a first run may take
SENTENCE = 900  # characters of a refusal; it may name many files


@dataclass
class Bench:
    """Folder of work, and the cases.

    Attributes:
        work: for everything.
        cases: by name.
    """

    work: Path
    cases: dict[str, Case]

    @property
    def inputs(self) -> Path:
        """What all runs begin from."""
        return self.work / "inputs"

    def whole(self, case: Case, seed: int = 0) -> Path:
        """The run that nobody disturbed."""
        return self.work / case.name.replace(" ", "-") / f"whole_{seed}"

    def length(self, case: Case) -> tuple[float, int]:
        """Its seconds and its touches of files."""
        seconds, touches = self.whole(case).with_suffix(".txt").read_text().split()
        return float(seconds), int(touches)

    def prepare(self, names: list[str]) -> None:
        """Make inputs and whole runs, as far as they are not there."""
        prepare(self.inputs)
        for name in names:
            self._make_whole(self.cases[name])

    def _make_whole(self, case: Case) -> None:
        for seed in (0, 1):
            place = self.whole(case, seed)
            if place.with_suffix(".txt").exists():
                continue
            for _ in ("compiles", "finds that done"):
                shutil.rmtree(place, ignore_errors=True)
                self.lay(case, place)
                command = case.next(place, seed) or ()
                ended = run(command, place, None, case.checkpoints[0], COMPILING)
                if ended.status:
                    raise RuntimeError(f"{case.name}: status {ended.status}: {ended.err}")
                if seed:
                    break
            place.with_suffix(".txt").write_text(f"{ended.seconds} {ended.touches}")

    def lay(self, case: Case, place: Path) -> None:
        """Put into a folder what the case begins from."""
        for name in case.given:
            place.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.inputs / name, place / name)


class Failed(Exception):
    """What may not be."""


def warm_up() -> None:
    """Import what the runs would import one by one."""
    import torch._inductor.compile_fx  # noqa: F401

    import surefoot.active.loop
    import surefoot.cli.learn_config
    import surefoot.cli.main
    import surefoot.label.run
    import surefoot.md.run
    import surefoot.posteriors.training
    import surefoot.relax.run
    import surefoot.report.assessment  # noqa: F401


def hold_session(
    bench: Bench, case: Case, seed: int, number: int, touch: int | None = None
) -> dict[str, Any]:
    """Blows, now and then a damage, and the end.

    Args:
        bench: with the whole runs of the case.
        case: what is tortured.
        seed: of everything that is drawn.
        number: of the session.
        touch: of a file, at which the only blow falls, if it is not drawn.
    """
    generator = np.random.default_rng([seed, number])
    folder = bench.work / "sessions" / f"{seed}_{number}"
    shutil.rmtree(folder, ignore_errors=True)
    place = folder / "run"
    bench.lay(case, place)
    session: dict[str, Any] = {"case": case.name, "blows": [], "failed": None}
    torture = Torture(bench=bench, case=case, place=place, generator=generator, session=session)
    try:
        if touch is None:
            torture.strike_often()
        else:
            torture.strike(Blow(signal.SIGKILL, touch=touch))
        # Drawn apart from the rest; every third by number would be always the same cases.
        if touch is None and np.random.default_rng([seed, number, 1]).random() < DAMAGED:
            torture.damage_one()
        torture.finish()
    except Failed as error:
        session["failed"] = str(error)
        return session
    shutil.rmtree(folder)
    return session


@dataclass(kw_only=True)
class Torture:
    """One session while it goes on."""

    bench: Bench
    case: Case
    place: Path
    generator: np.random.Generator
    session: dict[str, Any]
    older: Path | None = None

    def go_on(self, blow: Blow | None) -> Ended:
        """The next command, and what no run may do."""
        pauses = self.case.checkpoints
        pause = pauses[int(self.generator.integers(len(pauses)))]
        command = self.case.next(self.place, 0)
        if command is None:
            return Ended(status=0, out="", err="", seconds=0.0, touches=0)
        ended = run(command, self.place, blow, pause)
        if ended.hung:
            raise Failed(f"hung: {ended.err[-2000:]}")
        if ended.left:
            raise Failed("left processes behind")
        if any(word in ended.err for word in ("Traceback", "Exception ignored", "Fatal Python")):
            raise Failed(f"status {ended.status}: {ended.err[-2000:]}")
        return ended

    def strike_often(self) -> None:
        """One to four blows, or fewer where the run comes to its end before one falls."""
        for count in range(int(self.generator.integers(1, MOST_BLOWS + 1))):
            if count == 1 and self.place.exists():
                self.older = self.place.with_name("older")
                shutil.copytree(self.place, self.older)
            if self.strike(self.draw_blow()):
                return

    def strike(self, blow: Blow) -> bool:
        """One blow; whether the run came to its end before it."""
        ended = self.go_on(blow)
        when = f"{blow.seconds:.2f} s" if blow.touch is None else f"touch {blow.touch}"
        told = {"signal": blow.signal.name, "when": when, "status": ended.status}
        self.session["blows"].append(told)
        if ended.status == 0:
            return True
        if blow.signal == signal.SIGKILL:
            allowed = {-signal.SIGKILL}
        else:
            allowed = {130, -signal.SIGTERM} if not blow.twice else {130, -blow.signal}
        if ended.status not in allowed:
            raise Failed(f"{told}: {ended.err[-2000:]}")
        return False

    def draw_blow(self) -> Blow:
        """Half of them at a touch of a file."""
        seconds, touches = self.bench.length(self.case)
        kind = SIGNALS[int(self.generator.integers(len(SIGNALS)))]
        twice = kind == signal.SIGINT and bool(self.generator.random() < 0.25)
        if self.generator.random() < 0.5:
            return Blow(kind, touch=int(self.generator.integers(1, touches + 1)), twice=twice)
        return Blow(kind, seconds=float(self.generator.uniform(0.0, seconds)), twice=twice)

    def damage_one(self) -> None:
        """One file; then the same end, or a sentence, and the same end once it is put back.

        Not where a run is at its end and nobody would give another command.
        """
        if self.case.next(self.place, 0) is None:
            return
        other = self.bench.whole(self.case, 1)
        spared = (*self.case.spared, f"*{LOCK}")
        done = strike(self.place, other, self.older, self.generator, spared)
        if done is None:
            return
        before = {path: path.stat().st_size for path in self.place.rglob("*") if path.is_file()}
        ended = self.go_on(None)
        answer = "the same end"
        if ended.status:
            answer = read_refusal(ended, self.place)
            lost = [path.name for path in before if is_kept(path, self.place) and not path.exists()]
            if lost:
                raise Failed(f"{done.kind} {done.file}: {answer} and {lost} are gone")
            done.undo(self.place)
        self.session["damage"] = {"kind": done.kind, "file": plain(done), "answer": answer}
        if not ended.status:
            self.compare(f"{done.kind} {done.file}: ")

    def finish(self) -> None:
        """To the end, and compare."""
        ended = self.go_on(None)
        if ended.status:
            raise Failed(f"refused after blows: {ended.err[-2000:]}")
        self.compare("")

    def compare(self, after: str) -> None:
        """With the run that nobody disturbed.

        Raises:
            Failed: if they differ.
        """
        try:
            found = self.case.outcome(self.place)
        except Exception as error:
            raise Failed(f"{after}what it left can not be read: {error!r}") from error
        expected = self.case.outcome(self.bench.whole(self.case))
        if found != expected:
            raise Failed(f"{after}the end is another one")


def is_kept(path: Path, place: Path) -> bool:
    """Whether a file is more than a lock, or what a killed process has left half written."""
    hidden = any(part.startswith(".") for part in path.relative_to(place).parts)
    return not hidden and not path.name.endswith(LOCK)


def read_refusal(ended: Ended, place: Path) -> str:
    """The sentence of a refusal, without what names this run.

    Raises:
        Failed: if it is none.
    """
    told = [line for line in ended.err.splitlines() if line.startswith("surefoot: ")]
    last = ended.err.strip().splitlines()[-1:]
    if ended.status not in (1, 2) or len(told) != 1 or told != last or len(told[0]) > SENTENCE:
        raise Failed(f"status {ended.status} is no refusal in a sentence: {ended.err[-2000:]}")
    if str(place) not in told[0]:
        raise Failed(f"status {ended.status} names no file: {told[0]}")
    return told[0].removeprefix("surefoot: ").replace(str(place), "…")


def plain(done: Damage) -> str:
    """The name of a damaged file without numbers."""
    return re.sub(r"\d+", "N", done.file)
