import os
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms

from surefoot.label.journal import Journal, content_hash
from surefoot.label.labeler import Labels

LABELS = Labels(-1 / 3, np.array([[0.1, -2 / 7, 1e-17]]), 0.75 + 1 / 7)


def test_records_come_back_bit_by_bit(tmp_path: Path) -> None:
    with Journal(tmp_path / "j") as journal:
        journal.append("a", LABELS)
        assert "a" in journal
    with Journal(tmp_path / "j") as journal:
        assert journal["a"].energy == LABELS.energy
        np.testing.assert_array_equal(journal["a"].forces, LABELS.forces)
        assert journal["a"].spin_squared == LABELS.spin_squared
        assert "b" not in journal
        assert len(journal) == 1


def test_failures_come_back_until_there_is_a_label(tmp_path: Path) -> None:
    with Journal(tmp_path / "j") as journal:
        journal.append_failure("a", "no way", 1.5)
        journal.append_failure("b", "none either")
        journal.append("b", LABELS, 0.5)
        assert (journal.reason("a"), journal.reason("b")) == ("no way", None)
    with Journal(tmp_path / "j") as journal:
        assert (journal.reason("a"), journal.reason("b")) == ("no way", None)
        assert "a" not in journal
        assert "b" in journal
    assert '"seconds": 1.5' in (tmp_path / "j").read_text()


def test_two_runs_do_not_share_a_journal(tmp_path: Path) -> None:
    with (
        Journal(tmp_path / "j"),
        pytest.raises(ValueError, match="another run is writing labels here"),
    ):
        Journal(tmp_path / "j")
    with Journal(tmp_path / "j"):
        pass  # the lock went with the first run


@pytest.mark.parametrize("torn", [1, 20, -1])
def test_a_torn_last_line_is_cut_off(tmp_path: Path, torn: int) -> None:
    path = tmp_path / "j"
    with Journal(path) as journal:
        journal.append("a", LABELS)
        whole = path.read_bytes()
        journal.append("b", LABELS)
    rest = path.read_bytes()[len(whole) :]
    path.write_bytes(whole + rest[:torn])
    with Journal(path) as journal:
        assert len(journal) == 1
        journal.append("c", LABELS)
    with Journal(path) as journal:
        assert "a" in journal
        assert "c" in journal
        assert len(journal) == 2


@pytest.mark.parametrize("line", ["nonsense", '{"key": "x"}', "[1, 2]"])
def test_damage_elsewhere_is_an_error_with_its_line(tmp_path: Path, line: str) -> None:
    path = tmp_path / "j"
    with Journal(path) as journal:
        journal.append("a", LABELS)
    path.write_text(path.read_text() + line + "\n" + path.read_text())
    with pytest.raises(ValueError, match="line 2: this is no record"):
        Journal(path)


def test_a_changed_digit_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "j"
    with Journal(path) as journal:
        journal.append("a", LABELS)
    text = path.read_text()
    assert '"energy": -0.3' in text
    path.write_text(text.replace('"energy": -0.3', '"energy": -0.7'))
    with pytest.raises(ValueError, match=r"line 1: .* does not match its checksum"):
        Journal(path)


def test_lines_of_older_versions_have_no_checksum_and_stand_before_those_that_have(
    tmp_path: Path,
) -> None:
    path = tmp_path / "j"
    path.write_text('{"key": "a", "failed": "no way"}\n')
    with Journal(path) as journal:
        journal.append("b", LABELS)
    with Journal(path) as journal:
        assert journal.reason("a") == "no way"
        assert "b" in journal
    path.write_text(path.read_text() + '{"key": "c", "failed": "no way"}\n')
    with pytest.raises(ValueError, match=r"line 3: .* no checksum"):
        Journal(path)


def test_a_full_disk_leaves_no_half_of_a_line(tmp_path: Path, monkeypatch) -> None:
    path, write = tmp_path / "j", os.write
    with Journal(path) as journal:
        journal.append("a", LABELS)
        with monkeypatch.context() as full:
            full.setattr(os, "write", lambda handle, line: write(handle, line[:10]))
            with pytest.raises(OSError, match="is the disk full"):
                journal.append("b", LABELS)
        journal.append("c", LABELS)
    with Journal(path) as journal:
        assert "c" in journal
        assert "b" not in journal


def test_the_hash_sees_all_that_decides_the_labels() -> None:
    atoms = Atoms("CO", [[0, 0, 0], [0, 0, 1.1]])
    hashes = [content_hash(atoms, 0, 1, {"a": 1})]
    hashes += [
        content_hash(atoms, 1, 1, {"a": 1}),
        content_hash(atoms, 0, 3, {"a": 1}),
        content_hash(atoms, 0, 1, {"a": 2}),
    ]
    for change in ("positions", "numbers", "cell", "pbc"):
        other = atoms.copy()
        getattr(other, change)[0] = 7 if change != "pbc" else True
        hashes.append(content_hash(other, 0, 1, {"a": 1}))
    assert len(set(hashes)) == len(hashes)


def test_the_hash_ignores_names_and_the_sign_of_zero() -> None:
    atoms = Atoms("H", [[0.0, 0.0, 0.0]])
    other = Atoms("H", [[-0.0, 0.0, 0.0]], info={"name": "x"})
    assert content_hash(atoms, 0, 2, {}) == content_hash(other, 0, 2, {})
