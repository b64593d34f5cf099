"""The report in a real Chromium, opened from its folder."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.cli.support_cli import call
from tests.descriptors.support_photos import write_photos

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a report on photos described by visual words: it has pictures of every kind."""
    folder = tmp_path_factory.mktemp("report-browser")
    photos = write_photos(folder / "photos", per_colour=6)
    queries = write_photos(folder / "queries", per_colour=5)
    (queries / "red" / "0.png").rename(queries / "blue" / "9.png")
    place = folder / "p.cbir"
    made = call("index", photos, "--into", place, "--label-from-folder", "--descriptor", "classic")
    assert made.code == 0, made.err
    answer = call(
        *("evaluate", "--in", place, "--queries", queries, "--label-from-folder"),
        *("--report", folder / "report"),
    )
    assert answer.code == 0, answer.err
    return folder / "report" / "index.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    sync_api = pytest.importorskip("playwright.sync_api")
    as_root = hasattr(os, "geteuid") and os.geteuid() == 0
    with sync_api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"] if as_root else []
        )
        yield launched
        launched.close()


@pytest.mark.parametrize("width", [360, 800, 1440])
@pytest.mark.parametrize("colours", ["light", "dark"])
def test_the_page_shows_all_it_has_and_asks_for_nothing(
    browser: Browser, report: Path, width: int, colours: str
) -> None:
    page = browser.new_page(
        viewport={"width": width, "height": 800},
        color_scheme=colours,  # type: ignore[arg-type]
    )
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("requestfailed", lambda request: complaints.append(f"failed: {request.url[:80]}"))
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(report.as_uri())
    assert page.locator("img").count() > 20
    missing = page.evaluate(
        "() => [...document.images].filter((i) => !i.complete || !i.naturalWidth).map((i) => i.alt)"
    )
    assert not missing and not complaints
    assert [url for url in asked if not url.startswith("data:")] == [report.as_uri()]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    plots = page.locator("svg.plot")
    assert plots.count() == 6
    for number in range(plots.count()):
        box = plots.nth(number).bounding_box()
        assert box is not None and box["width"] > 200 and box["height"] > 80
    page.close()


def test_letters_of_plots_are_legible_and_take_the_colours_of_the_page(
    browser: Browser, report: Path
) -> None:
    page = browser.new_page(viewport={"width": 390, "height": 800}, color_scheme="dark")
    page.goto(report.as_uri())
    heights = page.evaluate(
        "() => [...document.querySelectorAll('svg.plot text')]"
        ".map((t) => t.getBoundingClientRect()).map((b) => Math.min(b.width, b.height))"
    )
    assert sorted(heights)[len(heights) // 2] >= 9
    ink = "() => getComputedStyle(document.querySelector('svg.plot text')).fill"
    dark = page.evaluate(ink)
    page.emulate_media(color_scheme="light")
    assert page.evaluate(ink) != dark
    page.close()


def test_a_comparison_leads_to_the_reports_that_it_compares(browser: Browser, report: Path) -> None:
    folder = report.parents[1]
    made = call(
        *("index", folder / "photos", "--into", folder / "q r.cbir", "--label-from-folder"),
        *("--descriptor", "cifar10-cnn:embedding"),
    )
    assert made.code == 0, made.err
    answer = call(
        *("evaluate", "--in", folder / "p.cbir", "--in", folder / "q r.cbir"),
        *("--queries", folder / "queries", "--label-from-folder", "--report", folder / "both"),
    )
    assert answer.code == 0, answer.err
    page = browser.new_page(viewport={"width": 390, "height": 800})
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto((folder / "both" / "index.html").as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.locator("svg.plot").count() == 6
    page.get_by_role("link", name="The report of q r.cbir alone").click()
    page.wait_for_url("**/2-q_r.cbir/index.html")
    assert page.locator("h1").inner_text() == "Evaluation of cifar10-cnn:embedding"
    assert not complaints
    page.close()
