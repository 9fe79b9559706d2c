"""What a person sees: bars on terminals, lines elsewhere, colours where wanted, the next step."""

import io
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import ase.io
import pytest
from rich.console import Console

from surefoot.cli import main, screen

SHOW = """
import time
from surefoot.cli import screen
with screen.progress_bar("working", 3) as bar:
    for _ in range(3):
        bar.advance(note="a note")
screen.show_table("Title", ["a", "b"], [["c", "1"]])
"""


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    """The time, which the test sets."""
    now = [100.0]
    monkeypatch.setattr(screen.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def lines(monkeypatch) -> list[str]:
    """What is complained about."""
    told: list[str] = []
    monkeypatch.setattr(screen, "complain", told.append)
    return told


def test_a_log_has_a_line_now_and_then_and_the_time_that_is_left(clock, lines) -> None:
    with screen.progress_bar("working", 100, done=20) as bar:
        for done in range(21, 101):
            clock[0] += 1.0
            bar.move(done, "a note")
    assert lines[0] == "working 21/100 a note, 1 min 19 s left"
    assert lines[1] == "working 32/100 a note, 1 min 08 s left"
    assert lines[-1] == "working 100/100 a note"
    assert len(lines) == 9


def test_a_first_step_with_work_of_its_own_tells_nothing_of_the_time_that_is_left(
    clock, lines
) -> None:
    with screen.progress_bar("working", 30, slow_start=True) as bar:
        clock[0] += 900.0
        bar.move(1)
        clock[0] += 11.0
        bar.move(2)
    assert lines == ["working 1/30", "working 2/30 5 min 08 s left"]


def test_a_short_work_has_a_line_at_its_beginning_and_its_end(clock, lines) -> None:
    with screen.progress_bar("working", 3) as bar:
        for _ in range(3):
            clock[0] += 1.0
            bar.advance()
    assert lines == ["working 1/3 2 s left", "working 3/3"]


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0.2, "0 s"), (59.6, "1 min 00 s"), (3599.0, "59 min 59 s"), (7260.0, "2 h 01 min")],
)
def test_durations_in_words(seconds: float, told: str) -> None:
    assert screen.show_duration(seconds) == told


@pytest.fixture
def terminal(monkeypatch):
    """Stderr is a terminal."""
    ours, theirs = os.openpty()
    for name in ("JPY_PARENT_PID", "MPLBACKEND", "NO_COLOR", "FORCE_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    with os.fdopen(theirs, "w") as file:
        monkeypatch.setattr(screen, "err", Console(file=file))
        yield
    os.close(ours)


def test_bars_are_drawn_on_terminals_alone(terminal, monkeypatch) -> None:
    assert screen.draws_bars()
    inline = "module://matplotlib_inline.backend_inline"
    for name, value in (("JPY_PARENT_PID", "1"), ("MPLBACKEND", inline)):
        monkeypatch.setenv(name, value)  # as programs have it that a notebook starts
        assert not screen.draws_bars()
        monkeypatch.delenv(name)
    assert screen.draws_bars()
    monkeypatch.setattr(screen, "err", Console(file=io.StringIO(), force_terminal=True))
    assert not screen.draws_bars()


def test_no_bars_on_a_terminal_that_can_not_move(terminal, monkeypatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    assert not screen.draws_bars()


def on_a_terminal(**environment: str) -> str:
    """What a program leaves on one."""
    import pty

    kept = {n: v for n, v in os.environ.items() if n not in ("NO_COLOR", "JPY_PARENT_PID")}
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", SHOW],
        stdout=theirs,
        stderr=theirs,
        env={**kept, "TERM": "xterm-256color", **environment},
    ) as running:
        os.close(theirs)
        shown = b""
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:  # so a terminal says that nobody writes any more
                break
            if not part:
                break
            shown += part
        running.wait(60)
    os.close(ours)
    assert running.returncode == 0, shown
    return shown.decode()


def test_colours_are_off_where_they_are_not_wanted() -> None:
    coloured = r"\x1b\[[0-9;]*(3[0-9]|38;)[0-9;]*m"
    assert re.search(coloured, on_a_terminal())
    shown = on_a_terminal(NO_COLOR="1")
    assert not re.search(coloured, shown)
    assert "3/3" in shown


def following(stderr: str) -> list[str]:
    """The command that is named as the next one."""
    (command,) = re.findall(r"^next: surefoot (.+)$", stderr, re.MULTILINE)
    return shlex.split(command)


def test_each_step_names_the_next_one_in_plain_text(
    surefoot, unchecked, folder: Path, potential: Path, tmp_path: Path, monkeypatch
) -> None:
    """And what it names can be run as it is, also where a name has a space."""
    monkeypatch.chdir(tmp_path)
    spaced = tmp_path / "some frames.xyz"
    ase.io.write(spaced, ase.io.read(folder / "test.xyz", ":8"))
    command = following(surefoot("check", spaced).stderr)
    assert command == ["template", str(spaced), "-o", "config.yaml"]
    command = following(surefoot(*command).stderr)
    assert command == ["train", "config.yaml", "-o", "runs/first"]
    assert Path("config.yaml").exists()
    done = surefoot("evaluate", potential, spaced)
    assert "evaluating 8/8" in done.stderr
    assert "block bootstrap, seed 0]" in done.stdout
    assert not {"\x1b", "\r"} & set(done.stdout + done.stderr)
    command = following(done.stderr)
    done = surefoot(*[str(spaced) if word == "NEW.xyz" else word for word in command])
    assert "predictions.xyz: 8 frames" in done.stdout


def test_a_training_says_its_seed_and_what_judges_it(
    surefoot, folder: Path, tmp_path: Path
) -> None:
    seeded = ("--set", "train.seed=5", "--set", "train.epochs=1")
    done = surefoot("train", folder / "config.yaml", "-o", tmp_path / "run", *seeded)
    assert "seed 5 of weights and data order" in done.stdout
    name = str(tmp_path / "run" / "potential.safetensors")
    assert following(done.stderr) == ["evaluate", name, "TEST.xyz"]


def test_an_interruption_says_how_to_go_on(surefoot, monkeypatch) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt("the same command goes on")

    monkeypatch.setattr(main, "app", interrupted)
    done = surefoot(check=False)
    assert done.returncode == screen.STATUS_INTERRUPTED
    assert done.stderr == "surefoot: interrupted; the same command goes on.\n"
