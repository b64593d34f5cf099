"""Both engines, filled with the same records, answer every call alike."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import cbir
from cbir.errors import CbirError, IndexStateError
from cbir.index.base import Detail, Entry, FileState, Index, Tombstone, difference
from cbir.index.open import create_index, index_exists, open_index
from cbir.ingest.copy import CopyReport, copy_index
from cbir.search.searcher import IndexedId, Searcher
from cbir.testing import make_entry, sample_entries, unit
from cbir.types import Failure
from cbir.web.app import create_app
from tests.cli.support_cli import call, many_pictures
from tests.descriptors.local.support_textures import texture
from tests.index.elasticsearch.support_elasticsearch import own_server, session_server
from tests.index.embedded.support_index import MODEL, SPEC
from tests.support_files import contents
from tests.web.support_web import Grid
from tools.elasticsearch_address import Address

pytestmark = pytest.mark.elasticsearch
QUERIES = unit(np.random.default_rng(7).normal(size=(20, 8)))


@pytest.fixture(scope="module", params=["open", "secured"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Address:
    wanted = {"security": True} if request.param == "secured" else {}
    return session_server(tmp_path_factory, **wanted)


@pytest.fixture
def url(server: Address, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    for variable, value in server.environment().items():
        monkeypatch.setenv(variable, value)
    name = f"c-{uuid.uuid4().hex[:12]}"
    yield server.index_url(name)
    for index in server.request("GET", f"/{name}*"):
        server.request("DELETE", f"/{index}")


@pytest.fixture
def place(tmp_path: Path) -> str:
    return str(tmp_path / "photos.cbir")


def records() -> list[Entry]:
    """One to three parts, equal vectors, metadata of every kind, ids of every kind."""
    draw = np.random.default_rng(11)
    entries = sample_entries(120, parts=3) + sample_entries(80, seed=1, prefix="b")
    same = unit(draw.normal(size=(1, 8)))
    entries += [make_entry(f"tie/{n}", same) for n in ("10", "2", "é", "Z", "a", "~", "%20x")]
    entries += [make_entry(f"tie/{n:03d}", entries[5].vectors[1:2]) for n in range(40)]
    facts: list[dict[str, Any]] = [
        {},
        {"price": 2.5, "shop": "s1"},
        {"price": 3, "shop": "Ünïcode, with comma", "day": "2024-05-03T12:30:45"},
        {"price": "on request", "net.price": -1.5},
        {"price": 0, "big": 2**62 + 1, "shop": "s2", "a b": "x", "day": "2024-06"},
    ]
    return [
        replace(
            entry,
            record=replace(
                entry.record,
                metadata=facts[number % 5],
                width=100 + number,
                label=("cat", "dog", None, "größer")[number % 4],
                mtime_ns=None if number % 7 == 0 else 10**18 + number,
                stamp=None if number % 3 else f"{number}-1",
                decoder=number % 2,
                phash=None if number % 5 else bytes([number % 256]) * 8,
                given=frozenset(["label", *facts[number % 5]][: number % 4]),
            ),
        )
        for number, entry in enumerate(entries)
    ]


@pytest.fixture
def pair(url: str, place: str) -> Iterator[tuple[Index, Index]]:
    with (
        closing(create_index(place, SPEC, MODEL)) as embedded,
        closing(create_index(url, SPEC)) as elastic,
    ):
        yield embedded, elastic


def both(pair: tuple[Index, Index], do: Callable[[Index], Any]) -> Any:
    """What both answer, which must be the same, or the error that both raise."""

    def told(index: Index) -> Any:
        try:
            return do(index)
        except CbirError as error:
            return type(error), error.message.replace(index.url, "INDEX"), error.hint

    first, second = (told(index) for index in pair)
    assert first == second
    return first


def same_hits(
    pair: tuple[Index, Index], k: int, *, where: Sequence[str] = (), **options: Any
) -> None:
    first, second = (index.search(QUERIES, k, where=where, **options) for index in pair)
    for number, (mine, theirs) in enumerate(zip(first, second, strict=True)):
        asked = f"k={k}, where={where}, query {number}"
        assert difference(mine, theirs) == "", asked
        boxes = [dict(zip(m.ids, m.boxes, strict=True)) for m in (mine, theirs)]
        assert all(boxes[0][i] == boxes[1][i] for i in boxes[0].keys() & boxes[1].keys()), asked


WHERE = [
    "label=cat",
    "label!=cat,dog",
    "label>d",
    "label<=dog",
    "width>=150",
    "width<120.5",
    "width=101,102.0,7.5",
    "width!=101",
    "price=3",
    "price!=3",
    "price<2.6",
    "price>=0",
    "price=on request,2.5",
    "price>on",
    "shop=s1,s2",
    'shop="Ünïcode, with comma"',
    "shop!=s1",
    "net.price<0",
    "a b=x",
    f"big={2**62 + 1}",
    f"big={2**62}",
    f"big>{2**62}",
    "big<1e30",
    "id=a/0003,tie/é",
    "id>=tie/",
    "source=b",
    "location=0004",
    "path!=0004",
    "missing=true",
    "missing!=true",
    "label~A",
    "label~ÖSS",
    "shop~COMMA",
    "shop~ü",
    "price~on",
    'shop~"Ünïcode, "',
    "folder=*",
    'folder=""',
    'folder!=""',
    "id~%20X",
    "day=2024-05",
    "day!=2024-05",
    "day>2024-05",
    "day<=2024-05",
    "day=2024",
    "day=2024-05-03",
    'day="2024-05"',
]


def fill(index: Index) -> None:
    entries = records()
    index.register_source("a", "/photos/a")
    index.register_source("a", "/photos/a-too")
    index.register_source("b", "/photos/b")
    index.register_source("tie", "/photos/tie")
    index.add(entries[100:])
    index.add(entries[:100])
    index.add(sample_entries(10, seed=9, parts=2))  # replaces
    index.remove(["a/0011", "b/0005", "none"])
    index.mark_missing(["a/0020", "b/0006", "none"])
    index.touch(
        {
            "b/0006": FileState(5, None, None, 0),
            "a/0021": FileState(None, 9, "3-4", 1),
            "none": FileState(1, 1, None, 0),
        }
    )
    bird = Detail("bird", {"price": 8.25}, frozenset(["price"]))
    index.set_details({"a/0022": bird, "none": Detail(None, {})})
    index.bury([removed("b/0007"), removed("a/never was")])
    index.set_failures("a", [Failure("a", "y", "bad"), Failure("a", "x", "worse")])


def removed(record_id: str) -> Tombstone:
    source, _, location = record_id.partition("/")
    return Tombstone(record_id, source, location, "b" * 64, None, -(10**18), "7-1", 1_700_000_000)


@pytest.fixture
def filled(pair: tuple[Index, Index]) -> tuple[Index, Index]:
    for index in pair:
        fill(index)
    return pair


def test_both_engines_hold_the_same(filled: tuple[Index, Index]) -> None:
    for refreshed in (False, True):
        if refreshed:
            for index in filled:
                index.refresh()
        both(filled, lambda index: index.count())
        ids = both(filled, lambda index: list(index.ids()))
        both(filled, lambda index: index.labels())
        both(filled, lambda index: index.sources())
        both(filled, lambda index: index.failures())
        both(filled, lambda index: index.tombstones())
        both(filled, lambda index: index.tombstones(["b/0007", "b/0007", "none"]))
        both(filled, lambda index, ids=ids: index.records(ids[::-3]))
        for name in ("a", "b", "tie", "none"):
            both(filled, lambda index, name=name: index.stamps(name))
        for record_id in ("a/0003", "a/0022", "b/0006", "tie/é", "none"):
            both(filled, lambda index, i=record_id: index.thumbnail(i))
            both(filled, lambda index, i=record_id: index.vectors(i).tolist())
        for after in ("", "a/0050", "b", "zzz"):
            both(filled, lambda index, after=after: listed(index, after))
        both(filled, lambda index: (index.matrix()[0], index.matrix()[1].tolist()))
    both(filled, lambda index: index.verify())
    common = ("count", "vectors", "dim", "descriptor", "labels", "missing", "failed", "kept_out")
    for name in ("label", "width", "price", "shop", "missing", "source", "none"):
        both(filled, lambda index, name=name: index.values(name, 5))
    both(filled, lambda index: index.info()["fields"])
    both(filled, lambda index: {name: index.info()[name] for name in common})


def listed(index: Index, after: str) -> list[Any]:
    return [
        (entry.record, entry.vectors.tolist(), list(entry.boxes), entry.thumbnail)
        for entry in index.entries(after)
    ]


def test_both_engines_find_the_same(filled: tuple[Index, Index]) -> None:
    ids = list(filled[0].ids())
    exclude = [ids[number] if number % 3 else None for number in range(len(QUERIES))]
    for k in (1, 2, 10, 45, 1000):
        for exact in (False, True):
            same_hits(filled, k, exact=exact)
        same_hits(filled, k, exclude=exclude)
    for where in WHERE:
        same_hits(filled, 10, where=[where])
        same_hits(filled, 1000, where=[where, "label=cat"], exclude=exclude)


def test_both_engines_refuse_the_same(filled: tuple[Index, Index]) -> None:
    zeros, wide = np.zeros((1, 8), np.float32), unit(np.ones((1, 9)))
    for ask in (
        lambda index: index.search(QUERIES, 3, where=["prize=3"]),
        lambda index: index.search(QUERIES, 3, where=["price"]),
        lambda index: index.search(QUERIES, 3, where=["width>wide"]),
        lambda index: index.search(QUERIES, 3, exclude=[]),
        lambda index: index.search(QUERIES, 0),
        lambda index: index.search(zeros, 3),
        lambda index: index.search(wide, 3),
        lambda index: index.records(["a/0001", "none"]),
        lambda index: index.vectors("none"),
        lambda index: index.thumbnail("none"),
        lambda index: index.move_source("none", "/x"),
        lambda index: index.move_source("a", "/photos/a-too"),
        lambda index: index.add([make_entry("x/1", zeros)]),
        lambda index: index.set_details({"a/0001": Detail(None, {"x": float("nan")})}),
    ):
        kind, *_ = both(filled, ask)
        assert issubclass(kind, CbirError)


def test_ties_are_ordered_by_id_at_every_cut(filled: tuple[Index, Index]) -> None:
    query = records()[5].vectors[1:2]
    found = [index.search(query, 60)[0].ids for index in filled]
    assert found[0] == found[1]
    for k in range(1, 45):
        assert [index.search(query, k)[0].ids for index in filled] == [found[0][:k]] * 2


def test_an_index_goes_to_the_server_and_back_unchanged(
    url: str, place: str, tmp_path: Path
) -> None:
    with closing(create_index(place, SPEC)) as index:
        fill(index)
        index.refresh()
        count, kept = index.count(), listed(index, "")
    back = str(tmp_path / "back.cbir")
    seen: list[tuple[int, int | None]] = []
    report = copy_index(place, url, on_done=lambda done, total: seen.append((done, total)))
    assert (report.records, report.copied, report.unchanged) == (count, count, 0)
    assert (report.compared, report.exact) == (50, True)
    assert seen[0] == (0, count)
    assert seen[-1] == (count, count)
    assert copy_index(url, back).copied == count
    with closing(open_index(place)) as one, closing(open_index(back)) as other:
        assert listed(other, "") == kept
        assert other.sources() == one.sources()
        assert other.failures() == one.failures()
        assert other.tombstones() == one.tombstones()
        assert other.spec == one.spec


def test_a_copy_goes_on_where_it_was_broken_off(url: str, place: str) -> None:
    entries = records()
    with closing(create_index(place, SPEC)) as index:
        fill(index)
        index.refresh()
        count = index.count()

    def stop(done: int, total: int | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        copy_index(place, url, on_done=stop)
    assert index_exists(url)
    with closing(create_index(url, SPEC)) as index:
        index.add([entry for entry in entries if entry.record.id.startswith("b/001")])
    report = copy_index(place, url)
    assert (report.records, report.unchanged) == (count, 10)
    again = copy_index(place, url)
    assert isinstance(again, CopyReport)
    assert (again.copied, again.unchanged) == (0, count)
    with closing(open_index(place, write=True)) as index:
        index.set_details({"b/0001": Detail("changed", {})})
        index.move_source("a", "/elsewhere")
    assert copy_index(place, url, conflicts="overwrite").copied == 1
    with closing(open_index(url)) as index:
        assert index.records(["b/0001"])[0].label == "changed"
        assert index.sources()["a"] == "/elsewhere"


def test_a_copy_into_an_index_of_other_things_is_refused(url: str, place: str) -> None:
    for where, entries in ((place, sample_entries(5)), (url, sample_entries(3, prefix="other"))):
        with closing(create_index(where, SPEC)) as index:
            index.register_source("a", "/a")
            index.register_source("other", "/o")
            index.add(entries)
            index.refresh()
    with pytest.raises(IndexStateError, match="holds 3 records that"):
        copy_index(place, url)


def test_the_model_goes_with_the_index(url: str, tmp_path: Path) -> None:
    pictures = many_pictures(tmp_path / "photos", 6)
    place, back = tmp_path / "one.cbir", tmp_path / "two.cbir"
    assert call("index", pictures, "--into", place).code == 0
    assert call("copy", place, url, "--json").json["copied"] == 6
    assert call("copy", url, back, "--json").json["copied"] == 6
    with closing(open_index(str(place))) as one, closing(open_index(str(back))) as two:
        assert contents(one.model_files()) == contents(two.model_files()) != {}
    answers = [
        [
            (hit["id"], pytest.approx(hit["score"], abs=2e-6))
            for hit in call("search", pictures / "0003.bmp", "--in", where, "--json").json[0][
                "hits"
            ]
        ]
        for where in (place, url, back)
    ]
    assert answers[0] == answers[1] == answers[2]
    said = call("copy", place, url)
    assert "6 already there" in said.out
    assert "compared: the same results for 6 queries" in said.out


def test_pages_and_hits_of_both_engines_are_the_same(url: str, place: str, tmp_path: Path) -> None:
    pictures = many_pictures(tmp_path / "photos", 12)
    pages, hits = [], []
    for where in (place, url):
        cbir.index_images([pictures], where, descriptor=Grid())
        with closing(Searcher.open(where, Grid())) as searcher:
            web = create_app(searcher).test_client()
            data = {"image": (pictures / "0004.bmp").open("rb"), "k": "5"}
            answer = web.post("/search", data=data, headers={"Accept": "application/json"})
            assert answer.status_code == 200
            hits.append([(h["id"], h["thumbnail_url"], h["box"]) for h in answer.json["hits"]])
            name = searcher.index.url.rpartition("/")[2]
            pages.append(web.get("/").text.replace(name, "NAME"))
            found = searcher.search(IndexedId("photos/0004.bmp"), k=5)
            assert found[0].id != "photos/0004.bmp"
            assert web.get(hits[-1][0][1]).status_code == 200
            assert web.get("/healthz").json["count"] == 12
    assert hits[0] == hits[1]
    assert pages[0] == pages[1]


def test_originals_are_looked_at_again_by_both_engines(
    url: str, place: str, tmp_path: Path
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed in range(6):
        Image.fromarray(texture(seed)).save(folder / f"{seed}.png")
    corner = np.rot90(texture(3)[:90, 120:]).copy()
    found = []
    for target in (place, url):
        cbir.index_images([folder], target, descriptor=Grid())
        with closing(Searcher.open(target, Grid())) as searcher:
            found.append(searcher.search(corner, k=6, verify=True, any_orientation=True))
    assert found[0][0].id == "photos/3.png" and found[0][0].verified
    rows = [[(hit.id, hit.inliers, hit.verified, hit.orientation) for hit in one] for one in found]
    assert rows[0] == rows[1]
    assert [hit.score for hit in found[0]] == pytest.approx([h.score for h in found[1]], abs=2e-6)


def test_originals_of_a_server_index_are_opened_where_its_address_was_confirmed(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed in range(3):
        Image.fromarray(texture(seed)).save(folder / f"{seed}.png")

    def verified(home: str, target: str = url) -> bool | None:
        monkeypatch.setenv("CBIR_HOME", str(tmp_path / home))
        with closing(Searcher.open(target, Grid())) as searcher:
            first = searcher.search(texture(1), k=1, verify=True)[0]
        assert first.id == "photos/1.png"
        return first.verified

    monkeypatch.setenv("CBIR_HOME", str(tmp_path / "indexer"))
    cbir.index_images([folder], url, descriptor=Grid())
    assert verified("indexer")
    assert len(list((tmp_path / "indexer" / "keypoints").iterdir())) == 3
    assert not verified("another")
    assert call("sources", url, "--confirm").code == 0
    assert verified("another")
    cbir.index_images([folder], url, descriptor=Grid(), rebuild=True)  # by this machine, so far
    assert verified("another") and verified("indexer")
    with (
        closing(open_index(f"{url}/?num_candidates=50")) as same,
        closing(open_index(url)) as index,
    ):
        assert same.identity == index.identity


@pytest.mark.slow
def test_with_scripts_every_type_is_exact(tmp_path: Path) -> None:
    with own_server(fuller=True, heap="512m") as server:
        for kind in ("hnsw", "int8_hnsw"):
            url = f"{server.index_url(kind.replace('_', '-'))}?type={kind}"
            with (
                closing(create_index(str(tmp_path / kind), SPEC)) as embedded,
                closing(create_index(url, SPEC)) as elastic,
            ):
                _same_by_script((embedded, elastic))


def _same_by_script(pair: tuple[Index, Index]) -> None:
    for index in pair:
        fill(index)
        index.refresh()
    exclude = [next(pair[0].ids())] * len(QUERIES)
    for k in (1, 10, 1000):
        same_hits(pair, k, exact=True)
        same_hits(pair, k, exact=True, exclude=exclude)
    for where in WHERE:
        same_hits(pair, 10, where=[where], exact=True)
    query = records()[5].vectors[1:2]
    for k in (3, 20):
        found = [index.search(query, k, exact=True)[0].ids for index in pair]
        assert found[0] == found[1]


def test_a_collection_that_changes_is_followed_alike(url: str, place: str, tmp_path: Path) -> None:
    """Commands, and what the index holds after each: the engines differ in nothing."""
    a, b, c = (tmp_path / name for name in "abc")
    (a / "sub").mkdir(parents=True)
    b.mkdir()
    for n in range(4):
        pictures = {n: f"a/{n}.png", 10 + n: f"a/sub/{n} s.png", 20 + n: f"b/{n}.png"}
        for number, name in pictures.items():
            Image.fromarray(texture(number, 48, 32)).save(tmp_path / name)
    (a / "bad.jpg").write_bytes(b"\xff\xd8 torn")
    facts = tmp_path / "facts.csv"
    facts.write_text("path,label,day\n0.png,zero,2024-05\nsub/1 s.png,one,2024-06\n1.png,,x\n")

    def step(*words: object) -> None:
        told = []
        for target in (place, url):
            answer = call(*(target if word == "INDEX" else word for word in words))
            with closing(open_index(target)) as index:
                held = [entry.record for entry in index.entries()]
                held += [index.tombstones().keys(), index.sources(), index.failures()]
            out = re.sub(r'"seconds": [0-9.e-]+', "", answer.out.replace(target, "INDEX"))
            out = re.sub(r"(\d\.\d{4})\d+", r"\1", out)  # scores differ in the last digits
            told.append((answer.code, out, held))
        assert told[0] == told[1], words

    def index(*words: object) -> None:
        step("index", *words, "--into", "INDEX", "--json")

    index(a, b, "--metadata", facts, "--descriptor", "classic")
    (a / "0.png").rename(b / "moved.png")
    index(a, b)
    (a / "1.png").rename(a / "t")
    (a / "2.png").rename(a / "1.png")
    (a / "t").rename(a / "2.png")
    (a / "sub").rename(a / "süb")
    index(a)
    step("remove", "INDEX", "a/süb/*", "--json")
    (a / "süb").rename(b / "sub 2")
    index(a, b)
    step("why", "--id", "a/1.png", "b/sub 2/1 s.png", "--in", "INDEX", "--json")
    step("why", "--id", "a/1.png", "a/bad.jpg", "--in", "INDEX", "--json")
    step("why", "--id", "a/1.png", "b/3.png", "--in", "INDEX", "--where", "label~ZER", "--json")
    index(b / "sub 2", "--again")
    b.rename(c)
    step("sources", "INDEX", "--relocate", b, c)
    Image.fromarray(texture(77, 48, 32)).save(a / "1.png")
    index(a, c, "--metadata", facts)
    (a / "3.png").unlink()
    index(a, "--prune", "--exclude", "2*")
    step("remove", "INDEX", "--where", "label=zero", "--json")
    step("sources", "INDEX", "--rename", "b", "beta")
    step("sources", "INDEX", "--remove", "a")
    for where in ("folder=sub 2", "folder=sub", "path~S.PNG", "day>=2024-06", "day=2025"):
        asked = ("--in", "INDEX", "--where", where, "-k", "3", "--paths")
        step("search", "--id", "beta/1.png", *asked)
    step("verify", "INDEX", "--json")
