"""Help comes at once and mentions every verb."""

import re
import subprocess
import sys
import warnings
from dataclasses import fields

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


def test_version(surefoot) -> None:
    assert surefoot("--version").stdout.startswith("surefoot ")


@pytest.mark.parametrize("verb", ["check", "calibrate", "evaluate", "compare", "report", "predict"])
def test_verbs_that_read_labels_share_their_options(surefoot, verb: str) -> None:
    text = surefoot(verb, "--help").stdout
    for option in fields(LabelOptions):
        assert f"--{option.name.replace('_', '-')} " in text
    assert "labels" not in re.findall(r"--([a-z-]+)", text)
