"""One process writes at a place; what a killed one has left holds nothing."""

import errno
import fcntl
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from surefoot.lock import LOCK, InUse, hold

HOLD = """
import sys, time
from pathlib import Path
from surefoot.lock import hold
with hold(Path(sys.argv[1]), "taken"):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_second_process_is_told_and_a_killed_one_holds_nothing(tmp_path: Path) -> None:
    place = tmp_path / LOCK
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(place)], stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(InUse, match="taken by another"), hold(place, "taken by another"):
            pass
        other.kill()
    assert place.exists()
    with hold(place, "still taken"):
        assert place.exists()
    assert not place.exists()


def test_folders_made_for_a_lock_go_with_it_unless_something_is_in_them(tmp_path: Path) -> None:
    with hold(tmp_path / "a" / "b" / LOCK, "taken"):
        (tmp_path / "a" / "kept.txt").write_text("")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "kept.txt"]


def test_one_of_many_has_it_at_a_time(tmp_path: Path) -> None:
    """Whoever leaves removes the file, and nobody takes a lock on a file that is gone."""
    place, inside, most, had = tmp_path / "run" / LOCK, 0, 0, 0
    counting = threading.Lock()

    def try_often() -> None:
        nonlocal inside, most, had
        for _ in range(200):
            try:
                with hold(place, "taken"):
                    with counting:
                        inside += 1
                        most, had = max(most, inside), had + 1
                    with counting:
                        inside -= 1
            except InUse:
                continue

    threads = [threading.Thread(target=try_often) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert had > 0
    assert not place.exists()


def test_a_file_system_without_locks_is_told_of(tmp_path: Path, monkeypatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.warns(RuntimeWarning, match="knows no locks"), hold(tmp_path / LOCK, "taken"):
        pass


def test_a_link_is_no_lock(tmp_path: Path) -> None:
    (tmp_path / LOCK).symlink_to(tmp_path / "nowhere" / "far")
    with pytest.raises(OSError, match="symbolic links"), hold(tmp_path / LOCK, "taken"):
        pass


@pytest.mark.parametrize("readable", [True, False])
def test_a_lock_that_another_user_has_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, readable: bool
) -> None:
    place, before = tmp_path / LOCK, os.open
    place.touch()

    def of_another(path: Path, flags: int, *rest: int) -> int:
        if flags & os.O_RDWR or not readable:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return before(path, flags, *rest)

    monkeypatch.setattr("surefoot.lock.os.open", of_another)
    if readable:
        with hold(place, "taken"), pytest.raises(InUse), hold(place, "taken"):
            pass
    else:
        with pytest.raises(PermissionError, match="remove it if no run"), hold(place, "taken"):
            pass
