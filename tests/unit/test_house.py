"""The house keeps its shape: short files, no rooms without a subject."""

from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src" / "surefoot"
LONG: dict[str, str] = {}  # file → why it may be longer than 400 lines
NAMELESS = {"utils", "common", "tools", "helpers", "misc", "base", "manager", "handler", "wrapper"}


def test_files_stay_short() -> None:
    for path in SOURCE.rglob("*.py"):
        lines = len(path.read_text().splitlines())
        assert lines <= 400 or path.name in LONG, f"{path.name} has {lines} lines"


def test_every_room_has_a_subject() -> None:
    assert not NAMELESS & {path.stem for path in SOURCE.rglob("*")}


def test_every_room_says_what_it_is() -> None:
    for path in SOURCE.rglob("*.py"):
        assert path.read_text().lstrip().startswith('"""'), path.name
