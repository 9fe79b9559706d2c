"""Tell what surefoot finds on this machine: versions, threads, compiler, and what is slow."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

NEEDED = ("torch", "numpy", "scipy", "ase", "h5py", "vesin", "pydantic", "safetensors", "jaxtyping")
PURPOSES = {
    "tblite": "labels by GFN1-xTB and GFN2-xTB",
    "pyscf": "labels by density functional theory",
    "rdkit": "molecules from SMILES, and hydrogen transfers",
    "biotite": "frames and trajectories of proteins",
    "distributed": "`surefoot learn` on many machines",
    "dask_jobqueue": "`surefoot learn` through a queue such as Slurm",
    "tensorboard": "event files of a training (`train: {log: tensorboard}`)",
}
"""Optional package → what it is for; `screen.EXTRAS` says which extra installs it."""
PROGRAMS = {"xtb": "labels by that program (`surefoot label --labeler xtb_program`)"}
LARGE_CACHE = 2**31  # bytes
BUSY = 1.0  # load per usable core, without this process


@dataclass(frozen=True, kw_only=True)
class Advice:
    """What is slow or missing, and what to do.

    Attributes:
        about: its name, for scripts.
        sentence: for people.
    """

    about: str
    sentence: str


def run(
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON instead of tables.")] = False,
) -> None:
    import json

    from surefoot.cli.screen import say, show_table

    found = look()
    advice = advise(found)
    if as_json:
        typer.echo(json.dumps(found | {"advice": [asdict(one) for one in advice]}, indent=2))
        return
    show_table("Programs", ["program", "version", "for"], _package_rows(found))
    rows = [[_name(name), _tell(value)] for name, value in found["machine"].items()]
    rows += [[f"{part}, {_name(name)}", _tell(value)]
             for part in ("threads", "compiler", "kernels", "cache")
             for name, value in found[part].items()]  # fmt: skip
    show_table("Machine", ["what", "found"], rows)
    for one in advice:
        say(f"[{one.about}] {one.sentence}")
    if not advice:
        say("nothing is slow or missing")


def look() -> dict[str, Any]:
    """Everything that is found, as plain values: packages, machine, threads, compiler, cache."""
    import platform
    import shutil

    import torch

    from surefoot import __version__
    from surefoot.cli.screen import EXTRAS
    from surefoot.memory import keep_memory

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "surefoot": __version__,
        "packages": {name: _version(name) for name in NEEDED},
        "extras": {
            name: {"extra": EXTRAS[name], "for": purpose, "version": _version(name)}
            for name, purpose in PURPOSES.items()
        },
        "programs": {name: shutil.which(name) for name in PROGRAMS},
        "machine": {
            "python": platform.python_version(),
            "platform": platform.platform(),
            "processor": _processor(),
            "memory_GiB": _memory(),
            "freed_memory_is_kept": keep_memory(),
            "gpu": gpu,
        },
        "threads": {
            "cores": os.cpu_count(),
            "cores_usable": usable_cores(),
            "torch": torch.get_num_threads(),
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS"),
            "load_per_core": _load(),
        },
        "compiler": _look_for_compilers(),
        "kernels": _look_for_kernels(),
        "cache": _look_into_cache(),
    }


def advise(found: dict[str, Any]) -> list[Advice]:
    """What is slow or missing in what `look` found, each with the sentence of what to do."""
    compiler, kernels, cache = found["compiler"], found["kernels"], found["cache"]
    advice = []
    if compiler["c"] is None:
        advice.append(
            (
                "compiler",
                "there is no C compiler, so equivariant models run slower, in "
                "plain torch; install gcc or clang, or name one by the variable CC.",
            )
        )
    elif kernels["reason"] is not None or "plain torch" in kernels.values():
        reason = f" ({kernels['reason']})" if kernels["reason"] else ""
        advice.append(
            (
                "kernels",
                f"the kernels can not be used{reason}, so equivariant models run "
                "slower, in plain torch; mend that, or name another compiler by CC or "
                "another folder by SUREFOOT_CACHE.",
            )
        )
    if compiler["c++"] is None:
        advice.append(
            (
                "compile",
                "there is no C++ compiler, which torch needs for `--compile` and "
                "compiled training; install g++ or clang++, or set `train: {compile: off}`.",
            )
        )
    advice += _advise_threads(found["threads"])
    if found["machine"]["gpu"] is not None:
        advice.append(
            (
                "gpu",
                f"there is a GPU ({found['machine']['gpu']}), which is not used: this "
                "version computes on the CPU.",
            )
        )
    if not found["machine"]["freed_memory_is_kept"]:
        advice.append(
            (
                "memory",
                "the C library gives freed memory back each time, which costs some "
                "time for thousands of atoms; glibc keeps it.",
            )
        )
    if cache["bytes"] > LARGE_CACHE:
        advice.append(
            (
                "cache",
                f"{cache['folder']} holds {cache['bytes'] / 2**30:.1f} GiB; what is "
                "in it is made anew when it is needed, so it may be removed.",
            )
        )
    for name, one in found["extras"].items():
        if one["version"] is None:
            advice.append(
                (
                    name,
                    f"{name} is missing, for {one['for']}; where you need that, "
                    f"`pip install 'surefoot[{one['extra']}]'`.",
                )
            )
    advice += [
        (name, f"the program {name} is not on the PATH; it is for {purpose}.")
        for name, purpose in PROGRAMS.items()
        if found["programs"][name] is None
    ]
    return [Advice(about=about, sentence=sentence) for about, sentence in advice]  # fmt: skip


def _advise_threads(threads: dict[str, Any]) -> list[tuple[str, str]]:
    usable, used, load = threads["cores_usable"], threads["torch"], threads["load_per_core"]
    advice = []
    if used < usable:
        why = "OMP_NUM_THREADS says so" if threads["OMP_NUM_THREADS"] else "torch chose so"
        advice.append(
            (
                "threads",
                f"torch uses {used} of {usable} cores, since {why}; unset it or "
                f"set OMP_NUM_THREADS={usable} where nothing else runs here.",
            )
        )
    if used > usable:
        advice.append(
            (
                "threads",
                f"torch uses {used} threads on {usable} cores, which then wait "
                f"for each other; set OMP_NUM_THREADS={usable}.",
            )
        )
    if load is not None and load > BUSY:
        advice.append(
            (
                "load",
                f"other programs keep this machine busy ({load:.1f} waiting or "
                "running for each core), so everything takes longer, and times that are "
                "measured now mean little.",
            )
        )
    return advice  # fmt: skip


def usable_cores() -> int:
    """Cores that this process may use: by its affinity, and by the quota of its container."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    limit = Path("/sys/fs/cgroup/cpu.max")  # of control groups, version 2
    try:
        quota, period = limit.read_text().split()
        if quota != "max":
            cores = min(cores, max(1, int(quota) // int(period)))
    except (OSError, ValueError):
        pass
    return cores


def _version(package: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    import platform

    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def _memory() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError):
        return None


def _load() -> float | None:
    """Processes that run or wait, for each usable core, over the last minute."""
    try:
        return round(os.getloadavg()[0] / usable_cores(), 2)
    except OSError:
        return None


def _look_for_compilers() -> dict[str, str | None]:
    import shutil
    import subprocess

    from surefoot.blocks.native import find_compiler

    named = os.environ.get("CXX") or next(filter(shutil.which, ("g++", "clang++", "c++")), None)
    found: dict[str, str | None] = {"c": None, "c++": None}
    for language, command in (("c", find_compiler()), ("c++", named)):
        if command is None:
            continue
        try:
            done = subprocess.run(  # noqa: S603 - the compiler is the user's own
                [*command.split(), "--version"],
                capture_output=True,
                text=True,
                check=True,
                timeout=30,
            )
        except (OSError, subprocess.SubprocessError):
            continue
        found[language] = f"{command}: {next(iter(done.stdout.splitlines()), 'no version')}"
    return found


def _look_for_kernels() -> dict[str, str | None]:
    """The form of each precision, built where it is not, and what the package says about it."""
    import warnings

    import torch

    from surefoot.blocks.native import describe_form

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found: dict[str, str | None] = {
            "float32": describe_form(torch.float32),
            "float64": describe_form(torch.float64),
        }
    told = [str(one.message).partition(": until")[0] for one in said]
    return found | {"reason": told[0] if told else None}


def _look_into_cache() -> dict[str, Any]:
    from surefoot.blocks.native import cache_folder

    folder = cache_folder()
    sizes = [path.stat().st_size for path in _files(folder)]
    return {"folder": str(folder), "files": len(sizes), "bytes": sum(sizes)}


def _files(folder: Path) -> Sequence[Path]:
    return [path for path in folder.rglob("*") if path.is_file()] if folder.is_dir() else []


def _package_rows(found: dict[str, Any]) -> list[list[str]]:
    rows = [["surefoot", found["surefoot"], ""]]
    rows += [[name, version or "missing", ""] for name, version in found["packages"].items()]
    rows += [
        [name, one["version"] or "missing", f"{one['for']} (extra {one['extra']})"]
        for name, one in found["extras"].items()
    ]
    return rows + [
        [name, found["programs"][name] or "missing", purpose] for name, purpose in PROGRAMS.items()
    ]


def _name(key: str) -> str:
    return key if key.isupper() else key.replace("_", " ")


def _tell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "–" if value is None else str(value)
