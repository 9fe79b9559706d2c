"""What a relaxation has done comes back, torn lines are cut off, damaged ones are told."""

import json
from pathlib import Path

import pytest

from surefoot.relax.journal import RESULT, begin_journal, open_journal
from surefoot.sealed import CHECK
from surefoot.train.checkpoint import RefusedFile

SAME = {"settings": {"fmax": 0.02}}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    journal = begin_journal(tmp_path / "out.xyz.journal", SAME, over=False)
    for number in range(3):
        journal.add(RESULT, number, f"structure {number}\n")
    return journal.path


def test_a_torn_line_is_done_again(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])
    journal, over = open_journal(path, SAME)
    assert (journal.done, over) == ({0, 1}, False)
    journal.add(RESULT, 2, "once more")
    again, _ = open_journal(path, SAME)
    assert list(again.texts(RESULT)) == ["structure 0\n", "structure 1\n", "once more"]


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (b"structure 1", b"structure 7", "line 3: it is damaged"),
        (b"structure 2", b"structure \xff", "line 4: it is damaged"),
        (b'"number": 0', b'"number": 1', "line 2: it is damaged"),
        (b'"over": false', b'"over": 1e999', "no journal of a relaxation"),
        (b"settings", b"\xb0ettings", "no journal of a relaxation"),
    ],
)
def test_a_damaged_line_is_told(path: Path, before: bytes, after: bytes, words: str) -> None:
    content = path.read_bytes()
    assert before in content
    path.write_bytes(content.replace(before, after))
    with pytest.raises(RefusedFile, match=words):
        open_journal(path, SAME)
    path.write_bytes(content)
    assert open_journal(path, SAME)[0].done == {0, 1, 2}


def test_a_journal_of_an_older_version_goes_on(path: Path) -> None:
    """Its lines have no checksums."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        del line[CHECK]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    journal, _ = open_journal(path, SAME)
    journal.add(RESULT, 3, "of this version")
    assert open_journal(path, SAME)[0].done == {0, 1, 2, 3}
    content = path.read_bytes()
    path.write_bytes(content.replace(b"this version", b"that version"))
    with pytest.raises(RefusedFile, match="line 5: it is damaged"):
        open_journal(path, SAME)


def test_outputs_that_are_its_own_are_written_over(path: Path) -> None:
    journal, _ = open_journal(path, SAME)
    journal.begin_outputs()
    assert open_journal(path, SAME)[1]
