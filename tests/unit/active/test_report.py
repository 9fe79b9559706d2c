"""The page of a campaign says what its files say."""

import base64
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from surefoot.active.campaign import Campaign
from surefoot.active.loop import run
from surefoot.active.report import PAGE, read_chapters
from surefoot.active.rules import Rules
from surefoot.active.summary import STAGES, share_of_choice
from surefoot.label.labeler import LabelingFailed


class Reader(HTMLParser):
    """Tags that are open, texts, and what would be loaded."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag != "meta":
            self.open.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_startendtag(self, _: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def read(file: Path) -> Reader:
    reader = Reader()
    reader.feed(file.read_text())
    assert not reader.open
    return reader


def test_figures_choices_and_reasons_are_there(
    make: Callable[..., Campaign], springs: Callable[..., Any]
) -> None:
    def refuse(atoms) -> str | None:
        return "a <strange> reason" if atoms.positions[0, 0] > 0.1 else None

    campaign = make(rules=Rules(rounds=2, forces_rmse=0.001), labeler=springs(fails=refuse))
    found = run(campaign)
    page = read(campaign.folder / PAGE)
    assert "It has ended: 2 rounds are done." in page.text
    assert page.links == [link for link in page.links if link.startswith("data:")]
    for one in found.rounds:
        assert f"{one['figures']['forces_rmse']:.3g}" in page.text
    for one in ("bald energy", "by pool", "by rattle", "Round 1: what was chosen"):
        assert one in page.text
    failed = [reason for one in read_chapters(campaign.folder) for reason in one.failed]
    assert failed
    assert "a <strange> reason" in page.text
    (link,) = page.links
    figures = json.loads(base64.b64decode(link.partition(",")[2]))
    assert [one["labelled"] for one in figures] == [one["labelled"] for one in found.rounds]
    assert figures[1]["labels_before"] == found.rounds[0]["labelled"]
    for one in found.rounds:
        seconds = one["seconds"]
        assert set(seconds) <= set(STAGES)
        assert one["choice_share"] == round(share_of_choice(seconds), 4)
        assert f"{share_of_choice(seconds):.1%}" in page.text
    assert found.rounds[0]["choice_share"] > 0
    # What was chosen is marked once for each score.
    marks = re.findall(r"<circle[^>]*#d55e00", (campaign.folder / PAGE).read_text())
    assert len(marks) >= 2 * sum(one["chosen"] for one in found.rounds)


def test_a_round_that_is_not_whole(
    make: Callable[..., Campaign], springs: Callable[..., Any]
) -> None:
    with pytest.raises(LabelingFailed):
        run(make(labeler=springs(fails=lambda _: "never")))
    (chapter,) = read_chapters(make().folder)
    assert chapter.choice is not None
    assert chapter.labelled == 0
    assert chapter.figures is not None
