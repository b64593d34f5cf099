"""Every command from end to end, as a person or a program meets it."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from contextlib import closing, suppress
from pathlib import Path
from urllib.error import HTTPError

import pytest

import cbir
from cbir.descriptors.models import SHIPPED
from cbir.errors import CbirError, how_to_install
from cbir.index.open import open_index
from tests.cli.support_cli import (
    COMMAND,
    call,
    check_no_process_is_left,
    look_at,
    many_pictures,
    needs_signals,
    serving,
    start,
)
from tests.descriptors.local.support_textures import texture
from tests.descriptors.support_photos import write_photos

MANY = 3000
QUICK = ("--descriptor", "cifar10-cnn:embedding")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`photos`/COLOUR/N.png, twelve of them."""
    return write_photos(tmp_path_factory.mktemp("cli") / "photos", per_colour=4)


@pytest.fixture(scope="module")
def made(photos: Path) -> Path:
    """A labelled index of `photos`, which no test changes."""
    place = photos.parent / "made.cbir"
    assert call("index", photos, "--into", place, "--label-from-folder").code == 0
    return place


@pytest.fixture
def own(made: Path, tmp_path: Path) -> Path:
    """A copy of that index, to change."""
    return Path(shutil.copytree(made, tmp_path / "own.cbir"))


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return many_pictures(tmp_path_factory.mktemp("cli-many") / "many", MANY)


# --- index -----------------------------------------------------------------------------------


def test_index_says_what_it_did_and_a_second_run_does_nothing(photos: Path, tmp_path: Path) -> None:
    place = tmp_path / "p.cbir"
    first = call("index", photos, "--into", place)
    assert first.code == 0
    assert first.out.startswith(f"{place}: 12 added in ") and first.out.endswith(" per second\n")
    assert first.err == ""
    second = call("index", photos, "--into", place)
    assert second.out.startswith(f"{place}: 12 unchanged in ") and "second" not in second.out
    assert (second.code, second.err) == (0, "")


def test_index_names_the_indexes_that_it_skips(own: Path) -> None:
    beside = own.parent.parent / f"{own.parent.name}.cbir"
    for written in (False, True):
        if written:
            write_photos(own.parent / "pictures", per_colour=1)
        answer = call("index", own.parent, "--into", beside, *QUICK)
        assert answer.code == (0 if written else 1)
        assert f"1 index inside the sources skipped: {own}\n" in answer.out


def test_index_takes_a_zip_and_a_tar_and_several_sources_at_once(
    photos: Path, tmp_path: Path
) -> None:
    with zipfile.ZipFile(tmp_path / "one.zip", "w") as archive:
        for path in sorted((photos / "red").iterdir()):
            archive.write(path, f"red/{path.name}")
    with tarfile.open(tmp_path / "two.tar.gz", "w:gz") as tar:
        tar.add(photos / "blue", "blue")
    report = call(
        "index", tmp_path / "one.zip", tmp_path / "two.tar.gz", photos / "green" / "0.png",
        "--into", tmp_path / "p.cbir", "--label-from-folder", "--json",
    ).json  # fmt: skip
    assert (report["added"], report["failures"], report["interrupted"]) == (9, [], False)
    answer = call(
        "search", photos / "blue" / "1.png", "--in", tmp_path / "p.cbir", "-k", 1, "--json"
    ).json
    (hit,) = answer[0]["hits"]
    assert (hit["label"], hit["path"], hit["score"]) == ("blue", None, pytest.approx(1, abs=1e-6))


def test_metadata_regions_and_the_descriptor_are_taken_as_asked(
    photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "facts.csv").write_text("path,year\nred/0.png,1999\nred/1.png,2005\nno.png,1\n")
    place = tmp_path / "p.cbir"
    done = call(
        "index", photos, "--into", place, "--descriptor", "cifar10-cnn", "--regions", 5,
        "--metadata", tmp_path / "facts.csv",
    )  # fmt: skip
    assert "warning: 1 metadata row matched no image: 'no.png'" in done.err
    info = call("info", place, "--json").json
    assert (info["count"], info["vectors"], info["descriptor"]["name"]) == (12, 60, "cifar10-cnn")
    assert info["fields"] == [
        {"name": "width", "type": "number", "examples": [40]},
        {"name": "height", "type": "number", "examples": [30]},
        {"name": "year", "type": "number", "examples": [1999, 2005]},
    ]
    found = call(
        "search", photos / "red" / "3.png", "--in", place, "--where", "year>2000",
        "--where", "year<2010", "--json",
    ).json  # fmt: skip
    assert [hit["id"] for hit in found[0]["hits"]] == ["photos/red/1.png"]
    assert found[0]["hits"][0]["metadata"] == {"year": 2005}
    assert "no image has 'year>2010'; there is, for example, year=1999, year=2005" in call(
        "search", photos / "red" / "3.png", "--in", place, "--where", "year>2010"
    ).err  # fmt: skip


def test_files_that_are_gone_are_reported_and_dropped_by_prune(
    photos: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(photos, tmp_path / "photos"))
    place = tmp_path / "p.cbir"
    assert call("index", folder, "--into", place).code == 0
    (folder / "red" / "0.png").unlink()
    marked = call("index", folder, "--into", place)
    assert "1 file missing; --prune removes their records" in marked.out
    assert call("info", place, "--json").json["missing"] == 1
    pruned = call("index", folder, "--into", place, "--prune")
    assert "1 record removed (file missing)" in pruned.out
    assert call("info", place, "--json").json["count"] == 11
    for path in folder.rglob("*.png"):
        path.unlink()
    refused = call("index", folder, "--into", place, "--prune")
    assert refused.error == (
        "refused to prune photos (0 of 11 indexed images found)",
        "check that the folder or drive is available; --force-prune prunes anyway",
    )
    assert call("info", place, "--json").json["count"] == 11
    emptied = call("index", folder, "--into", place, "--force-prune")
    assert (emptied.code, "11 records removed (file missing)" in emptied.out) == (0, True)


# --- search ----------------------------------------------------------------------------------


def test_search_prints_a_table_or_json_with_every_promised_key(photos: Path, made: Path) -> None:
    query = photos / "red" / "1.png"
    table = call("search", query, "--in", made, "-k", 3)
    assert (table.code, table.err) == (0, "")
    lines = [line.split() for line in table.out.splitlines()]
    assert lines[0] == ["rank", "score", "label", "path"]
    assert lines[1] == ["1", "1.0000", "red", str(query)]
    assert [line[0] for line in lines[1:]] == ["1", "2", "3"]
    first, second = call(
        "search", query, photos / "blue" / "0.png", "--in", made, "-k", 4, "--json"
    ).json
    assert (first["query"], second["query"]) == (str(query), str(photos / "blue" / "0.png"))
    assert first["took_ms"] > 0
    hit = first["hits"][0]
    assert hit | {"score": 1} == {
        "rank": 1, "id": "photos/red/1.png", "score": 1, "label": "red", "path": str(query),
        "location": "red/1.png", "band": None, "box": None, "inliers": None, "verified": None,
        "mirrored": None, "orientation": None, "width": 40, "height": 30,
        "missing": False, "metadata": {},
    }  # fmt: skip
    assert [hit["rank"] for hit in second["hits"]] == [1, 2, 3, 4]
    scores = [hit["score"] for hit in second["hits"]]
    assert scores == sorted(scores, reverse=True)


def test_search_takes_standard_input_ids_parts_and_expansion(photos: Path, made: Path) -> None:
    picture = (photos / "green" / "2.png").read_bytes()
    (answer,) = call("search", "-", "--in", made, "--json", stdin=picture).json
    assert (answer["query"], answer["hits"][0]["id"]) == ("-", "photos/green/2.png")
    by_id = call("search", "--id", "photos/green/2.png", "--in", made, "-k", 50, "--json").json
    ids = [hit["id"] for hit in by_id[0]["hits"]]
    assert len(ids) == 11 and "photos/green/2.png" not in ids
    assert ids[:3] == [hit["id"] for hit in answer["hits"][1:4]]
    part = ["search", "-", "--in", made, "--json", "--region", "0,0,0.5,0.5"]
    (cut,) = call(*part, stdin=picture).json
    assert cut["hits"][0]["score"] < 1 - 1e-4
    (expanded,) = call("search", "-", "--in", made, "--json", "--expand", 3, stdin=picture).json
    assert [h["score"] for h in expanded["hits"]] != [h["score"] for h in answer["hits"]]
    assert {hit["label"] for hit in expanded["hits"][:4]} == {"green"}


def test_search_says_which_part_of_a_hit_matched(photos: Path, tmp_path: Path) -> None:
    from PIL import Image

    (tmp_path / "scenes").mkdir()
    quarters = [Image.open(photos / c / "0.png") for c in ("red", "green", "blue", "red")]
    for name, order in (("a", (0, 1, 2, 3)), ("b", (1, 0, 3, 1))):
        scene = Image.new("RGB", (80, 60))
        for place, which in enumerate(order):
            scene.paste(quarters[which], ((place % 2) * 40, (place // 2) * 30))
        scene.save(tmp_path / "scenes" / f"{name}.png")
    place = tmp_path / "s.cbir"
    assert call("index", tmp_path / "scenes", "--into", place, "--regions", 5).code == 0
    found = call("search", photos / "blue" / "0.png", "--in", place, "-k", 1)
    header, row = (line.split() for line in found.out.splitlines())
    assert header == ["rank", "score", "label", "path", "part", "of", "it"]
    assert row == ["1", "1.0000", "-", str(tmp_path / "scenes" / "a.png"), "0,0.5,0.5,1"]


def test_search_verifies_hits_and_looks_in_any_orientation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image

    (tmp_path / "t").mkdir()
    for seed in range(4):
        Image.fromarray(texture(seed)).save(tmp_path / "t" / f"{seed}.png")
    place = tmp_path / "t.cbir"
    assert call("index", tmp_path / "t", "--into", place).code == 0
    query = tmp_path / "query.png"
    Image.fromarray(texture(3)).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(query)
    asked = ("search", query, "--in", place, "--verify")
    (answer,) = call(*asked, "--json").json
    counts = {"looked_at": 4, "compared": 4, "agreed": 1, "unavailable": 0, "skipped": 0}
    assert answer["verification"] == counts
    first, second = answer["hits"][:2]
    assert (first["id"], first["verified"], first["mirrored"]) == ("t/3.png", True, True)
    assert (second["inliers"], second["verified"]) == (0, False)
    Image.fromarray(texture(9)).save(query)
    assert call(*asked).err == "4 compared, none agreed\n"
    Image.fromarray(texture(3)).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(query)
    (tmp_path / "t" / "1.png").unlink()
    shutil.rmtree(place / "keypoints")
    table = call(*asked, "--any-orientation", "--ids")
    assert table.code == 0
    assert table.err == "3 of 4 compared, 1 agreed; 1 original gone, changed or not confirmed\n"
    header, *rows = (re.split(" {2,}", line) for line in table.out.splitlines())
    assert header == ["rank", "score", "label", "id", "file", "query", "inliers"]
    found = {row[3]: row[4:] for row in rows}
    assert found["t/3.png"] == ["-", "mirrored", f"{first['inliers']} mirrored"]
    assert (found["t/1.png"][0], found["t/1.png"][2]) == ("gone", "not compared")
    assert found["t/0.png"][2] == "0"
    lost = call("search", "--id", "t/1.png", "--in", place, "--verify")
    assert lost.error[0].startswith("the original of t/1.png is gone")
    shutil.rmtree(place / "keypoints")
    monkeypatch.setenv("CBIR_HOME", str(tmp_path / "home of another"))
    unread = call(*asked)
    assert "4 originals gone, changed or not confirmed" in unread.err
    assert unread.out.count("not compared") == 4


@pytest.mark.skipif(sys.platform == "win32", reason="a pseudo-terminal is POSIX")
def test_a_terminal_shows_hits_before_they_are_verified(tmp_path: Path) -> None:
    import pty

    from PIL import Image

    (tmp_path / "t").mkdir()
    for seed in range(3):
        Image.fromarray(texture(seed)).save(tmp_path / "t" / f"{seed}.png")
    place = tmp_path / "t.cbir"
    assert call("index", tmp_path / "t", "--into", place).code == 0
    query = tmp_path / "t" / "2.png"
    outer, inner = pty.openpty()
    asked = [*COMMAND, "search", str(query), "--in", str(place), "--ids", "--verify"]
    child = subprocess.Popen(asked, stdout=inner, stderr=subprocess.DEVNULL)
    os.close(inner)
    shown = bytearray()
    with child, os.fdopen(outer, "rb", buffering=0) as terminal, suppress(OSError):
        while chunk := terminal.read(4096):
            shown += chunk
    first, verified = shown.decode().split("verified:\r\n")
    assert first.startswith(f"{query}, before verification:\r\n")
    assert first.count("  t/") == verified.count("  t/") == 3
    assert "inliers" not in first and "inliers" in verified


def test_search_without_hits_says_why(made: Path, photos: Path, tmp_path: Path) -> None:
    query = photos / "red" / "0.png"
    nothing = call("search", query, "--in", made, "--where", "label=yellow")
    assert (nothing.code, nothing.out) == (0, "")
    assert nothing.err.startswith("no hits: no image has label=yellow; ")
    assert len(nothing.err.splitlines()) == 1
    alone = call("search", "--id", "photos/red/0.png", "--in", made, "--where", "path=red/0.png")
    assert alone.err == f"no hits: no other image of {made} matches --where path=red/0.png\n"
    assert call("index", query, "--into", tmp_path / "one.cbir").code == 0
    one = tmp_path / "one.cbir"
    alone = call("search", "--id", "red/0.png", "--in", one)
    assert (alone.code, alone.out, alone.err) == (
        0,
        "",
        f"no hits: {one} contains no other image\n",
    )
    assert call("remove", one, "red/0.png").out == "1 removed\n"
    empty = call("search", query, "--in", one)
    assert empty.err == f"no hits: {one} is empty; cbir index FOLDER --into {one}\n"
    assert call("search", query, "--in", one, "--json").json[0]["hits"] == []


def test_names_that_are_no_valid_text_are_printed_escaped(made: Path, tmp_path: Path) -> None:
    red = next(Path(call("info", made, "--json").json["sources"]["photos"]).glob("red/*"))
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png"))
    try:
        shutil.copy(red, odd)
    except OSError:
        pytest.skip("this file system takes valid text only")
    answer = call("search", odd, "--in", made, "--json").json
    assert answer[0]["query"] == str(odd)
    both = call("search", odd, odd, "--in", made)
    assert (both.code, "caf\\udce9.png:" in both.out) == (0, True)
    lost = call("search", f"{tmp_path}/new\nline\x1b[1m.png", "--in", made)
    assert lost.error[0] == f"{tmp_path}/new\\nline\\x1b[1m.png: No such file or directory"


COLOUR_WORDS = ("--descriptor", "tests.descriptors.support_photos:ColourWords")


@pytest.fixture(scope="module")
def worded(photos: Path) -> Path:
    """An index whose descriptor has a text tower."""
    place = photos.parent / "worded.cbir"
    arguments = ("--into", place, "--label-from-folder", *COLOUR_WORDS)
    assert call("index", photos, *arguments).code == 0
    return place


def test_search_by_words_is_one_query_named_by_them(worded: Path) -> None:
    asked = ("search", "--text", " a green thing ", "--in", worded, "-k", 4, *COLOUR_WORDS)
    table = call(*asked, "--ids")
    assert (table.code, table.err) == (0, "")
    header, *rows = (line.split() for line in table.out.splitlines())
    assert header == ["rank", "score", "label", "id"]
    assert [row[2] for row in rows] == ["green"] * 4
    (answer,) = call(*asked, "--json").json
    assert (answer["query"], answer["text"]) == ("a green thing", "a green thing")
    assert [hit["id"] for hit in answer["hits"]] == [row[3] for row in rows]


def test_words_join_every_picture(photos: Path, worded: Path) -> None:
    red = photos / "red" / "0.png"
    common = ("search", red, "--id", "photos/blue/0.png", "--in", worded, *COLOUR_WORDS, "--json")
    plain = call(*common).json
    assert ["text" in answer for answer in plain] == [False, False]
    first, second = call(*common, "--text", "green").json
    assert (first["query"], first["text"]) == (str(red), "green")
    assert (second["query"], second["text"]) == ("photos/blue/0.png", "green")
    searcher = cbir.Searcher.open(worded, COLOUR_WORDS[1])
    for answer, of in ((first, red), (second, cbir.IndexedId("photos/blue/0.png"))):
        hits = searcher.search(cbir.Query(of, text="green"))
        assert answer["hits"] == [hit.to_json() for hit in hits]
    searcher.close()
    words, pictures = (call(*common, "--text", "green", "--text-weight", w).json for w in (1, 0))
    assert [answer["hits"][0]["label"] for answer in words] == ["green", "green"]
    assert [answer["hits"][0]["label"] for answer in pictures] == ["red", "blue"]
    stdin = ("search", "-", "--text", "green", "--in", worded, *COLOUR_WORDS, "--json")
    (piped,) = call(*stdin, stdin=red.read_bytes()).json
    assert piped["hits"] == first["hits"]


def test_words_that_can_not_be_searched_are_one_line(worded: Path, made: Path) -> None:
    def refused(*arguments: object, place: Path = worded) -> tuple[str, str]:
        return call("search", "--in", place, *arguments, *COLOUR_WORDS).error

    for arguments, said in (
        (["--text", ""], "the text is empty"),
        (["--text", "x" * 100_000], "the text has 100,000 characters"),
        (["--text", "red", "--verify"], "verification needs a picture"),
        (["--text", "red", "--any-orientation"], "search in any orientation needs a picture"),
        (["--text", "red", "--region", "0,0,1,0.5"], "a region needs a picture"),
        (["--id", "photos/red/0.png", "--text", "red", "--text-weight", "2"], "text_weight is 2"),
    ):
        message, hint = refused(*arguments)
        assert message.startswith(said), arguments
        assert hint
    for alone in (["--text", "red"], ["--id", "photos/red/0.png"]):
        wrong = call("search", "--in", worded, *alone, "--text-weight", "1")
        assert wrong.code == 2 and "--text-weight is for --text WORDS beside" in wrong.err
    message, hint = call("search", "--text", "red", "--in", made).error
    assert "cannot be searched by words" in message
    assert hint
    none = call("search", "--text", "red", "--in", worded, *COLOUR_WORDS, "--where", "label=grey")
    assert none.err.startswith("no hits: no image has label=grey; ")


# --- run, qrels, evaluate --------------------------------------------------------------------


@pytest.fixture(scope="module")
def measured(made: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Queries whose classes overlap, so that no figure is 1; their run and qrels."""
    folder = tmp_path_factory.mktemp("measured")
    queries = write_photos(folder / "queries", per_colour=3)
    (queries / "red" / "0.png").rename(queries / "blue" / "9.png")
    (queries / "green" / "1.png").rename(queries / "red" / "8.png")
    ran = call("run", queries, "--in", made, "-k", 12, "-o", folder / "a.run")
    assert (ran.code, ran.out, ran.err) == (0, "", "9 queries, 108 lines\n")
    judged = call(
        "qrels", queries, "--in", made, "-o", folder / "q.qrels", "--label-from-folder"
    )  # fmt: skip
    assert (judged.code, judged.out, judged.err) == (0, "", "9 queries, 36 lines\n")
    return queries, folder / "a.run", folder / "q.qrels"


def test_run_and_qrels_files_measure_as_the_index_itself(
    measured: tuple[Path, Path, Path], made: Path
) -> None:
    queries, run_file, qrels = measured
    names = ["AP@5", "P@3", "R@5", "RR", "nDCG@5", "nAP@4"]
    options = [word for name in names for word in ("-m", name)]
    direct = call(
        "evaluate", "--in", made, "--queries", queries, "--label-from-folder", "--json", *options
    ).json
    from_files = call("evaluate", "--qrels", qrels, run_file, "--json", *options).json
    assert set(direct["measures"]) == {*names, "nAP@5", "AP@4"}
    assert direct["measures"] == pytest.approx(from_files["measures"], abs=5e-7)
    assert 0 < direct["measures"]["nAP@4"] < 1
    assert (from_files["n_queries"], from_files["missing_queries"]) == (9, [])


def test_evaluate_gives_every_promised_key_and_a_table(
    measured: tuple[Path, Path, Path], made: Path
) -> None:
    queries, run_file, qrels = measured
    asked = ["evaluate", "--in", made, "--queries", queries, "--label-from-folder"]
    figures = call(*asked, "--json").json
    assert (figures["n_queries"], figures["n_indexed"], figures["failed"]) == (9, 12, 0)
    assert {"AP@100", "nAP@100", "P@10"} <= set(figures["measures"])
    assert set(figures["unseen_index"]) == set(figures["measures"])
    assert {"descriptor", "trained_on", "accuracy", "seconds"} <= set(figures)
    table = call(*asked, "-m", "nAP@2", "--sample", 4)
    shown = [line.split()[:1] for line in table.out.splitlines()]
    assert shown[2:6] == [["All"], ["measure"], ["nAP@2"], ["AP@2"]]
    assert "4 queries, 12 indexed" in table.out
    again = shutil.copy(run_file, run_file.with_name("again.run"))
    two = call("evaluate", "--qrels", qrels, run_file, again, "-m", "P@1", "--json").json
    assert [one["name"] for one in two["runs"]] == ["a.run", "again.run"]
    assert two["runs"][0]["measures"] == two["runs"][1]["measures"]
    assert [one["p"] for one in two["comparisons"]] == [1]


def test_run_and_qrels_write_to_standard_output_and_gzip(
    measured: tuple[Path, Path, Path], made: Path, tmp_path: Path
) -> None:
    queries, run_file, qrels = measured
    written = call("run", queries, "--in", made, "-k", 12, "-o", "-")
    assert written.out == run_file.read_text()
    call("run", queries, "--in", made, "-k", 12, "-o", tmp_path / "a.run.gz")
    same = call("evaluate", "--qrels", qrels, tmp_path / "a.run.gz", "--json").json
    assert (
        same["measures"] == call("evaluate", "--qrels", qrels, run_file, "--json").json["measures"]
    )


# --- info, remove, verify, models, doctor ----------------------------------------------------


def test_info_keeps_its_promise_and_counts_what_failed(photos: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(photos / "red", tmp_path / "photos"))
    for number in range(12):
        (folder / f"bad{number:02}.jpg").write_text("no picture")
    place = tmp_path / "p.cbir"
    report = call("index", folder, "--into", place)
    assert report.code == 0 and "12 failed:" in report.out
    assert f"  {folder / 'bad00.jpg'}: not an image: " in report.out
    assert f"  ... for all of them: cbir info {place} --json" in report.out
    info = call("info", place, "--json").json
    assert (info["count"], info["dim"], info["engine"], info["failed"]) == (4, 512, "embedded", 12)
    assert set(info["descriptor"]) >= {"name", "fingerprint"}
    assert len(info["failures"]) == 12 and info["newer_descriptor"] is None
    table = call("info", place)
    assert table.code == 0
    assert {"images", "descriptor", "failed"} <= {
        line.split()[0] for line in table.out.splitlines()
    }


def test_remove_takes_out_what_is_there_and_names_what_is_not(own: Path, photos: Path) -> None:
    answer = call("remove", own, "photos/red/0.png", "photos/red/7.png", "--json")
    assert answer.out == '{\n  "removed": [\n    "photos/red/0.png"\n  ]\n}\n'
    assert answer.error[0] == f"not in {own}: photos/red/7.png"
    assert call("info", own, "--json").json["count"] == 11
    assert call("search", "--id", "photos/red/0.png", "--in", own).code == 1
    by_path = call("remove", own, photos / "red" / "1.png", "--json")
    assert by_path.json == {"removed": ["photos/red/1.png"]}
    absent = call("remove", own, photos / "red" / "7.png")
    assert absent.error[0] == f"not in {own}: {photos / 'red' / '7.png'}"


def test_verify_finds_a_damaged_cache_and_repairs_it(own: Path) -> None:
    sound = call("verify", own)
    assert (sound.code, sound.out, sound.err) == (0, f"{own}: 12 images, 0 problems\n", "")
    cache = own / "vectors.cache"
    cache.write_bytes(cache.read_bytes()[:-100])
    found = call("verify", own)
    assert found.code == 1
    assert found.out == f"vectors.cache: it is truncated\n{own}: 12 images, 1 problem\n"
    assert found.err == f"cbir verify {own} --repair repairs what can be rebuilt\n"
    listed = call("verify", own, "--json")
    assert (listed.code, '"vectors.cache: it is truncated"' in listed.out) == (1, True)
    repaired = call("verify", own, "--repair")
    assert (repaired.code, repaired.out.splitlines()[-1]) == (
        0,
        f"{own}: 12 images, 0 problems left",
    )
    assert call("verify", own, "--json").json == {"count": 12, "problems": [], "left": []}


def test_models_are_listed_and_shown(made: Path) -> None:
    listed = call("models", "list", "--json").json
    told = [(model["name"], model["origin"], model["licence"]) for model in listed]
    assert told == [(name, "shipped", "MIT") for name in SHIPPED]
    model = listed[0]
    assert "cifar10-cnn@" in call("models", "list").out
    card = call("models", "show", "cifar10-cnn", "--json").json
    assert card["spec"]["fingerprint"] == model["fingerprint"]
    assert "airplane" in card["card"]["classes"]
    assert "licence" in call("models", "show", "cifar10-cnn").out
    assert call("models", "show", "cifar-cnn").error == (
        "unknown name 'cifar-cnn'",
        "did you mean 'cifar10-cnn'?",
    )


def test_the_doctor_finds_all_well_or_says_what_is_broken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    findings = {check["check"]: check for check in call("doctor", "--json").json}
    assert {"numpy", "onnxruntime", "describing", "CIFAR-10", "CBIR_HOME"} <= set(findings)
    assert findings["describing"]["state"] == "ok"
    (tmp_path / "file").touch()
    monkeypatch.setenv("CBIR_HOME", str(tmp_path / "file" / "home"))
    ill = call("doctor")
    assert ill.code == 1
    assert "cannot be written; set CBIR_HOME to another folder" in ill.out


def test_the_doctor_asks_the_installed_package_what_it_needs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wanted = [
        "numpy>=1.26",
        "no-such-core>=1",
        'no-such-extra[more]<9,>=8; extra == "odd"',
        "pillow>=11; extra == 'photos'",
        "pillow>=11; extra == 'all'",
        "for-others-only; sys_platform == 'nowhere'",
    ]
    monkeypatch.setattr("importlib.metadata.requires", lambda name: wanted)
    answer = call("doctor", "--json")
    assert answer.code == 1
    found = {check["check"]: (check["state"], check["detail"]) for check in json.loads(answer.out)}
    assert found["numpy"][0] == "ok"
    assert found["no-such-core"] == ("broken", f"not installed; {how_to_install()}")
    cure = f"no-such-extra not installed; {how_to_install('odd')}"
    assert found["extra odd"] == ("missing", cure)
    assert found["extra photos"][0] == "ok"
    assert not {"extra all", "for-others-only", "flask"} & set(found)


# --- serve -----------------------------------------------------------------------------------


@needs_signals
def test_serve_answers_until_ctrl_c_and_leaves_quietly(made: Path, photos: Path) -> None:
    with serving("serve", made, "--port", 0) as (said, address):
        assert said == [f"{made}: 12 images at {address}  (Ctrl-C stops)\n"]
        assert "<form" in look_at(address)
        port = address.rstrip("/").rpartition(":")[2]
        second = call("serve", made, "--port", port)
        assert second.error == (
            f"cannot listen on 127.0.0.1, port {port}: [Errno {_in_use()}] Address already in use",
            "choose another with --port, or stop the process that uses it",
        )


@needs_signals
def test_serve_to_other_machines_asks_for_a_token_and_ends_at_sigterm(made: Path) -> None:
    arguments = ("serve", made, "--host", "0.0.0.0", "--port", 0)
    with serving(*arguments, ended_by=signal.SIGTERM) as (said, address):
        assert said[0] == (
            "warning: whoever has the link can search the index and see its pictures, labels and "
            "metadata; nothing is encrypted\n"
        )
        link = re.fullmatch(r"http://[0-9.]+:(\d+)/\?token=[\w-]{32}", address)
        assert link is not None
        here = f"http://127.0.0.1:{link[1]}/"
        with pytest.raises(HTTPError, match="401"):
            look_at(here)
        assert '"ok"' in look_at(f"{here}healthz")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--token", "short"], "the token is shorter than 16 characters"),
        (["--token", "x" * 20, "--no-token"], "--token and --no-token exclude each other"),
        (["--allow-host", "https://photos.example.org"], "is not a host name"),
    ],
)
def test_serve_refuses_wrong_access(made: Path, options: list[str], said: str) -> None:
    answer = call("serve", made, *options)
    assert answer.code != 0
    assert said in answer.err


def _in_use() -> int:
    import errno

    return errno.EADDRINUSE


# --- interrupted, killed ---------------------------------------------------------------------


def count(place: Path) -> int:
    try:
        with closing(open_index(str(place))) as index:
            return index.count()
    except CbirError:
        return 0  # not made yet


def wait_for_a_commit(child: subprocess.Popen[str], place: Path) -> int:
    deadline = time.monotonic() + 60
    while not (done := count(place)):
        assert child.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    return done


@needs_signals
@pytest.mark.parametrize(("how", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_and_sigterm_keep_what_was_committed_and_the_same_command_goes_on(
    many: Path, tmp_path: Path, how: signal.Signals, code: int
) -> None:
    place = tmp_path / "m.cbir"
    with start("index", many, "--into", place, *QUICK, start_new_session=True) as child:
        committed = wait_for_a_commit(child, place)
        child.send_signal(how)
        out, err = child.communicate(timeout=60)
    assert child.returncode == code
    check_no_process_is_left(child)
    assert err.splitlines() == ["interrupted: added images are kept; the same command resumes"]
    kept = count(place)
    assert committed <= kept < MANY
    assert out.startswith(f"{place}: {kept:,} added in ")
    again = call("index", many, "--into", place, "--json").json
    assert (again["added"], again["updated"], again["unchanged"]) == (MANY - kept, 0, kept)
    assert call("verify", place).code == 0


@needs_signals
@pytest.mark.slow
def test_kill_9_at_any_moment_loses_nothing_committed_and_indexing_goes_on(
    many: Path, tmp_path: Path
) -> None:
    place = tmp_path / "k.cbir"
    dice = random.Random(9)
    for round_number in range(4):
        before = count(place)
        with start("index", many, "--into", place, *QUICK) as child:
            if round_number % 2:
                wait_for_a_commit(child, place)
            time.sleep(dice.uniform(0.1, 0.9))
            child.kill()
            child.communicate()
        after = count(place)
        assert before <= after <= MANY
        if after:
            assert call("verify", place).code in (0, 1)  # a picture of no record may be left
    last = call("index", many, "--into", place, *QUICK, "--json").json
    assert last["added"] + last["unchanged"] == MANY and not last["failures"]
    clean = call("verify", place)
    assert (clean.code, clean.out) == (0, f"{place}: {MANY:,} images, 0 problems\n")


# --- the house rules of a command line -------------------------------------------------------


def test_wrong_usage_is_2_and_shows_the_way(photos: Path, made: Path) -> None:
    for arguments, told in (
        (["index", photos], "Name an index, for example: --into photos.cbir"),
        (["index", photos, made], "--into photos.cbir"),
        (["search", photos / "red" / "0.png"], "Name an index, for example: --in photos.cbir"),
        (["search", "--in", made], "give at least one IMAGE, --id ID or --text WORDS"),
        (["search", "x", "--in", made, "-k", "many"], "'many' is not a valid integer"),
        (["search", "x", "--in", made, "--region", "0,0"], "not four numbers such as"),
        (["index", photos, "--into", made, "--regions", 3], "'3' is not one of '1', '5', '14'"),
        (["index", photos, "--into", made, "--metadata", "no.csv"], "'no.csv' does not exist"),
        (["evaluate", "--in", made], "--in INDEX --queries SOURCE"),
        (["serch", "x"], "did you mean 'search'?"),
        (["search", "x", "--into", made], "No such option"),
    ):
        answer = call(*arguments)
        assert (answer.code, answer.out) == (2, ""), arguments
        assert told in answer.err


def test_debug_shows_the_traceback_wherever_it_stands(tmp_path: Path) -> None:
    lost = tmp_path / "lost.cbir"
    quiet = call("info", lost)
    assert quiet.error == (f"no index at {lost}", f"cbir index FOLDER --into {lost}")
    for arguments in (["--debug", "info", lost], ["info", lost, "--debug"]):
        loud = call(*arguments)
        assert loud.code == 1
        assert loud.err.startswith("Traceback") and loud.err.endswith(quiet.err)


def test_a_bug_is_one_line_too(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("of\nall things")

    monkeypatch.setattr("cbir.index.open.open_index", broken)
    assert call("info", made).error == (
        "unexpected ZeroDivisionError: of\\nall things",
        "this is a bug in cbir: report it with the output of --debug",
    )
    assert "Traceback" in call("info", made, "--debug").err


@needs_signals
def test_a_reader_that_leaves_early_and_a_full_standard_output_are_no_drama(
    made: Path, photos: Path
) -> None:
    child = start("run", photos, "--in", made, "-o", "-")
    assert child.stdout is not None and child.stderr is not None
    child.stdout.close()
    told = child.stderr.read()
    child.stderr.close()
    child.wait(60)
    assert "Traceback" not in told and "Exception" not in told and "rror" not in told
    if Path("/dev/full").exists():
        with Path("/dev/full").open("w") as full:
            ended = subprocess.run(
                [*COMMAND, "info", str(made)],
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                check=False,
            )
        assert (ended.returncode, ended.stderr) == (1, "error: No space left on device\n")


@needs_signals
@pytest.mark.skipif(sys.platform == "win32", reason="a pseudo-terminal is POSIX")
def test_progress_shows_rate_and_time_left_and_vanishes_at_the_end(
    many: Path, tmp_path: Path
) -> None:
    import pty

    outer, inner = pty.openpty()
    place = tmp_path / "m.cbir"
    child = subprocess.Popen(
        [*COMMAND, "index", str(many), "--into", str(place), *QUICK],
        stdout=subprocess.PIPE,
        stderr=inner,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "80"},
    )
    os.close(inner)
    drawn = bytearray()
    with child, os.fdopen(outer, "rb", buffering=0) as terminal:
        with suppress(OSError):  # how a terminal ends on Linux when the program has ended
            while chunk := terminal.read(4096):
                drawn += chunk
        assert child.stdout is not None
        out = child.stdout.read().decode()
    assert child.returncode == 0
    screen = drawn.decode()
    assert f" of {MANY:,}" in screen and "/s" in screen and " left" in screen
    # The last thing drawn is the removal of the line: nothing of the bar stays behind.
    assert screen.rstrip().endswith("\x1b[2K")
    assert out.startswith(f"{place}: {MANY:,} added in ")
