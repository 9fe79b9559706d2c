"""The tutorials run as they stand, and print what they say they print."""

from __future__ import annotations

import ast
import contextlib
import io
import os
import re
import runpy
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

from surefoot.cli import screen

TUTORIALS = Path(__file__).parents[2] / "docs" / "tutorials"
FIRST = "first"
"""What all others go on from."""
SLOW = "learning"
OTHERS = ("error_bars", "motion", SLOW, "notebook")
BLOCK = re.compile(
    r'^```(?P<kind>\w+)(?: title="(?P<file>[^"]+)")?\n(?P<text>.*?)^```$', re.DOTALL | re.MULTILINE
)
NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?")
FRAME = re.compile(r"[│┃]")


@dataclass
class Workshop:
    """A folder in which tutorials are run, in order, as a reader would."""

    folder: Path
    surefoot: object
    done: set[str] = field(default_factory=set)

    def run(self, name: str) -> None:
        """Each block: a file, commands, lines of Python, or what they print."""
        self.done.add(name)
        names: dict[str, object] = {}
        printed = ""
        for block in BLOCK.finditer((TUTORIALS / f"{name}.md").read_text()):
            kind, file, text = block["kind"], block["file"], block["text"]
            if file:
                Path(file).write_text(text)
            elif kind == "bash":
                printed = "".join(map(self.command, text.replace("\\\n", "").splitlines()))
            elif kind == "python":
                printed = run_cell(text, names)
            else:
                assert kind == "text", kind
                assert_printed(text, printed)

    def command(self, line: str) -> str:
        program, *words = shlex.split(line)
        if program == "python":
            runpy.run_path(words[0], run_name="__main__")
            return ""
        assert program == "surefoot", line
        done = self.surefoot(*words)  # type: ignore[operator]
        return done.stderr + done.stdout


def run_cell(text: str, names: dict[str, object]) -> str:
    """What a cell of a notebook prints; its last value has to show itself if it is not None."""
    tree, out = ast.parse(text), io.StringIO()
    last = tree.body[-1]
    shown = ast.Expression(tree.body.pop().value) if isinstance(last, ast.Expr) else None
    with contextlib.redirect_stdout(out):
        exec(compile(tree, "cell", "exec"), names)  # noqa: S102  our own pages
        value = None if shown is None else eval(compile(shown, "cell", "eval"), names)  # noqa: S307
    assert value is None or value._repr_html_()
    return out.getvalue()


def skeleton(line: str) -> str:
    """A line without its numbers, which machines may round differently, and without its frame."""
    return " ".join(NUMBER.sub("#", FRAME.sub("|", line)).split())


def assert_printed(text: str, printed: str) -> None:
    """Lines of a page are among what was printed, but for their numbers."""
    lines = [skeleton(line) for line in printed.splitlines()]
    for line in text.splitlines():
        assert skeleton(line) in lines, f"{line}\n\nis not among\n\n{printed}"


@pytest.fixture(scope="module")
def workshop(surefoot, tmp_path_factory) -> Iterator[Workshop]:
    before = Path.cwd()
    folder = tmp_path_factory.mktemp("tutorials")
    os.chdir(folder)
    yield Workshop(folder, surefoot)
    os.chdir(before)


@pytest.fixture
def first(workshop: Workshop, unchecked, monkeypatch) -> Workshop:
    """The folder after the first tutorial."""
    monkeypatch.setattr(screen, "PLAIN_LOG_SECONDS", 0.0)
    monkeypatch.setattr(screen.out, "width", screen.FILE_WIDTH)  # whatever COLUMNS was here
    if FIRST not in workshop.done:
        workshop.run(FIRST)
        assert torch.get_num_threads() == 1
    return workshop


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name == SLOW)) for name in OTHERS]
)
def test_tutorial_runs_as_it_stands(first: Workshop, name: str) -> None:
    first.run(name)


def test_every_tutorial_is_run() -> None:
    assert {page.stem for page in TUTORIALS.glob("*.md")} == {FIRST, *OTHERS}


def test_what_a_page_says_has_to_be_printed() -> None:
    assert_printed("a 1.5 ± 2 eV\n", "x\na  10.25 ± 3 eV\n")
    with pytest.raises(AssertionError, match="is not among"):
        assert_printed("a 1.5 eV", "b 1.5 eV")
