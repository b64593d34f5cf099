"""Why a picture is, or is not, among the hits: ranks against whole searches and brute force."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from shutil import make_archive, rmtree
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cbir.home import cbir_home
from cbir.images.ids import encode_path
from cbir.index.base import Index, Matches
from cbir.ingest.indexing import index_images
from cbir.search import why as module
from cbir.search.query import IndexedId, Query
from cbir.search.searcher import Searcher
from cbir.search.why import id_of, why
from cbir.types import Vectors
from cbir.web.app import create_app
from tests.cli.support_cli import call
from tests.descriptors.local.support_textures import texture
from tests.web.support_web import LARGE, NAMES, Grid, build_index, open_searcher, picture

IDS = [f"pictures/{encode_path(name)}" for name in NAMES]
JSON = {"Accept": "application/json"}


@pytest.fixture(scope="module")
def searcher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Searcher]:
    opened = open_searcher(build_index(tmp_path_factory.mktemp("why"), regions=5))
    yield opened
    opened.close()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Searcher]:
    """An index whose files a test may change."""
    opened = open_searcher(build_index(tmp_path, regions=5))
    yield opened
    opened.close()


@pytest.mark.parametrize("at_once", [4, 10_000])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"where": ["label=cold", "width<=32"]},
        {"any_orientation": True},
        {"expand": 3, "where": ["label=warm"]},
    ],
)
@pytest.mark.parametrize("query", [picture(3), IndexedId(IDS[7])], ids=["upload", "id"])
def test_ranks_are_those_of_whole_searches(
    searcher: Searcher,
    monkeypatch: pytest.MonkeyPatch,
    query: bytes | IndexedId,
    options: dict[str, Any],
    at_once: int,
) -> None:
    monkeypatch.setattr(module, "_AT_ONCE", at_once)
    k = 2
    order = [hit.id for hit in searcher.search(query, k=1000, **options)]
    for record_id in IDS:
        answer = why(searcher, query, record_id, k=k, **options)
        assert answer.place is not None
        expected = order.index(record_id) + 1 if record_id in order else None
        assert answer.place.rank == expected, record_id
        assert answer.state == ("hit" if expected and expected <= k else "no hit")
        if answer.state == "hit":
            assert answer.hidden_by == []
        elif query == IndexedId(record_id):
            assert answer.hidden_by == ["query"]
        elif expected is None:
            assert answer.hidden_by == ["where"]
        else:
            assert "k" in answer.hidden_by
            assert f"-k {expected} shows it" in answer.sentences[-1]
    if "expand" in options or "any_orientation" in options:
        return
    # By brute force: the best part of every record, and ties by id.
    asked = searcher.index.vectors(query.id)[:1] if isinstance(query, IndexedId) else (
        Grid().describe([np.asarray(Image.open(io.BytesIO(query)).convert("RGB"))])
    )  # fmt: skip
    scores = {name: float((searcher.index.vectors(name) @ asked[0]).max()) for name in IDS}
    for record_id in IDS:
        place = why(searcher, query, record_id, **options).place
        assert place is not None
        assert place.score == pytest.approx(scores[record_id], abs=2e-6)
        others = set(IDS) - ({query.id} if isinstance(query, IndexedId) else set())
        above = sum(scores[name] > scores[record_id] + 2e-6 for name in others)
        assert place.rank_of_all == 1 + above
        assert place.count == len(IDS)


def test_the_filter_that_hides_it_is_named_with_its_value(searcher: Searcher) -> None:
    answer = why(searcher, picture(0), IDS[0], where=["width<=32", "label=cold"])
    assert answer.hidden_by == ["where"]
    assert answer.sentences[1] == "The filter label=cold hides it: its label is warm."
    assert answer.place is not None and answer.place.rank_of_all == 1


def test_a_step_that_hid_it_is_named(tmp_path: Path) -> None:
    (tmp_path / "blends").mkdir()
    draw = np.random.default_rng(0)
    base = draw.uniform(0, 255, (3, 4, 4, 3))
    for n in range(12):  # much alike, so that their average has other neighbours
        pixels = np.tensordot(draw.dirichlet([1, 1, 1]), base, 1).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / "blends" / f"{n}.png")
    index_images([tmp_path / "blends"], tmp_path / "b.cbir", descriptor=Grid())
    opened = open_searcher(str(tmp_path / "b.cbir"))

    def shown(query: IndexedId, expand: int) -> list[str]:
        return [hit.id for hit in opened.search(query, k=2, expand=expand)]

    query, target = next(
        (query, other)
        for query in map(IndexedId, opened.index.ids())
        for other in shown(query, 0)
        if other not in shown(query, 4)
    )
    answer = why(opened, query, target, k=2, expand=4)
    assert answer.hidden_by == ["expand", "k"]
    before = shown(query, 0).index(target) + 1
    assert f"It would be hit {before} without expansion." in answer.sentences
    opened.close()


def test_verification_that_hid_it_is_named(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for seed in range(4):
        Image.fromarray(texture(seed)).save(tmp_path / "photos" / f"{seed}.png")
    index_images([tmp_path / "photos"], tmp_path / "t.cbir", descriptor=Grid())
    opened = Searcher.open(tmp_path / "t.cbir", Grid())
    query, first = next(  # a part of one picture that looks more like another
        (part, first)
        for seed in range(4)
        for part in (texture(seed)[:90, 120:], texture(seed)[60:160, 40:140])
        if (first := opened.search(part, k=1)[0].id) != f"photos/{seed}.png"
    )
    assert first != opened.search(query, k=1, verify=True)[0].id
    answer = why(opened, query, first, k=1, verify=True)
    assert answer.hidden_by == ["verify", "k"]
    assert "It would be hit 1 without verification." in answer.sentences
    opened.close()
    (tmp_path / first).unlink()
    rmtree(tmp_path / "t.cbir" / "keypoints")
    opened = Searcher.open(tmp_path / "t.cbir", Grid())
    late = why(opened, query, first, k=1, verify=True, go_on=lambda: False)
    assert late.state == "hit"  # its score is the best, and nothing was compared
    answer = why(opened, query, first, k=1, verify=True)
    assert (
        "Its original is gone, changed or not confirmed, so it is not verified."
        in answer.sentences[1]
    )
    assert answer.sentences[-1] == "Its original is gone; the index still finds it."
    opened.close()


class Forgetful:
    """An index whose approximate search never finds one record."""

    def __init__(self, index: Index, lost: str) -> None:
        self._index, self._lost = index, lost

    def __getattr__(self, name: str) -> Any:
        return getattr(self._index, name)

    def search(self, vectors: Vectors, k: int, *, exact: bool = False, **rest: Any) -> Any:
        found = self._index.search(vectors, k, exact=exact, **rest)
        if exact:
            return found
        return [
            Matches([m.ids[n] for n in some], m.scores[some], [m.boxes[n] for n in some])
            for m in found
            for some in [[n for n, name in enumerate(m.ids) if name != self._lost]]
        ]


def test_what_an_approximate_search_missed_is_told(searcher: Searcher) -> None:
    lost = Searcher(Forgetful(searcher.index, IDS[3]), Grid())  # type: ignore[arg-type]
    answer = why(lost, picture(3), IDS[3])
    assert answer.hidden_by == ["exact"]
    assert "It would be hit 1 without approximation." in answer.sentences
    assert answer.place is not None and answer.place.rank == 1


def test_the_file_behind_a_record_is_looked_at(own: Searcher, tmp_path: Path) -> None:
    def state(record_id: str) -> tuple[str, bool]:
        kept = why(own, picture(0), record_id).kept
        assert kept is not None
        assert (kept.parts, kept.dim) == (5, 48)
        return kept.state, bool(kept.reason)

    assert state(LARGE) == ("unchanged", False)
    (tmp_path / LARGE).write_bytes(picture(99))
    assert state(LARGE) == ("changed", False)
    (tmp_path / LARGE).unlink()
    assert state(LARGE) == ("gone", True)


def test_what_is_not_in_the_index_is_failed_removed_or_unknown(tmp_path: Path) -> None:
    url = build_index(tmp_path)
    (tmp_path / "pictures" / "warm" / "torn.png").write_bytes(picture(1)[:60])
    index_images([tmp_path / "pictures"], url, descriptor=Grid(), label_from_folder=True)
    opened = open_searcher(url)
    torn = why(opened, picture(0), "pictures/warm/torn.png")
    assert (torn.state, torn.place, torn.kept) == ("failed", None, None)
    assert "truncated" in torn.reason
    assert call("remove", url, IDS[1]).code == 0
    removed = why(opened, picture(0), IDS[1])
    assert (removed.state, removed.place) == ("removed", None)
    assert f"on {datetime.now(UTC).date()}." in removed.sentences[0]
    assert "--again" in removed.sentences[1]
    moved = why(opened, picture(0), "pictures/cold/RED.png")
    assert (moved.state, moved.near) == ("unknown", ["pictures/warm/red.png"])
    assert "pictures/warm/red.png" in moved.sentences[-1]
    assert why(opened, picture(0), "pictures/warm/rod.png").near[0] == "pictures/warm/red.png"
    opened.close()


def test_what_excludes_a_picture_is_named(tmp_path: Path) -> None:
    url, photos = build_index(tmp_path), tmp_path / "pictures"
    names = ["warm/a b/1.png", "warm/@eaDir/2.png", "warm/.h/3.png", "4.tmp.png", "cold/keep/5.png"]
    for name in [*names, "warm/new.png"]:
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        (photos / name).write_bytes(picture(1))
    (photos / ".cbirignore").write_text("# mine\n*.tmp.png\nkeep/\n")
    (photos / "cold" / ".cbirignore").write_text("!keep\n")
    (photos / "warm" / ".cbirignore").write_text("/a b\n")
    opened = open_searcher(url)

    def told(record_id: str) -> Any:
        answer = why(opened, picture(0), record_id)
        assert answer.place is None and answer.kept is None
        return answer.state, answer.to_json()["excluded_by"], answer.sentences[0]

    start = "pictures/{} is not in the index: "
    for name, path, pattern, file, said in [
        ("warm/a%20b/1.png", "warm/a%20b/", "/a b", "warm/.cbirignore",
         "the pattern '/a b' in pictures/warm/.cbirignore excludes its folder "
         "pictures/warm/a%20b/."),
        ("4.tmp.png", "4.tmp.png", "*.tmp.png", ".cbirignore",
         "the pattern '*.tmp.png' in pictures/.cbirignore excludes it."),
        ("warm/@eaDir/2.png", "warm/@eaDir/", "@eaDir/", None,
         "the default pattern '@eaDir/' excludes its folder pictures/warm/@eaDir/."),
        ("warm/.h/3.png", "warm/.h/", ".*", None,
         "the default pattern '.*' excludes its folder pictures/warm/.h/."),
    ]:  # fmt: skip
        by = {"path": path, "pattern": pattern, "file": file}
        assert told(f"pictures/{name}") == ("excluded", by, start.format(name) + said)
    there = "it was never indexed, or was excluded with --exclude. Its file is there: "
    for name in ("cold/keep/5.png", "warm/new.png"):
        assert told(f"pictures/{name}")[:2] == ("unknown", None)
        assert told(f"pictures/{name}")[2].startswith(start.format(name) + there)
    gone = "it was never indexed, or was pruned; its source has no picture of this name."
    for name in ("none.png", ".cbirignore/../none.png", "cold", "../pictures/warm/new.png"):
        assert told(f"pictures/{name}") == ("unknown", None, start.format(name) + gone)
    assert told("other/1.png")[2].endswith("it was never indexed; it is in no source of the index.")

    photos.rename(tmp_path / "away")
    photos.mkdir()
    unsure = "it was never indexed, was excluded (--exclude, .cbirignore), or was pruned."
    assert told("pictures/4.tmp.png")[2].endswith(unsure)
    photos.rmdir()
    assert told("pictures/4.tmp.png")[2].endswith(unsure)
    (tmp_path / "away").rename(photos)
    (cbir_home() / "sources.json").unlink()
    assert told("pictures/4.tmp.png")[2].endswith(unsure)
    opened.close()


def test_members_of_an_archive_are_excluded_by_default_patterns(tmp_path: Path) -> None:
    for name in ("a.png", "@eaDir/b.png", ".h/c.png"):
        (tmp_path / "p" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "p" / name).write_bytes(picture(1))
    archive = make_archive(str(tmp_path / "p"), "zip", tmp_path / "p")
    index_images([archive], tmp_path / "p.cbir", descriptor=Grid())
    opened = open_searcher(str(tmp_path / "p.cbir"))
    for record_id, pattern in (("p/@eaDir/b.png", "@eaDir/"), ("p/.h/c.png", ".*")):
        found = why(opened, picture(0), record_id)
        assert found.excluded_by is not None and found.excluded_by.pattern == pattern
        assert len(found.sentences) == (1 if pattern == ".*" else 2)  # never indexed
    assert why(opened, picture(0), "p/z.png").state == "unknown"
    opened.close()


def test_a_picture_in_a_folder_that_failed_has_failed(tmp_path: Path) -> None:
    url, photos = build_index(tmp_path), tmp_path / "pictures"
    (photos / "new").mkdir()
    (photos / "new" / ".cbirignore").symlink_to("nowhere")
    (photos / "new" / "1.png").write_bytes(picture(1))
    index_images([photos], url, descriptor=Grid())
    opened = open_searcher(url)
    answer = why(opened, picture(0), "pictures/new/1.png")
    assert answer.state == "failed"
    assert "its folder pictures/new could not be read" in answer.sentences[0]
    assert answer.reason.startswith(".cbirignore cannot be read")
    opened.close()


def test_pictures_of_a_source_that_was_read_in_part_need_not_have_failed(tmp_path: Path) -> None:
    into = str(tmp_path / "x.cbir")
    with tarfile.open(tmp_path / "t.tar", "w") as archive:
        for seed, name in enumerate(("red.png", "blue.png", "last.png")):
            (tmp_path / name).write_bytes(picture(seed))
            archive.add(tmp_path / name, name)
    with tarfile.open(tmp_path / "t.tar") as archive:
        cut = archive.getmember("last.png").offset_data + 10
    os.truncate(tmp_path / "t.tar", cut)
    assert index_images([tmp_path / "t.tar"], into, descriptor=Grid()).failures
    assert call("remove", into, "t/blue.png").code == 0
    opened = open_searcher(into)

    def told(name: str) -> tuple[str, str, bool]:
        answer = why(opened, picture(0), f"t/{name}")
        return answer.state, answer.sentences[0], bool(answer.reason)

    assert told("blue.png")[0] == "removed"
    assert told("@eaDir/red.png")[0] == "excluded"
    part = "its source could not be read completely when it was last indexed."
    assert told("rod.png") == ("unknown", f"t/rod.png is not in the index: {part}", True)
    assert why(opened, picture(0), "t/rod.png").near == ["t/red.png"]
    opened.close()


def test_names_of_failed_and_removed_pictures_need_no_encoding(tmp_path: Path) -> None:
    url = build_index(tmp_path)
    folder = tmp_path / "pictures" / "two words"
    folder.mkdir()
    (folder / "torn one.png").write_bytes(picture(1)[:60])
    (folder / "good one.png").write_bytes(picture(1))
    index_images([tmp_path / "pictures"], url, descriptor=Grid())
    assert call("remove", url, "pictures/two words/good one.png").code == 0
    for name, state in (("torn one", "failed"), ("good one", "removed")):
        told = call(
            "why", tmp_path / "pictures" / NAMES[0], f"pictures/two words/{name}.png", "--in", url
        )
        assert f"{state}" in told.out.replace("could not be read", "failed"), told.out


def test_a_file_is_found_by_its_path(own: Searcher, tmp_path: Path) -> None:
    for name, record_id in zip(NAMES, IDS, strict=True):
        assert id_of(own.index, str(tmp_path / "pictures" / name)) == record_id
    assert id_of(own.index, str(tmp_path / "pictures" / "new.png")) == "pictures/new.png"
    for name, record_id in zip(NAMES, IDS, strict=True):
        assert id_of(own.index, record_id) == record_id
        if "%" not in name:
            assert id_of(own.index, f"pictures/{name}") == record_id
    assert id_of(own.index, "elsewhere.png") == "elsewhere.png"


# On the command line, with the arguments of `cbir search`, and over HTTP


@pytest.fixture
def place(tmp_path: Path) -> str:
    """An index that the command line can search."""
    for seed, name in enumerate(NAMES):
        path = tmp_path / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(seed, 32))
    url = str(tmp_path / "p.cbir")
    index_images([tmp_path / "pictures"], url, descriptor="classic", label_from_folder=True)
    return url


def test_the_command_takes_the_arguments_of_a_search(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    query = tmp_path / "pictures" / NAMES[0]
    asked = [query, "--in", place, "-k", 3, "--where", "label=warm", "--region", "0,0,1,0.5"]
    hits = call("search", *asked, "--json").json[0]["hits"]
    for hit in hits:
        answer = call("why", *asked, hit["id"], "--json").json
        assert (answer["state"], answer["rank"]) == ("hit", hit["rank"])
        assert answer["score"] == pytest.approx(hit["score"], abs=1e-6)
        assert answer["query"] == str(query)
    by_path = call("why", *asked, tmp_path / "pictures" / NAMES[6])
    assert by_path.out.splitlines()[:2] == [
        f"{IDS[6]} is not among the hits.",
        "The filter label=warm hides it: its label is cold.",
    ]
    assert f"{tmp_path / 'pictures' / NAMES[6]} (unchanged)" in by_path.out
    itself = call("why", "--id", IDS[0], IDS[0], "--in", place)
    assert "It is the query itself" in itself.out
    (tmp_path / "pictures" / "new.png").write_bytes(picture(50))
    new = call("why", query, tmp_path / "pictures" / "new.png", "--in", place)
    assert "Its file is there: index its source again." in new.out
    monkeypatch.chdir(tmp_path)  # there, the id is a path, too
    assert call("why", query, "pictures/new.png", "--in", place).out.count("Its file is there") == 1
    (tmp_path / "far.png").write_bytes(picture(50))
    far = call("why", query, "far.png", "--in", place)
    assert f"Its file is there: index its folder with --into {place}." in far.out
    assert "give a query" in call("why", IDS[0], "--in", place).err
    assert "give a query" in call("why", query, query, IDS[0], "--in", place).err


def test_http_explains_without_paths(own: Searcher, tmp_path: Path) -> None:
    client = create_app(own).test_client()
    asked = {"id": IDS[0], "target": LARGE, "k": 1, "where": "label=cold"}
    expected = why(own, IndexedId(IDS[0]), LARGE, k=1, where=["label=cold"]).to_json()
    answers = [
        client.get("/why", query_string=asked),
        client.post("/why", data={**asked, "id": "", "image": (io.BytesIO(picture(0)), "a.png")}),
    ]
    got = answers[0].json
    assert got is not None and expected["picture"]["path"] == str(tmp_path / LARGE)
    expected["picture"]["path"] = None
    assert got == {"query": IDS[0], **expected}
    assert answers[1].json is not None and answers[1].json["query"] == "a.png"
    (tmp_path / "pictures" / ".hidden.png").write_bytes(picture(1))
    hidden = {**asked, "target": "pictures/.hidden.png"}
    near = create_app(own, on_loopback=True).test_client()
    for headers, state in (({}, "excluded"), ({"X-Forwarded-For": "192.0.2.1"}, "unknown")):
        told = near.get("/why", query_string=hidden, headers=headers).json
        assert told is not None and told["state"] == state
        assert (told["excluded_by"] is None) == (state == "unknown")
    (tmp_path / LARGE).unlink()
    gone = client.get("/why", query_string=asked)
    assert gone.json is not None and gone.json["picture"]["file"] == "gone"
    outside = client.get("/why", query_string={**asked, "target": str(tmp_path / "pictures")})
    assert outside.json is not None and outside.json["state"] == "unknown"
    assert str(tmp_path) not in gone.text
    for wrong, said in (
        ({"target": ""}, "No picture was named"),
        ({"where": "lable=x"}, "unknown field"),
        ({"k": "0"}, "not a valid number"),
    ):
        refused = client.get("/why", query_string={**asked, **wrong}, headers=JSON)
        assert refused.status_code == 400
        assert refused.json is not None and said in refused.json["error"]["message"]


def test_words_are_explained_too(tmp_path: Path) -> None:
    from tests.web.support_web import GridWords

    url = build_index(tmp_path, descriptor=GridWords())
    opened = open_searcher(url, GridWords())
    for rank, hit in enumerate(opened.search(Query(text="snow"), k=5), 1):
        place = why(opened, Query(text="snow"), hit.id, k=5).place
        assert place is not None and (place.rank, place.score) == (rank, hit.score)
    opened.close()
