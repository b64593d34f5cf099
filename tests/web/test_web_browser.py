"""The page in a real Chromium, served as `cbir serve` does."""

from __future__ import annotations

import base64
import io
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import pytest
from PIL import Image

from cbir.images.ids import encode_path
from cbir.search.query import Query
from cbir.search.searcher import IndexedId, Searcher
from cbir.web.app import MAX_UPLOAD
from tests.web.support_web import (
    NAMES,
    PART,
    GridWords,
    SlowSearcher,
    build_index,
    open_searcher,
    picture,
    served,
)

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, FilePayload, Page, Request

pytestmark = pytest.mark.browser

IDS = [f"pictures/{encode_path(name)}" for name in NAMES]
WIDE = {"width": 1440, "height": 900}
NARROW = {"width": 360, "height": 740}

TRANSFER = """([name, content]) => {
  const bytes = Uint8Array.from(atob(content), (character) => character.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], name, {type: "image/png"}));
  return transfer;
}"""


def missing(what: str) -> None:
    """Skip, or fail where everything has to be there."""
    reason = f"{what} is not installed: the page cannot be tested in a browser"
    if os.environ.get("CBIR_TEST_STRICT") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError:
        missing("playwright")
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    program = next((found for name in names if (found := shutil.which(name))), None)
    if program is None:
        missing("Chromium")
    # Chromium's own sandbox does not start for the superuser.
    as_root = hasattr(os, "geteuid") and os.geteuid() == 0
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(
            executable_path=program, args=["--no-sandbox"] if as_root else []
        )
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def searcher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Searcher]:
    opened = open_searcher(build_index(tmp_path_factory.mktemp("browser"), regions=5))
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def address(searcher: Searcher) -> Iterator[str]:
    with served(searcher) as found:
        yield found


@pytest.fixture(scope="module")
def worded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Searcher]:
    """A searcher whose descriptor has a text tower."""
    url = build_index(tmp_path_factory.mktemp("words"), descriptor=GridWords())
    opened = open_searcher(url, GridWords())
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def worded_address(worded: Searcher) -> Iterator[str]:
    with served(worded) as found:
        yield found


Visit = Callable[..., "Page"]


@pytest.fixture
def visit(browser: Browser, address: str) -> Iterator[Visit]:
    """Opens the first page in a context of its own; complains afterwards of what went wrong."""
    contexts: list[BrowserContext] = []
    complaints: list[str] = []

    def open_page(refusals: bool = False, at: str = address, **options: object) -> Page:
        context = browser.new_context(**{"viewport": WIDE, **options})  # type: ignore[arg-type]
        context.set_default_timeout(30_000)
        contexts.append(context)
        page = context.new_page()

        def console(kind: str, text: str) -> None:
            expected = refusals and "the server responded with a status of 4" in text
            if kind in {"error", "warning"} and not expected:
                complaints.append(f"{kind}: {text}")

        def failed(request: Request) -> None:
            if request.failure != "net::ERR_ABORTED":  # left behind by going on to the next page
                complaints.append(f"{request.failure}: {request.url}")

        page.on("console", lambda message: console(message.type, message.text))
        page.on("pageerror", lambda error: complaints.append(f"exception: {error}"))
        page.on("requestfailed", failed)
        page.on(
            "request",
            lambda request: (
                None
                if request.url.startswith((at, "data:", "blob:"))
                else complaints.append(f"another host: {request.url}")
            ),
        )
        page.goto(at)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


def file(seed: int, name: str = "photo.png") -> FilePayload:
    return {"name": name, "mimeType": "image/png", "buffer": picture(seed)}


def ids_of(page: Page) -> list[str]:
    return page.locator(".sheet-hits .id code").all_text_contents()


def expected(searcher: Searcher, query: bytes | IndexedId | Query, k: int = 10) -> list[str]:
    return [hit.id for hit in searcher.search(query, k=k)]


def assert_all_pictures_show(page: Page) -> None:
    page.wait_for_load_state("networkidle")
    for image in page.locator("main img:visible").all():
        image.scroll_into_view_if_needed()
    page.wait_for_function("""() => [...document.querySelectorAll("main img[src]")]
        .filter((image) => image.checkVisibility())
        .every((image) => image.complete && image.naturalWidth > 0)""")


def assert_no_sideways_scrolling(page: Page) -> None:
    sizes = page.evaluate("""() => {
        const root = document.documentElement;
        return [root.scrollWidth, root.clientWidth];
    }""")
    assert sizes[0] <= sizes[1], page.url


def test_a_chosen_picture_is_searched_with_at_once(visit: Visit, searcher: Searcher) -> None:
    page = visit()
    page.set_input_files("#image", file(4))
    page.wait_for_url("**/search")
    assert page.locator("h1").inner_text() == "The 10 most similar pictures"
    assert ids_of(page) == expected(searcher, picture(4))
    assert page.locator(".query .name").inner_text() == "photo.png"
    shown = page.locator(".mat-query img").get_attribute("src")
    assert shown == "data:image/png;base64," + base64.b64encode(picture(4)).decode()
    assert_all_pictures_show(page)


def test_the_button_opens_the_file_chooser(
    visit: Visit, searcher: Searcher, tmp_path: Path
) -> None:
    chosen = tmp_path / "mine.png"
    chosen.write_bytes(picture(9))
    page = visit()
    with page.expect_file_chooser() as opened:
        page.locator("#image").click()
    opened.value.set_files(chosen)
    page.wait_for_url("**/search")
    assert ids_of(page) == expected(searcher, picture(9))


@pytest.mark.parametrize("way", ["drop", "paste"])
def test_a_picture_can_be_dropped_or_pasted(visit: Visit, searcher: Searcher, way: str) -> None:
    page = visit()
    content = base64.b64encode(picture(6)).decode()
    transfer = page.evaluate_handle(TRANSFER, ["mine.png", content])
    if way == "drop":
        page.dispatch_event("h1", "dragenter", {"dataTransfer": transfer})
        assert page.locator("html.is-dragging").count() == 1
        page.dispatch_event("h1", "drop", {"dataTransfer": transfer})
    else:
        page.evaluate(
            """(transfer) => document.body.dispatchEvent(
                new ClipboardEvent("paste", {clipboardData: transfer, bubbles: true}))""",
            transfer,
        )
    page.wait_for_url("**/search")
    assert ids_of(page) == expected(searcher, picture(6))
    assert page.locator(".query .name").inner_text() == "mine.png"


def test_what_is_dropped_without_a_file_is_left_to_the_browser(visit: Visit) -> None:
    page = visit()
    page.evaluate("""() => {
        const transfer = new DataTransfer();
        transfer.setData("text/plain", "words");
        document.body.dispatchEvent(
            new DragEvent("drop", {dataTransfer: transfer, bubbles: true, cancelable: true}));
    }""")
    assert page.locator("form.is-busy").count() == 0
    assert page.locator(".notice:visible").count() == 0


def test_the_page_shows_the_picture_and_that_it_is_searching(visit: Visit) -> None:
    page = visit()
    # Stay on the page, to see what a visitor sees while waiting.
    page.evaluate("addEventListener('submit', (event) => event.preventDefault())")
    page.set_input_files("#image", file(4))
    page.locator("form.is-busy .drop-preview:visible").wait_for()
    assert page.locator(".drop-status").inner_text() == "Searching…"
    assert page.evaluate("document.querySelector('.drop-preview').naturalWidth") == 32


def test_a_hit_is_searched_with_by_a_click(visit: Visit, searcher: Searcher) -> None:
    page = visit()
    page.set_input_files("#image", file(4))
    page.wait_for_url("**/search")
    for place in (1, 4, 0):  # ids with all kinds of characters come by
        clicked = ids_of(page)[place]
        page.locator(".sheet-hits a.mat").nth(place).click()
        page.wait_for_function(
            "(id) => document.querySelector('.query code')?.textContent === id", arg=clicked
        )
        page.wait_for_load_state()  # the hits follow the query
        assert ids_of(page) == expected(searcher, IndexedId(clicked))
        assert clicked not in ids_of(page)
        assert parse_qs(urlsplit(page.url).query)["id"] == [clicked]
    before = ids_of(page)
    page.reload()
    assert ids_of(page) == before
    assert_all_pictures_show(page)


def test_every_id_survives_the_way_through_the_page(visit: Visit, address: str) -> None:
    page = visit()
    for seed, record_id in enumerate(IDS):
        page.goto(address)
        page.set_input_files("#image", file(seed))
        page.wait_for_url("**/search")
        assert ids_of(page)[0] == record_id
        page.locator(".sheet-hits a.mat").first.click()
        page.wait_for_url(re.compile(r"\?id="))
        assert page.locator(".query code").inner_text() == record_id
        # The form sends the id back: another encoding than that of a link.
        page.locator(".refine button").click()
        page.wait_for_url(re.compile(r"where="))
        assert page.locator(".query code").inner_text() == record_id


def test_a_picture_of_the_first_page_starts_a_search(visit: Visit, searcher: Searcher) -> None:
    page = visit()
    assert page.locator(".sheet-samples li").count() == 12
    assert_all_pictures_show(page)
    page.locator(".sheet-samples a").nth(3).click()
    page.wait_for_url(re.compile(r"\?id="))
    chosen = page.locator(".query code").inner_text()
    assert ids_of(page) == expected(searcher, IndexedId(chosen))


def test_the_keyboard_is_enough(visit: Visit) -> None:
    page = visit()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the pictures"
    seen = []
    for _ in range(12):
        page.keyboard.press("Tab")
        name, outline = page.evaluate("""() => {
            const active = document.activeElement;
            return [active.id || active.className, getComputedStyle(active).outlineStyle];
        }""")
        seen.append(name)
        assert outline != "none", name
        if name == "mat":
            break
    assert {"wordmark", "image", "k-upload", "where-upload-1", "mat"} <= set(seen)
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(r"\?id="))


def test_the_number_of_hits_and_a_filter_can_be_changed(visit: Visit, searcher: Searcher) -> None:
    page = visit()
    page.select_option("#k-upload", "20")
    page.fill("#where-upload-1", "label=warm")
    page.set_input_files("#image", file(4))
    page.wait_for_url("**/search")
    assert ids_of(page) == [
        hit.id for hit in searcher.search(picture(4), k=20, where=["label=warm"])
    ]
    assert page.locator("#k-refine").input_value() == "20"
    assert page.locator("#where-refine-1").input_value() == "label=warm"
    page.locator(".sheet-hits a.mat").first.click()
    page.wait_for_url(re.compile(r"\?id="))
    assert len(ids_of(page)) == 5
    page.fill("#where-refine-1", "label=cold")
    page.locator(".refine button").click()
    page.wait_for_url(re.compile("label%3Dcold|label=cold"))
    assert all("/cold/" in record_id for record_id in ids_of(page))


@pytest.mark.parametrize("script", [True, False])
def test_an_upload_stays_while_the_search_changes(
    visit: Visit, searcher: Searcher, script: bool
) -> None:
    page = visit(refusals=True, java_script_enabled=script)
    page.set_input_files("#image", file(4))
    if not script:
        page.get_by_role("button", name="Find similar").click()
    page.wait_for_url("**/search")
    page.select_option("#k-refine", "20")
    page.fill("#where-refine-1", "lable=warm")
    page.fill("#region-refine", "0,0,1,0.5")
    page.get_by_role("button", name="Search again").click()
    page.locator("#wrong-refine").wait_for()
    assert "unknown field 'lable'" in page.locator("#wrong-refine").inner_text()
    assert page.locator("#where-refine-1").get_attribute("aria-invalid") == "true"
    assert page.locator("#k-refine").input_value() == "20"
    assert_all_pictures_show(page)
    page.fill("#where-refine-1", "label=warm")
    page.get_by_role("button", name="Search again").click()
    page.locator(".sheet-hits").wait_for()
    query = Query(picture(4), (0, 0, 1, 0.5))
    assert ids_of(page) == [h.id for h in searcher.search(query, k=20, where=["label=warm"])]
    assert page.locator(".query .name").inner_text() == "photo.png"
    assert page.locator("#region-refine").input_value() == "0,0,1,0.5"


def test_a_part_is_drawn_on_the_picture(visit: Visit, searcher: Searcher) -> None:
    page = visit()
    wide = io.BytesIO()
    Image.open(io.BytesIO(picture(4, 64))).crop((0, 0, 64, 32)).save(wide, "PNG")
    sent = {"name": "wide.png", "mimeType": "image/png", "buffer": wide.getvalue()}
    page.set_input_files("#image", sent)  # type: ignore[arg-type]
    page.wait_for_url("**/search")
    mat = page.locator(".mat-query").bounding_box()
    assert mat is not None
    # The picture is twice as wide as high, so it fills the middle half of its square mat.
    left, top, side = mat["x"], mat["y"], mat["width"]
    page.mouse.move(left + side * 0.75, top + side * 0.5)
    page.mouse.down()
    page.mouse.move(left + side * 0.25, top + side * 0.9, steps=3)  # below the picture
    page.mouse.up()
    field = page.locator("#region-refine")
    drawn = tuple(float(edge) for edge in field.input_value().split(","))
    assert drawn == pytest.approx((0.25, 0.5, 0.75, 1), abs=0.02)
    assert page.locator(".mat-query .box rect").count() == 1
    page.get_by_role("button", name="Search again").click()
    page.wait_for_function("document.querySelector('.mat-query svg.box rect') !== null")
    page.wait_for_load_state()
    assert page.locator("#region-refine").input_value() == ",".join(f"{e:g}" for e in drawn)
    query = Query(wide.getvalue(), drawn)  # type: ignore[arg-type]
    assert ids_of(page) == expected(searcher, query)
    page.locator(".mat-query").click()  # all of it again
    assert page.locator("#region-refine").input_value() == ""
    assert page.locator(".mat-query .box").count() == 0


@pytest.mark.parametrize("script", [True, False])
def test_a_turned_picture_is_found_where_that_is_asked_for(
    visit: Visit, searcher: Searcher, script: bool
) -> None:
    page = visit(java_script_enabled=script)
    turned = Image.open(io.BytesIO(picture(11, 400))).transpose(Image.Transpose.ROTATE_90)
    sent = io.BytesIO()
    turned.save(sent, "PNG")
    page.get_by_label("Include rotated and mirrored copies").check()
    page.get_by_label("Verify the first hits by matching keypoints").check()
    page.set_input_files(
        "#image", {"name": "turned.png", "mimeType": "image/png", "buffer": sent.getvalue()}
    )
    if not script:
        page.get_by_role("button", name="Find similar").click()
    page.get_by_text("13 compared").wait_for()
    first = page.locator(".hit:visible").first
    assert first.locator(".id code").text_content() == "pictures/cold/large.png"
    assert first.locator(".tag").last.text_content() == "turned 270"
    first.locator("a.mat").click()  # what was asked for stays asked for
    page.wait_for_selector("form.refine")
    for label in (
        "Include rotated and mirrored copies",
        "Verify the first hits by matching keypoints",
    ):
        assert page.locator("form.refine").get_by_label(label).is_checked()
    page.locator("form.refine").get_by_label("Include rotated and mirrored copies").uncheck()
    page.get_by_role("button", name="Search again").click()
    page.wait_for_url(lambda url: "any_orientation" not in url)
    assert "verify=1" in page.url


def visible_ids(page: Page) -> list[str]:
    return [
        one.inner_text() for one in page.locator(".sheet-hits .id code").all() if one.is_visible()
    ]


@pytest.mark.parametrize("script", [True, False], ids=["script", "no-script"])
def test_hits_show_by_score_while_they_are_compared(
    visit: Visit, slow: SlowSearcher, script: bool
) -> None:
    by_score = expected(slow, IndexedId(PART))
    with served(slow) as address:
        page = visit(at=address, java_script_enabled=script)
        there = f"{address}search?id={PART}&verify=1"
        page.goto(there, wait_until="commit")
        page.get_by_text("Comparing 4 pictures…").wait_for()
        assert visible_ids(page) == by_score
        if script:  # the page can be used meanwhile
            page.wait_for_selector("html.js .mat-query.is-drawable")
            page.wait_for_function("""() => [...document.querySelectorAll("main img[src]")]
                .some((image) => image.closest(".hit") && image.naturalWidth > 0)""")
        slow.go_on.set()
        page.get_by_text("4 compared, 1 agreed.").wait_for()
        page.wait_for_load_state()
        verified = [hit.id for hit in slow.search(IndexedId(PART), verify=True)]
        assert visible_ids(page) == verified != by_score
        assert page.get_by_text("Comparing").is_hidden()
        assert page.url == there
        assert_no_sideways_scrolling(page)
        if script:
            assert page.evaluate(CONTRAST) == []
            assert page.evaluate(REPEATED) == []
        page.locator(".hit a.mat:visible").first.click()
        page.wait_for_url(lambda url: "part.png" not in url)
        page.go_back()
        page.get_by_text("4 compared, 1 agreed.").wait_for()
        assert page.url == there
        assert visible_ids(page) == verified


def test_a_page_that_is_stopped_says_that_nothing_was_compared(
    visit: Visit, slow: SlowSearcher
) -> None:
    with served(slow) as address:
        page = visit(at=address)
        page.goto(f"{address}search?id={PART}&verify=1", wait_until="commit")
        page.get_by_text("Comparing 4 pictures…").wait_for()
        page.wait_for_selector("html.js")
        page.evaluate("window.stop()")
        page.get_by_text("Not compared: the page was stopped.").wait_for()
        assert visible_ids(page) == expected(slow, IndexedId(PART))


def test_the_comparison_ends_when_the_page_is_left(visit: Visit, slow: SlowSearcher) -> None:
    with served(slow) as address:
        page = visit(at=address)
        page.goto(f"{address}search?id={PART}&verify=1", wait_until="commit")
        page.get_by_text("Comparing 4 pictures…").wait_for()
        assert slow.begun.acquire(timeout=10)
        page.get_by_role("link", name="start page").click()
        page.locator(".sheet-samples").wait_for()
        for _ in range(500):
            if slow.ended:
                break
            slow.go_on.wait(0.02)
        assert len(slow.ended) == 1


def test_everything_works_without_javascript(visit: Visit, searcher: Searcher) -> None:
    page = visit(java_script_enabled=False)
    page.set_input_files("#image", file(8))
    page.get_by_role("button", name="Find similar").click()
    page.wait_for_url("**/search")
    assert ids_of(page) == expected(searcher, picture(8))
    clicked = ids_of(page)[2]
    page.locator(".sheet-hits a.mat").nth(2).click()
    page.wait_for_url(re.compile(r"\?id="))
    assert page.locator(".query code").inner_text() == clicked
    page.get_by_role("link", name="start page").click()
    assert page.locator(".sheet-samples li").count() == 12


@pytest.mark.parametrize("script", [True, False], ids=["script", "no-script"])
def test_a_wrong_upload_says_what_is_wrong(visit: Visit, script: bool) -> None:
    page = visit(refusals=True, java_script_enabled=script)
    words: FilePayload = {"name": "holiday.jpg", "mimeType": "image/jpeg", "buffer": b"words"}
    page.set_input_files("#image", words)
    if not script:
        page.get_by_role("button", name="Find similar").click()
    page.wait_for_url("**/search")
    assert "holiday.jpg: not an image" in page.get_by_role("alert").first.inner_text()
    page.set_input_files("#image", file(1))  # and the form is there to try again
    if not script:
        page.get_by_role("button", name="Find similar").click()
    page.locator(".sheet-hits").wait_for()


def test_a_file_too_large_is_not_even_sent(visit: Visit, address: str, tmp_path: Path) -> None:
    page = visit()
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url))
    large = tmp_path / "big.png"
    large.write_bytes(bytes(MAX_UPLOAD + 1))
    page.set_input_files("#image", large)
    page.locator(".notice-local:visible").wait_for()
    assert "big.png is larger than 20 MB" in page.locator(".notice-local").inner_text()
    assert page.url == address
    assert f"{address}search" not in sent


def test_pages_that_are_not_there_keep_the_style(visit: Visit, address: str) -> None:
    page = visit(refusals=True)
    page.goto(f"{address}nothing")
    assert page.locator("h1").inner_text() == "There is nothing at this address"
    page.get_by_role("link", name="Start page", exact=True).click()
    assert page.url == address


@pytest.mark.parametrize("viewport", [NARROW, {"width": 320, "height": 600}, WIDE], ids=str)
def test_no_window_scrolls_sideways(visit: Visit, address: str, viewport: dict[str, int]) -> None:
    page = visit(refusals=True, viewport=viewport)
    assert_no_sideways_scrolling(page)
    page.locator("summary").click()
    assert_no_sideways_scrolling(page)
    page.set_input_files("#image", file(5, "a-name-without-any-place-to-break-" * 5 + ".png"))
    page.wait_for_url("**/search")
    assert_no_sideways_scrolling(page)
    page.goto(f"{address}search?id={IDS[3].replace('%', '%25')}")
    assert_no_sideways_scrolling(page)
    page.goto(f"{address}search?id={'n' * 300}")
    assert_no_sideways_scrolling(page)


def test_hits_stand_in_boxes_of_one_size_and_small_pictures_are_sharp(visit: Visit) -> None:
    page = visit()
    page.select_option("#k-upload", "20")
    page.set_input_files("#image", file(11))
    page.wait_for_url("**/search")
    boxes = page.evaluate("""() => [...document.querySelectorAll(".sheet-hits .mat")]
        .map((mat) => mat.getBoundingClientRect())
        .map((box) => [Math.round(box.width), Math.round(box.height)].join())""")
    assert len(boxes) == len(NAMES)
    assert len(set(boxes)) == 1
    rendering = page.evaluate("""() => Object.fromEntries(
        [...document.querySelectorAll(".sheet-hits .hit")].map((hit) => [
            hit.querySelector(".name").textContent,
            getComputedStyle(hit.querySelector("img")).imageRendering]))""")
    assert rendering["large.png"] == "auto"
    assert rendering["red.png"] == "pixelated"


def test_ten_hits_are_in_sight_beside_the_query_in_a_wide_window(visit: Visit) -> None:
    page = visit()
    page.set_input_files("#image", file(4))
    page.wait_for_url("**/search")
    bottom = page.locator(".sheet-hits a.mat").last.bounding_box()
    assert bottom is not None
    assert bottom["y"] + bottom["height"] <= WIDE["height"]


CONTRAST = """() => {
  const channel = (value) => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const rgb = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = ([r, g, b]) => 0.2126 * channel(r / 255) + 0.7152 * channel(g / 255)
    + 0.0722 * channel(b / 255);
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = rgb(getComputedStyle(at).backgroundColor);
      if (colour[3] === 255) return colour;
    }
    return [255, 255, 255, 255];
  };
  const low = [];
  for (const element of document.querySelectorAll("body *")) {
    const text = [...element.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!text || !element.checkVisibility()) continue;
    const pair = [light(rgb(getComputedStyle(element).color)), light(ground(element))];
    const ratio = (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
    if (ratio < 4.5) low.push(`${element.className || element.tagName}: ${ratio.toFixed(2)}`);
  }
  return low;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_by_day_and_by_night(visit: Visit, address: str, scheme: str) -> None:
    page = visit(refusals=True, color_scheme=scheme)
    grounds = "getComputedStyle(document.body).backgroundColor"
    level = sum(int(v) for v in re.findall(r"\d+", page.evaluate(grounds))) / 3
    assert level > 200 if scheme == "light" else level < 50
    assert page.evaluate(CONTRAST) == []
    page.set_input_files("#image", file(4))
    page.wait_for_url("**/search")
    assert page.evaluate(CONTRAST) == []
    page.goto(f"{address}nothing")
    assert page.evaluate(CONTRAST) == []


NAMELESS = """() => [
    ...[...document.querySelectorAll("main img:not([hidden])")].filter((i) => !i.alt),
    ...[...document.querySelectorAll("input:not([type=hidden]), select")]
        .filter((field) => !field.labels.length),
].map((element) => element.outerHTML)"""
REPEATED = """() => {
    const ids = [...document.querySelectorAll("[id]")].map((element) => element.id);
    return ids.filter((id, place) => ids.indexOf(id) !== place);
}"""


def test_every_picture_and_field_has_a_name(visit: Visit) -> None:
    page = visit()
    assert page.evaluate(NAMELESS) == []
    page.set_input_files("#image", file(4))
    page.wait_for_url("**/search")
    assert page.evaluate(NAMELESS) == []
    assert page.evaluate(REPEATED) == []


@pytest.mark.parametrize("script", [True, False])
def test_words_are_searched_by_enter_or_the_button(
    visit: Visit, worded: Searcher, worded_address: str, script: bool
) -> None:
    page = visit(at=worded_address, java_script_enabled=script)
    page.get_by_label("describe what you look for").fill("a dog & a cat")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(r"\?text="))
    assert ids_of(page) == expected(worded, Query(text="a dog & a cat"))
    assert page.locator("h1").inner_text() == "The 10 best matches"
    assert page.locator(".words").inner_text() == "“a dog & a cat”"
    assert page.locator(".query img:visible").count() == 0
    box = page.get_by_label("Describe what you look for")
    assert box.input_value() == "a dog & a cat"
    before = ids_of(page)
    page.reload()
    assert ids_of(page) == before
    box.fill("a mouse")
    page.get_by_role("button", name="Search", exact=True).click()
    page.wait_for_url(re.compile("mouse"))
    assert ids_of(page) == expected(worded, Query(text="a mouse"))
    assert_all_pictures_show(page)


@pytest.mark.parametrize("script", [True, False])
def test_words_join_a_picture_and_stay(
    visit: Visit, worded: Searcher, worded_address: str, script: bool
) -> None:
    page = visit(at=worded_address, java_script_enabled=script)
    page.fill("#text-upload", "snow")
    page.set_input_files("#image", file(4))
    if not script:
        page.get_by_role("button", name="Search", exact=True).click()
    page.wait_for_url("**/search")
    assert ids_of(page) == expected(worded, Query(picture(4), text="snow"))
    assert page.locator(".query .name").inner_text() == "photo.png"
    assert page.locator(".words").inner_text() == "“snow”"
    assert page.locator("#text-upload").input_value() == "snow"
    clicked = ids_of(page)[2]
    page.locator(".sheet-hits a.mat").nth(2).click()  # a hit is searched with by itself
    page.wait_for_selector("form.refine")
    assert ids_of(page) == expected(worded, Query(IndexedId(clicked)))
    page.get_by_label("Add words").fill("rain")
    page.get_by_role("button", name="Search again").click()
    page.wait_for_url(re.compile("text=rain"))
    assert ids_of(page) == expected(worded, Query(IndexedId(clicked), text="rain"))
    assert page.locator(".query code").inner_text() == clicked
    assert page.get_by_label("Add words").input_value() == "rain"


def test_the_page_with_words_keeps_the_rules_of_the_other(
    visit: Visit, worded_address: str
) -> None:
    for viewport in (WIDE, NARROW, {"width": 320, "height": 600}):
        for scheme in ("light", "dark"):
            page = visit(True, at=worded_address, viewport=viewport, color_scheme=scheme)
            for step in ("", "search?text=" + "long" * 300, f"search?id={IDS[0]}&text=snow"):
                page.goto(worded_address + step)
                assert_no_sideways_scrolling(page)
                assert page.evaluate(CONTRAST) == []
                assert page.evaluate(NAMELESS) == []
                assert page.evaluate(REPEATED) == []
            page.goto(f"{worded_address}search?text=snow&verify=1")
            assert "needs a picture" in page.locator(".notice[role=alert]:visible").inner_text()
            assert page.locator("#text-upload").input_value() == "snow"
