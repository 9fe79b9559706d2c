"""Building, keeping and sharing the kernels. Compilers here are scripts: real ones take long."""

import _thread
import hashlib
import os
import shlex
import shutil
import signal
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from surefoot.blocks import native
from surefoot.blocks.contraction import contract, contraction
from surefoot.blocks.couplings import Irrep
from surefoot.blocks.native import (
    address,
    cache_folder,
    describe_form,
    kernels,
    plain_only,
    share,
)
from surefoot.graph import find_kinds

FAKE = """\
import shutil, sys, time
from pathlib import Path
if "--version" in sys.argv:
    print("fake {version}")
    sys.exit()
with Path("{log}").open("a") as log:
    log.write("built\\n")
{action}
"""
COPY = "time.sleep({wait}); shutil.copy('{ready}', sys.argv[sys.argv.index('-o') + 1])"
FAIL = "print('kernels.c:1: no such thing', 'second line', sep='\\n', file=sys.stderr); sys.exit(1)"


@dataclass(frozen=True)
class Compiler:
    """A script in place of a compiler, and how often it was asked to build."""

    command: str
    log: Path

    @property
    def builds(self) -> int:
        return len(self.log.read_text().splitlines()) if self.log.exists() else 0


@pytest.fixture
def ready() -> str:
    """Path of a finished library, built by the real compiler."""
    library = kernels(torch.zeros(1, dtype=torch.float64))
    if library is None:
        pytest.skip("there is no C compiler.")
    return library._name


@pytest.fixture(autouse=True)
def _fresh(ready, monkeypatch, tmp_path):
    """Nothing built, nothing loaded, and nothing of it left behind."""
    native._library.cache_clear()
    native._say_plain.cache_clear()
    monkeypatch.setenv("SUREFOOT_CACHE", str(tmp_path / "cache"))
    yield
    native._library.cache_clear()
    native._say_plain.cache_clear()


def make_compiler(folder: Path, action: str, version: str = "1") -> Compiler:
    log, script = folder / f"log{version}", folder / f"compiler{version}.py"
    script.write_text(FAKE.format(version=version, log=log, action=action))
    return Compiler(f"{sys.executable} -S {script}", log)


@pytest.fixture
def working(ready, monkeypatch, tmp_path) -> Compiler:
    compiler = make_compiler(tmp_path, COPY.format(wait=0, ready=ready))
    monkeypatch.setenv("CC", compiler.command)
    return compiler


def load() -> object:
    return kernels(torch.zeros(1, dtype=torch.float64))


def forget() -> None:
    """As in a new process: nothing loaded, nothing said."""
    native._library.cache_clear()
    native._say_plain.cache_clear()


def contracted() -> torch.Tensor:
    """Something that a caller of the kernels computes."""
    irreps = (Irrep(0, 1), Irrep(1, -1))
    plan = contraction(irreps, irreps, 2)
    generator = torch.Generator().manual_seed(1)
    features = torch.randn((3, 4, 5), generator=generator, dtype=torch.float64)
    weights = torch.randn((2, plan.path_count, 5), generator=generator, dtype=torch.float64)
    return contract(features, weights, find_kinds(torch.tensor([1, 0, 1])), plan)


def kept() -> list[str]:
    folder = cache_folder()
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_without_a_compiler_the_plain_form_computes_and_says_so_once(monkeypatch, tmp_path) -> None:
    with plain_only():
        expected = contracted()
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.warns(RuntimeWarning, match="no C compiler was found .* slower, in plain torch"):
        found = contracted()
    assert torch.equal(found, expected)
    assert torch.equal(contracted(), expected)  # a second warning would be an error
    assert load() is None


def test_a_broken_compiler_is_named_with_its_first_complaint(monkeypatch, tmp_path) -> None:
    compiler = make_compiler(tmp_path, FAIL)
    monkeypatch.setenv("CC", compiler.command)
    with pytest.warns(RuntimeWarning, match=r"could not build .*\(kernels\.c:1: no such thing\)"):
        assert load() is None
    assert load() is None
    assert compiler.builds == 1
    assert kept() == []


def test_a_compiler_that_is_not_there(monkeypatch) -> None:
    monkeypatch.setenv("CC", "no-such-compiler-at-all")
    with pytest.warns(RuntimeWarning, match="no-such-compiler-at-all could not build"):
        assert load() is None


def test_a_compiler_that_never_ends(ready, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(native, "COMPILER_LIMIT", 1.0)
    compiler = make_compiler(tmp_path, COPY.format(wait=60, ready=ready))
    monkeypatch.setenv("CC", compiler.command)
    with pytest.warns(RuntimeWarning, match="timed out"):
        assert load() is None
    assert kept() == []


def test_a_library_that_cannot_be_loaded(monkeypatch, tmp_path) -> None:
    text = "Path(sys.argv[sys.argv.index('-o') + 1]).write_text('no library')"
    monkeypatch.setenv("CC", make_compiler(tmp_path, text).command)
    compiler = make_compiler(tmp_path, text)
    monkeypatch.setenv("CC", compiler.command)
    with pytest.warns(RuntimeWarning, match=r"the kernels that .* built can not be loaded \("):
        assert load() is None
    assert compiler.builds == 1


def test_a_library_that_was_cut_off_is_built_once_more(working) -> None:
    """Loading it would end the process, without an error."""
    load()
    (path,) = cache_folder().iterdir()
    whole = path.read_bytes()
    for broken in (whole[: len(whole) // 2], b"", whole[:-1] + b"x"):
        path.unlink()  # not written over: it is loaded
        path.write_bytes(broken)
        forget()
        assert load() is not None
        assert path.read_bytes() == whole
    assert working.builds == 4
    assert len(kept()) == 1


def test_a_library_that_cannot_be_loaded_here_is_built_once_more(working, ready) -> None:
    """Whole, but as of a system with other libraries."""
    load()
    (path,) = cache_folder().iterdir()
    path.unlink()
    foreign = b"of another system"
    name = path.stem.rpartition("-")[0]
    other = path.with_name(f"{name}-{hashlib.sha256(foreign).hexdigest()[:20]}.so")
    other.write_bytes(foreign)
    other.chmod(0o755)
    forget()
    assert load() is not None
    assert working.builds == 2
    assert kept() == [path.name]


@pytest.mark.parametrize("what", ["folder", "file"])
def test_a_library_that_others_could_write_is_not_loaded(what, working) -> None:
    load()
    (path,) = cache_folder().iterdir()
    target = path if what == "file" else cache_folder()
    for mode in (0o775, 0o757):
        target.chmod(mode)
        forget()
        with pytest.warns(RuntimeWarning, match=rf"`chmod go-w {target}`\), or .* plain torch"):
            assert load() is None
    target.chmod(0o755)
    forget()
    assert load() is not None
    assert working.builds == 1


def test_a_library_of_another_user_is_not_loaded(working, monkeypatch) -> None:
    load()
    real = Path.stat

    def stat(path: Path, **options: bool) -> os.stat_result:
        found = real(path, **options)
        strange = path == cache_folder()
        return os.stat_result([*found[:4], 4711, *found[5:10]]) if strange else found

    monkeypatch.setattr(Path, "stat", stat)
    forget()
    with pytest.warns(RuntimeWarning, match="which other users may write to"):
        assert load() is None


def test_a_compiler_that_does_not_know_the_processor(ready, monkeypatch, tmp_path) -> None:
    refuse = (
        "if '-march=native' in sys.argv:\n"
        "    sys.exit(\"error: unsupported argument 'native' to option '-march='\")\n"
    )
    compiler = make_compiler(tmp_path, refuse + COPY.format(wait=0, ready=ready))
    monkeypatch.setenv("CC", compiler.command)
    assert load() is not None
    assert compiler.builds == 2
    names = kept()
    forget()
    assert load() is not None
    assert compiler.builds == 3  # asked again, since it may have learnt it; the library is kept
    assert kept() == names
    with_it = make_compiler(tmp_path, COPY.format(wait=0, ready=ready))
    monkeypatch.setenv("CC", with_it.command)
    forget()
    load()
    assert len(kept()) == 2  # the flag is part of the name


def test_the_second_load_builds_nothing(working) -> None:
    first = load()
    forget()
    second = load()
    assert first is not None
    assert second is not None
    assert working.builds == 1
    assert len(kept()) == 1


def test_another_compiler_builds_another_library(working, ready, monkeypatch, tmp_path) -> None:
    load()
    newer = make_compiler(tmp_path, COPY.format(wait=0, ready=ready), version="2")
    monkeypatch.setenv("CC", newer.command)
    forget()
    load()
    assert (working.builds, newer.builds) == (1, 1)
    assert len(kept()) == 2


@pytest.mark.parametrize("changed", ["SOURCES", "FLAGS", "processor", "precision"])
def test_the_name_of_a_library_holds_all_it_depends_on(changed, working, monkeypatch) -> None:
    native._load(working.command, "double")
    before = kept()
    if changed == "SOURCES":
        monkeypatch.setattr(native, "SOURCES", native.SOURCES[:-1])
    elif changed == "FLAGS":
        monkeypatch.setattr(native, "FLAGS", (*native.FLAGS, "-g"))
    elif changed == "processor":
        monkeypatch.setattr(native, "_processor", lambda: "another")
    precision = "float" if changed == "precision" else "double"
    native._load(working.command, precision)
    assert working.builds == 2
    assert len({*before, *kept()}) == 2


def test_two_builds_at_once_end_with_one_good_library(ready, tmp_path) -> None:
    """As two processes do it: they share nothing but the folder."""
    compiler = make_compiler(tmp_path, COPY.format(wait=0.3, ready=ready))
    barrier = threading.Barrier(2)

    def build(_: int) -> Path:
        barrier.wait()
        return Path(native._load(compiler.command, "double")._name)

    with ThreadPoolExecutor(2) as pool:
        paths = set(pool.map(build, range(2)))
    assert compiler.builds == 2
    assert [path.name for path in paths] == kept()
    assert paths.pop().read_bytes() == Path(ready).read_bytes()


def test_threads_of_one_process_build_once(working) -> None:
    with ThreadPoolExecutor(4) as pool:
        libraries = set(pool.map(lambda _: id(load()), range(4)))
    assert len(libraries) == 1
    assert working.builds == 1


def test_where_libraries_are_kept(monkeypatch, tmp_path) -> None:
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("SUREFOOT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "surefoot"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert cache_folder() == tmp_path / ".cache" / "surefoot"


def test_a_folder_that_cannot_be_written_to(working, monkeypatch, tmp_path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SUREFOOT_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.warns(RuntimeWarning, match="file/cache cannot be written to.* SUREFOOT_CACHE may"):
        assert load() is None


def test_nobody_home(working, monkeypatch) -> None:
    monkeypatch.delenv("SUREFOOT_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)

    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nowhere)
    with pytest.warns(RuntimeWarning, match="home directory"):
        assert load() is None


def test_what_the_kernels_are_for() -> None:
    single, double = torch.zeros(1), torch.zeros(1, dtype=torch.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert kernels(double.half()) is None
        assert kernels(double, single) is None
        assert kernels(double.long()) is None
        assert kernels(torch.zeros(1, dtype=torch.float64, device="meta")) is None


def test_plain_only_ends_with_its_block(working) -> None:
    def fail() -> None:
        with plain_only():
            assert load() is None
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert load() is not None


def test_plain_only_ends_with_the_last_of_blocks_that_overlap(working) -> None:
    """As two threads have them: the first to begin is the first to end."""
    first, second = plain_only(), plain_only()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert native.plainly()
    assert load() is None
    second.__exit__(None, None, None)
    assert not native.plainly()
    assert load() is not None


def test_folders_are_the_users_own_whatever_the_mask(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("SUREFOOT_CACHE", str(tmp_path / "new" / "cache"))
    before = os.umask(0o002)
    try:
        folder = native.open_cache("compiled")
    finally:
        os.umask(before)
    assert folder == cache_folder() / "compiled"
    for place in (folder, cache_folder()):
        assert place.stat().st_mode & 0o777 == 0o700


def test_address() -> None:
    values = torch.arange(12.0).reshape(3, 4)
    assert address(values).value == values.data_ptr()
    assert address(values[1]).value == values.data_ptr() + 16
    assert address(None).value is None
    for wrong in (values.T, values.half(), values.int(), values.bool()):
        with pytest.raises(ValueError, match="a kernel was given a tensor"):
            address(wrong)


@pytest.mark.parametrize(
    ("threads", "count", "least", "expected"),
    [
        (1, 100, 1, [(0, 100)]),
        (2, 100, 60, [(0, 100)]),
        (2, 101, 50, [(0, 50), (50, 101)]),
        (3, 10, 3, [(0, 3), (3, 6), (6, 10)]),
        (3, 5, 2, [(0, 2), (2, 5)]),
        (2, 0, 1, [(0, 0)]),
        (2, 4, 0, [(0, 2), (2, 4)]),
    ],
)
def test_share_takes_every_item_once(threads, count, least, expected) -> None:
    ranges: list[tuple[int, int]] = []
    torch.set_num_threads(threads)
    try:
        share(count, least, lambda begin, end: ranges.append((begin, end)))
    finally:
        torch.set_num_threads(1)
    assert sorted(ranges) == expected


def test_share_runs_at_the_same_time_and_passes_errors_on() -> None:
    barrier = threading.Barrier(2, timeout=20)

    def meet(begin: int, end: int) -> None:
        barrier.wait()

    def fail(begin: int, end: int) -> None:
        barrier.wait()
        if begin:
            raise KeyError(begin)

    torch.set_num_threads(2)
    try:
        share(8, 1, meet)
        with pytest.raises(KeyError, match="4"):
            share(8, 1, fail)
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize("when", ["in its own part", "while it waits"])
def test_an_interrupted_share_waits_for_the_other_parts(when) -> None:
    """They write to memory that is freed when the caller leaves."""
    done = threading.Event()
    begun = threading.Event()

    def work(begin: int, end: int) -> None:
        if begin:
            begun.set()
            if when == "while it waits":
                time.sleep(0.1)
                _thread.interrupt_main()
            time.sleep(0.3)
            done.set()
            return
        assert begun.wait(20)
        if when == "in its own part":
            raise KeyboardInterrupt

    # A process in the background may ignore SIGINT.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(2)
    try:
        with pytest.raises(KeyboardInterrupt):
            share(8, 1, work)
        assert done.is_set()
    finally:
        signal.signal(signal.SIGINT, before)
        torch.set_num_threads(1)


def test_the_form_is_named_with_the_sources_of_kernels(working, monkeypatch) -> None:
    with plain_only():
        assert describe_form(torch.float64) == "plain torch"
    form = describe_form(torch.float64)
    assert form.startswith("kernels ")
    monkeypatch.setattr(native, "SOURCES", native.SOURCES[:-1])
    assert describe_form(torch.float64) != form


def test_every_source_is_named() -> None:
    """What is not in the digest could change without a new build."""
    folder = Path(native.__file__).parent
    assert {path.name for path in folder.iterdir() if path.suffix in (".c", ".h")} == set(
        native.SOURCES
    )


@pytest.mark.slow
def test_a_real_compiler(monkeypatch, tmp_path) -> None:
    """Short flags, since only the build is asked for; a name with a space comes as two words."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    assert compiler is not None
    monkeypatch.setenv("CC", f"{shlex.quote(compiler)} -w")
    monkeypatch.setattr(native, "FLAGS", ("-O0", "-shared", "-fPIC"))
    with plain_only():
        expected = contracted()
    torch.testing.assert_close(contracted(), expected, rtol=1e-12, atol=1e-12)
    assert len(kept()) == 1
