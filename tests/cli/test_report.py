"""report: one page that loads nothing, says the numbers, and whose view turns."""

import base64
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import ase.io
import pytest

VOID = {"meta", "link", "line", "rect", "circle", "polyline", "br", "input"}
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


class Reader(HTMLParser):
    """Elements that are opened and closed in order, ids, links and what they load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.ids, self.links, self.loaded, self.saved = [], [], [], [], {}
        self.feed(text)

    def handle_starttag(self, tag, attrs) -> None:
        held = dict(attrs)
        if tag not in VOID:
            self.open.append(tag)
        if "id" in held:
            self.ids.append(held["id"])
        self.loaded += [held[name] for name in ("src", "srcset", "action") if name in held]
        if "href" in held:
            self.links.append(held["href"])
        if "download" in held:
            self.saved[held["download"]] = held["href"]

    def handle_endtag(self, tag) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


def saved_text(page: Reader, name: str) -> str:
    return base64.b64decode(page.saved[name].partition("base64,")[2]).decode()


@pytest.fixture(scope="module")
def page(surefoot, potential: Path, folder: Path, tmp_path_factory) -> Path:
    target = tmp_path_factory.mktemp("report") / "page.html"
    other = ase.io.read(folder / "test.xyz", ":6")
    for atoms in other:
        atoms.positions *= 1.05
        atoms.info["group"] = "<b>&other"
    ase.io.write(target.with_name("o<t>her.xyz"), other)
    done = surefoot("report", potential, folder / "test.xyz", "--train", folder / "train.xyz",
                    "--ood", target.with_name("o<t>her.xyz"), "-o", target)  # fmt: skip
    assert f"wrote {target}" in done.stdout
    return target


def test_page_is_whole_and_loads_nothing(page: Path) -> None:
    text = page.read_text()
    assert len(text) < 8e6
    held = Reader(text)
    assert held.open == []
    assert held.loaded == []
    assert len(set(held.ids)) == len(held.ids)
    assert all(link.startswith(("data:", "#")) for link in held.links)
    assert {link[1:] for link in held.links if link.startswith("#")} <= set(held.ids)
    assert not re.search(r"https?:|@import|url\(", text)
    assert "o<t>her" not in text  # names are text, not marks


def test_page_holds_the_numbers_of_evaluate(
    surefoot, page: Path, potential: Path, folder: Path, tmp_path: Path
) -> None:
    other = tmp_path / "page.html"
    surefoot("evaluate", potential, folder / "test.xyz", "-o", tmp_path / "found.json",
             "--report", other)  # fmt: skip
    figures = json.loads((tmp_path / "found.json").read_text())
    held = Reader(page.read_text())
    told = json.loads(saved_text(held, "report.json"))["test"]
    assert told["accuracy"] == figures["accuracy"]
    rmse = figures["accuracy"]["forces"]["all"]["rmse"]
    assert f"<td>{rmse:.2f}</td>" in page.read_text()
    rows = saved_text(held, "test_parity_force_components.csv").splitlines()
    assert len(rows) == 1 + 12 * 4 * 3
    labels = ase.io.read(folder / "test.xyz", 0).get_forces()
    assert float(rows[1].split(",")[1]) == pytest.approx(labels[0, 0])
    assert len(saved_text(held, "learning_loss.csv").splitlines()) == 1 + 4  # epochs
    assert len(saved_text(held, "map.csv").splitlines()) == 1 + 12 + 6 + 40
    same = Reader(other.read_text())  # the page that evaluate writes
    assert same.open == []
    assert (
        json.loads(saved_text(same, "report.json"))["test"]["uncertainty"] == figures["uncertainty"]
    )


def test_page_tells_findings_and_how_the_potential_was_made(page: Path) -> None:
    text = page.read_text()
    assert "&quot;learning_rate&quot;: 0.01" in text
    assert "torch" in text
    assert "[leakage]" not in text


def test_what_is_no_log_and_no_page_is_refused(
    surefoot, potential: Path, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "log.csv").write_text("epoch,loss\n1,x\n")
    done = surefoot("evaluate", potential, folder / "test.xyz", "--report", folder / "test.xyz",
                    check=False)  # fmt: skip
    assert done.returncode == 1  # not over its own input
    for place in (tmp_path / "log.csv", tmp_path, tmp_path / "none.csv"):
        done = surefoot("report", potential, folder / "test.xyz", "--log", place,
                        "-o", tmp_path / "page.html", check=False)  # fmt: skip
        assert done.returncode == 1
        assert "csv: t" in done.stderr
    assert not (tmp_path / "page.html").exists()


DRIVER = """<script>
const canvas = document.querySelector("#viewer canvas"), said = [];
const press = (key) => canvas.dispatchEvent(new KeyboardEvent("keydown", { key }));
for (const key of ["ArrowLeft", "ArrowUp", "+", "n", "r"]) {
  const before = canvas.toDataURL();
  press(key);
  said.push(key + (canvas.toDataURL() === before ? "=same" : "=changed"));
}
press("n");
const chosen = document.querySelector('[data-part="structure"]');
chosen.value = "1";
chosen.dispatchEvent(new Event("change"));
press("n");
said.push(document.querySelector('[data-part="status"]').textContent);
document.title = said.join("|");
</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_view_turns_by_keys_and_tells_atoms(page: Path, tmp_path: Path) -> None:
    driven = tmp_path / "driven.html"
    driven.write_text(page.read_text().replace("</body>", DRIVER + "</body>"))
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
               f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]  # fmt: skip
    done = subprocess.run(
        [str(CHROMIUM), *options, driven.as_uri()],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "CONSOLE" not in done.stderr
    (title,) = re.findall("<title>(.*)</title>", done.stdout)
    *keys, told = title.split("|")
    assert keys == [f"{key}=changed" for key in ("ArrowLeft", "ArrowUp", "+", "n", "r")]
    assert re.match(r"Atom 0, (Cu|Al): force σ \d", told)
    assert "NaN" not in done.stdout
