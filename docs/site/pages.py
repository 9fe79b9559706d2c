"""What `mkdocs.yml` asks for while the site is built: pages from outside, links, the reference.

Pages outside of `docs` (README, DESIGN, benchmarks) become pages of the site where they lie in the
repository, and links between pages stay what they are there. A link to another file of the
repository becomes its name; one to nothing ends the build.
"""

from __future__ import annotations

import ast
import os
import posixpath
import re
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "surefoot"
OUTSIDE = "project"
"""Where pages from outside of `docs` stand in the site."""
LINK = re.compile(r"(!?)\[([^\[\]]*(?:\[[^\]]*\][^\[\]]*)*)\]\(([^()\s]+)\)")
FENCE = re.compile(r"^( *)(```|~~~)")
SKIPPED = {"build", "runs", "node_modules"}
"""Folders that hold no pages."""


def on_config(config: Any) -> Any:
    """Folders in the navigation as their pages."""
    pages = ["index", "commands", *map(room_name, rooms())]
    folders = {
        "reference/": [f"reference/{name}.md" for name in pages],
        "decisions/": sorted(
            path.relative_to(ROOT / "docs").as_posix()
            for path in (ROOT / "docs" / "decisions").glob("*.md")
        ),
    }
    config.nav = expand(config.nav, folders)
    return config


def expand(entry: Any, folders: dict[str, list[str]]) -> Any:
    """An entry of the navigation, and what it holds, with folders as their pages."""
    if isinstance(entry, list):
        return [expand(one, folders) for one in entry]
    if isinstance(entry, dict):
        return {title: expand(one, folders) for title, one in entry.items()}
    return folders.get(entry, entry)


def on_files(files: Files, *, config: Any) -> Files:
    """Add the pages from outside and those of the reference."""
    for path in outside():
        place = path.relative_to(ROOT).as_posix()
        files.append(File.generated(config, f"{OUTSIDE}/{place}", content=path.read_text("utf-8")))
        for picture in pictures(path):
            where = f"{OUTSIDE}/{picture.relative_to(ROOT).as_posix()}"
            if files.get_file_from_path(where) is None:
                files.append(File.generated(config, where, abs_src_path=str(picture)))
    for path in sorted((ROOT / "docs").rglob("*.md")):
        for picture in pictures(path):
            where = site_place(picture)
            if files.get_file_from_path(where) is None:
                files.append(File.generated(config, where, abs_src_path=str(picture)))
    commands = File.generated(config, "reference/commands.md", content=write_commands())
    files.append(commands)
    for room in rooms():
        text = write_room(room)
        files.append(File.generated(config, f"reference/{room_name(room)}.md", content=text))
    return files


def on_page_markdown(markdown: str, *, page: Any, files: Files, **_: Any) -> str:
    """Links as they are meant in the repository, and the list of rooms."""
    uri = page.file.src_uri
    if uri.startswith("reference/") and uri != "reference/index.md":
        return markdown  # written here
    return relink(markdown, uri, files).replace("<!-- rooms -->", list_rooms())


def on_post_build(*, config: Any) -> None:
    """The index of the search as a script, too, since a page of a folder may not fetch it."""
    index = Path(config.site_dir) / "search" / "search_index.json"
    script = index.with_suffix(".js")
    script.write_text(f"var __index = {index.read_text('utf-8')}", encoding="utf-8")


def outside() -> list[Path]:
    """Pages of the repository that do not lie in `docs`."""
    found = []
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [name for name in folders if not name.startswith(".") and name not in SKIPPED]
        if Path(folder) == ROOT:
            folders[:] = [name for name in folders if name not in ("docs", "src", "tests")]
        found += [Path(folder) / name for name in names if name.endswith(".md")]
    return sorted(found)


def pictures(page: Path) -> list[Path]:
    """Pictures that a page of the repository shows, where they are."""
    held = (m for m in LINK.finditer(page.read_text("utf-8")) if m[1])
    return [path for m in held if (path := (page.parent / m[3]).resolve()).is_file()]


def repository_place(uri: str) -> PurePosixPath:
    """Where a page of the site lies in the repository."""
    inner = uri.removeprefix(f"{OUTSIDE}/")
    return PurePosixPath(inner if inner != uri else f"docs/{uri}")


def site_place(path: Path) -> str:
    """Where a file of the repository stands in the site."""
    place = path.relative_to(ROOT).as_posix()
    inner = place.removeprefix("docs/")
    return inner if inner != place else f"{OUTSIDE}/{place}"


def relink(markdown: str, uri: str, files: Files) -> str:
    """The same text with links as the site needs them.

    Raises:
        PluginError: if a link leads to nothing in the repository.
    """
    folder = ROOT / repository_place(uri).parent
    written = {f"reference/{name}.md" for name in ("commands", *map(room_name, rooms()))}

    def change(match: re.Match[str]) -> str:
        mark, text, target = match.groups()
        if re.match(r"[a-z]+:|#", target):
            return match[0]
        name, hash_, anchor = target.partition("#")
        path = (folder / name).resolve()
        inside = path.is_relative_to(ROOT)
        if inside and site_place(path) in written:
            return match[0]
        if not inside or not path.exists():
            raise PluginError(f"{uri}: the link to {target} leads to nothing in the repository.")
        place = site_place(path)
        if files.get_file_from_path(place) is None:
            return text
        return f"{mark}[{text}]({posixpath.relpath(place, posixpath.dirname(uri))}{hash_}{anchor})"

    lines, fence = [], ""
    for line in markdown.split("\n"):
        opened = FENCE.match(line)
        if opened and (not fence or opened[2] == fence):
            fence = "" if fence else opened[2]
        lines.append(line if fence or opened else LINK.sub(change, line))
    return "\n".join(lines)


def rooms() -> list[Path]:
    """The rooms of the package: folders and single files, in the order of the alphabet."""
    found = [path for path in SOURCE.iterdir() if (path / "__init__.py").exists()]
    found += [path for path in SOURCE.glob("*.py") if not path.name.startswith("_")]
    return sorted(found, key=room_name)


def room_name(room: Path) -> str:
    """Its name, without a suffix."""
    return room.stem


def first_sentence(path: Path) -> str:
    """What a module says it is."""
    text = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    return " ".join(text.split("\n\n")[0].split())


def modules(room: Path) -> list[str]:
    """Dotted names of what is in a room, the room itself first."""
    if room.suffix == ".py":
        return [f"surefoot.{room.stem}"]
    found = []
    for path in sorted(room.rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        if not any(part.startswith("_") for part in parts):
            found.append(".".join(("surefoot", *parts)))
    return sorted(found)


def write_room(room: Path) -> str:
    """The page of a room: each module with what is public in it."""
    lines = [f"# {room_name(room)}", ""]
    for name in modules(room):
        lines += [f"::: {name}", ""]
    return "\n".join(lines)


def write_commands() -> str:
    """Every verb with its arguments and options, as `--help` tells them."""
    import typer.main

    from surefoot.cli.main import app

    lines = ["# Command line", "", "What `surefoot VERB --help` shows.", ""]
    return "\n".join([*lines, *write_group(typer.main.get_command(app), "surefoot", 2)])


def write_group(command: Any, name: str, level: int) -> list[str]:
    """A verb, or the verbs of a group."""
    if hasattr(command, "commands"):
        verbs = (
            write_group(one, f"{name} {verb}", level) for verb, one in command.commands.items()
        )
        return [line for verb in verbs for line in verb]
    lines = [f"{'#' * level} {name}", "", " ".join((command.help or "").split()), ""]
    lines += ["| option | default | |", "|---|---|---|"]
    for parameter in command.params:
        if getattr(parameter, "hidden", False):
            continue
        given = ", ".join(f"`{one}`" for one in (*parameter.opts, *parameter.secondary_opts))
        usual = parameter.default
        shown = "" if usual is None or callable(usual) or usual is False else f"`{usual}`"
        told = (getattr(parameter, "help", None) or "").replace("|", "\\|")
        lines.append(f"| {given} | {shown} | {' '.join(told.split())} |")
    return [*lines, ""]


def list_rooms() -> str:
    """A table of the rooms and what they are."""
    lines = ["| room | what it is |", "|---|---|"]
    for room in rooms():
        told = first_sentence(room if room.suffix == ".py" else room / "__init__.py")
        lines.append(f"| [{room_name(room)}]({room_name(room)}.md) | {told} |")
    return "\n".join(lines)
