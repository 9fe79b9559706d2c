"""Pages lead to what there is, all of them are part of the site, and figures are those measured."""

import re
import runpy
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"(?<!`)\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^()\s]+)\)")
FENCE = re.compile(r"^ *(```|~~~)")
OUTSIDE = "project/"  # where pages from outside of `docs` stand in the site
FOLDERS = {"reference/": "reference/index.md", "decisions/": None}
NOT_IN_SITE = {"benchmarks/speed/notes.md"}  # a part of docs/speed.md


def pages() -> list[Path]:
    """All pages of the repository, without those of a build or of an environment."""
    found = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    found += [*(ROOT / "benchmarks").rglob("*.md"), *(ROOT / "plugins").rglob("*.md")]
    return sorted(found)


def prose(page: Path) -> Iterator[str]:
    """Lines that are no code."""
    fence = ""
    for line in page.read_text("utf-8").splitlines():
        mark = FENCE.match(line)
        if mark and (not fence or mark[1] == fence):
            fence = "" if fence else mark[1]
        elif not fence:
            yield line


def anchors(page: Path) -> set[str]:
    """What links to headings of a page may call them."""
    found: Counter[str] = Counter()
    names = set()
    for line in prose(page):
        title = re.match(r"#+ +(.*)", line)
        if title is None:
            continue
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title[1]).strip().lower()
        slug = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        names.add(slug if not found[slug] else f"{slug}-{found[slug]}")
        found[slug] += 1
    return names


def links(page: Path) -> list[str]:
    return [target for line in prose(page) for target in LINK.findall(line)]


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_what_there_is(page: Path) -> None:
    for target in links(page):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        place = (page.parent / name).resolve() if name else page
        if page == ROOT / "docs" / "reference" / "index.md" and name == "commands.md":
            continue  # written as the site is built
        assert place.is_relative_to(ROOT), target
        assert place.exists(), target
        assert not anchor or anchor in anchors(place), target


class Loader(yaml.SafeLoader):
    """Functions of Python that the file names stay names."""


Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda *_: None)


def entries(nav: object) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    for one in nav.values() if isinstance(nav, dict) else nav if isinstance(nav, list) else ():
        yield from entries(one)


def test_every_page_is_part_of_the_site() -> None:
    config = yaml.load((ROOT / "mkdocs.yml").read_text(), Loader)  # noqa: S506  a safe one
    named = set(entries(config["nav"]))
    placed = {page.relative_to(ROOT).as_posix() for page in pages()} - NOT_IN_SITE
    expected = {
        name.removeprefix("docs/") if name.startswith("docs/") else OUTSIDE + name
        for name in placed
    }
    held = {name for name in expected if name.startswith(tuple(FOLDERS))}
    assert not expected - held - named, "name these pages in mkdocs.yml"
    assert not named - set(FOLDERS) - expected, "mkdocs.yml names pages that are not there"
    assert set(FOLDERS) <= named
    assert config["theme"]["font"] is False  # nothing is fetched from elsewhere
    assert config["strict"] is True


def test_the_price_list_is_that_of_the_figures(monkeypatch) -> None:
    monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
    script = runpy.run_path(str(ROOT / "benchmarks" / "price_list.py"))
    page = (ROOT / "docs" / "prices.md").read_text("utf-8")
    assert script["write_page"](page) == page, "run `python benchmarks/price_list.py`"
    with pytest.raises(ValueError, match="are missing"):
        script["write_page"]("no marks")
