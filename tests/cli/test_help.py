"""Help comes at once and mentions every verb."""

import os
import re
import resource
import subprocess
import sys
import warnings
from dataclasses import fields
from pathlib import Path

import pytest

from surefoot.cli import main
from surefoot.cli.options import LabelOptions

VERBS = (
    "template",
    "label",
    "check",
    "train",
    "combine",
    "calibrate",
    "evaluate",
    "compare",
    "report",
    "doctor-env",
    "predict",
    "relax",
    "md",
    "barrier",
    "hat",
)


def test_help_names_all_verbs(surefoot) -> None:
    text = surefoot("--help").stdout
    assert all(verb in text for verb in VERBS)


def test_the_list_of_verbs_is_not_cut_short(surefoot) -> None:
    assert "..." not in surefoot("--help").stdout.partition("Commands:")[2]


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_has_help(surefoot, verb: str) -> None:
    assert "Usage" in surefoot(verb, "--help").stdout


def test_help_needs_no_heavy_import() -> None:
    code = (
        "import sys, surefoot.cli.main; "
        "print([m for m in ('torch', 'numpy', 'ase', 'pydantic', 'rich') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = set(eval(done.stdout))  # noqa: S307 - our own list
    assert not heavy & {"torch", "numpy", "ase"}


def test_warnings_of_the_package_are_sentences(surefoot, monkeypatch) -> None:
    """Those of other packages stay as they are."""
    shown: list[str] = []

    def show(message: Warning, *_: object) -> None:
        shown.append(str(message))

    def warn() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn_explicit("ours", RuntimeWarning, main.__file__, 51)
            warnings.warn_explicit("of torch", RuntimeWarning, "/torch/functional.py", 51)

    monkeypatch.setattr(main, "app", warn)
    monkeypatch.setattr(warnings, "showwarning", show)
    assert surefoot().stderr == "surefoot: ours\n"
    assert shown == ["of torch"]
    assert warnings.showwarning is show


def test_help_takes_half_a_second_of_processor_time() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, "-m", "surefoot", "--help"], capture_output=True, check=True, timeout=60
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5


OFFERED = {
    "surefoot eva": ["evaluate"],
    "surefoot hat ''": ["build", "candidates", "recipes", "sample", "scan"],
    "surefoot train --re": ["--resume"],
}
"""What is typed → what the shell offers."""


def test_completion_is_installed_and_works_in_a_shell(tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("surefoot")
    environment = os.environ | {
        "HOME": str(tmp_path),
        "PATH": f"{program.parent}:{os.environ['PATH']}",
        "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1",  # no shell stands above the tests
    }
    asked = "surefoot --install-completion bash; source ~/.bashrc\n" + "".join(
        f"COMP_WORDS=({typed}); COMP_CWORD={typed.count(' ')}; "
        '_surefoot_completion surefoot; echo "${COMPREPLY[@]}"\n'
        for typed in OFFERED
    )
    done = subprocess.run(
        ["bash", "-c", asked],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
        timeout=60,
    )
    first, _, *lines = done.stdout.splitlines()
    assert first.startswith("bash completion installed in")
    assert [line.split() for line in lines if line] == list(OFFERED.values())


def test_version(surefoot) -> None:
    assert surefoot("--version").stdout.startswith("surefoot ")


@pytest.mark.parametrize("verb", ["check", "calibrate", "evaluate", "compare", "report", "predict"])
def test_verbs_that_read_labels_share_their_options(surefoot, verb: str) -> None:
    text = surefoot(verb, "--help").stdout
    for option in fields(LabelOptions):
        assert f"--{option.name.replace('_', '-')} " in text
    assert "labels" not in re.findall(r"--([a-z-]+)", text)
