"""`cbir evaluate --report`: a page and a Markdown file about what was measured."""

from __future__ import annotations

import io
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import pytest
from PIL import Image
from support_cli import call
from support_web import picture
from test_web_browser import browser as browser  # the fixture

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Request

pytest.importorskip("matplotlib")

NASTY = "<b>&\"'$x$"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of two classes, one of an awkward name, and queries of both."""
    root = tmp_path_factory.mktemp("report")
    for part, seeds in (("indexed", range(12)), ("asked", range(12, 18))):
        for seed in seeds:
            path = root / part / (NASTY if seed % 2 else "plain") / f"{seed}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(picture(seed))
    call("index", root / "indexed", "--into", root / "i.cbir", "--descriptor", "classic",
         "--label-from-folder")  # fmt: skip
    return root


def written(folder: Path, name: str, *arguments: object) -> Path:
    """The folder of a report."""
    call("evaluate", "--in", folder / "i.cbir", "--queries", folder / "asked",
         "--label-from-folder", "--report", folder / name, *arguments)  # fmt: skip
    return folder / name


@pytest.fixture(scope="module")
def report(folder: Path) -> Path:
    return written(folder, "both", "-m", "P@1", "-m", "nAP@5")


def sections(report: Path) -> list[str]:
    return re.findall(r'<section id="([^"]+)"', (report / "index.html").read_text())


def test_a_page_says_what_was_measured(folder: Path, report: Path) -> None:
    page = (report / "index.html").read_text()
    answer = call("evaluate", "--in", folder / "i.cbir", "--queries", folder / "asked",
                  "--label-from-folder", "-m", "P@1", "-m", "nAP@5", "--json").json  # fmt: skip
    for figures in (answer["measures"], answer["unseen_index"]):
        for value in figures.values():
            assert f">{value:.4f}<" in page
    assert sections(report)[:3] == ["summary", "classes", "curves"]
    assert {"queries", "sees", "timings", "reproduce"} < set(sections(report))
    assert page.count('<article class="example"') == 6  # so few queries are all shown


def test_labels_are_escaped(report: Path) -> None:
    page = (report / "index.html").read_text()
    assert "&lt;b&gt;" in page
    assert "<b>" not in page
    assert "<b>" not in (report / "report.md").read_text()


def test_the_plots_are_well_formed_and_their_ids_differ(report: Path) -> None:
    page = (report / "index.html").read_text()
    drawn = re.findall(r"<svg .*?</svg>", page, flags=re.S)
    assert drawn
    for one in drawn:
        ElementTree.fromstring(one)
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids))


def test_the_page_needs_nothing_beside_it(report: Path) -> None:
    page = (report / "index.html").read_text()
    assert "<script" not in page
    assert all(source.startswith("data:") for source in re.findall(r'src="([^"]*)"', page))


def test_the_pictures_of_the_markdown_file_are_there(report: Path) -> None:
    files = re.findall(r"\]\((plots/[^)]+)\)", (report / "report.md").read_text())
    assert files
    for name in files:
        Image.open(io.BytesIO((report / name).read_bytes())).load()


@pytest.mark.parametrize(
    "arguments",
    [
        ("--protocol", "unseen"),
        ("--protocol", "usual"),
        ("--sample", "1"),
        ("--hamming", "8"),
        ("--shuffle-ids", "3"),
        ("-m", "AP"),
    ],
)
def test_every_kind_of_evaluation_has_a_report(folder: Path, arguments: tuple[str, ...]) -> None:
    made = written(folder, "-".join(arguments).strip("-"), *arguments)
    shown = re.findall(r"<h1>(.*?)</h1>", (made / "index.html").read_text())
    assert len(shown) == 1
    assert "classic" in shown[0]


def test_the_unseen_protocol_shows_hits_among_the_queries(folder: Path) -> None:
    page = (written(folder, "unseen", "--protocol", "unseen") / "index.html").read_text()
    hits = re.findall(r'<li class="hit [a-z]+" title="([^"]+)"', page)
    assert hits
    assert all(hit.startswith("asked/") for hit in hits)
    assert "no picture" not in page


def test_several_indexes_are_compared_on_the_first_ones_page(folder: Path) -> None:
    shutil.copytree(folder / "i.cbir", folder / "copy.cbir", dirs_exist_ok=True)
    made = written(folder, "two", "--in", folder / "copy.cbir")
    assert sections(made)[1] == "comparisons"
    assert "copy.cbir against i.cbir" in (made / "index.html").read_text()


def test_run_files_have_a_report(folder: Path) -> None:
    files = [folder / "a.run", folder / "b.run"]
    call("run", folder / "asked", "--in", folder / "i.cbir", "-o", files[0])
    call("run", folder / "asked", "--in", folder / "i.cbir", "-o", files[1], "--expand", 2)
    call("qrels", folder / "asked", "--in", folder / "i.cbir", "--label-from-folder",
         "-o", folder / "q")  # fmt: skip
    answer = call("evaluate", "--qrels", folder / "q", *files, "--label-from-folder", "--json",
                  "--report", folder / "runs").json  # fmt: skip
    page = (folder / "runs" / "index.html").read_text()
    for one in answer["runs"]:
        assert all(f">{value:.4f}<" in page for value in one["measures"].values())
    assert "b.run against a.run" in page
    call("evaluate", "--qrels", folder / "q", files[0], "--report", folder / "one")
    assert "comparisons" not in sections(folder / "one")


def test_other_files_in_the_folder_stay(folder: Path) -> None:
    (folder / "kept").mkdir()
    (folder / "kept" / "notes.txt").write_text("mine")
    written(folder, "kept")
    assert (folder / "kept" / "notes.txt").read_text() == "mine"
    assert (folder / "kept" / "index.html").exists()


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1200])
def test_the_page_in_a_browser(browser: Browser, report: Path, width: int) -> None:
    context = browser.new_context(viewport={"width": width, "height": 900})
    page = context.new_page()
    said: list[str] = []
    asked: list[str] = []

    def note(request: Request) -> None:
        asked.append(request.url)

    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", note)
    address = (report / "index.html").as_uri()
    page.goto(address)
    assert page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
    assert page.evaluate("document.images.length") > 20
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [address]
    context.close()
