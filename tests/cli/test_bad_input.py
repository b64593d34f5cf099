"""Bad input of every kind: one line that names the thing and the cure, and nothing is lost."""

from __future__ import annotations

import errno
import os
import shutil
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cbir.index.open import open_index
from tests.cli.support_cli import (
    Answer,
    call,
    many_pictures,
    needs_signals,
    needs_unprivileged,
    run_unprivileged,
)
from tests.descriptors.support_photos import write_photos

CLASSIC = ("--descriptor", "classic")
HOLDS_THE_LOCK = """
import sys
from cbir.index.open import open_index
index = open_index(sys.argv[1], write=True)
print("ready", flush=True)
sys.stdin.read()
"""
GROWS_NO_FILE_OVER = """
import resource, sys
limit = int(sys.argv.pop(1))
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
from cbir.cli.main import main
main()
"""


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("bad") / "photos", per_colour=2)


@pytest.fixture(scope="module")
def made(photos: Path) -> Path:
    """A sound index of six pictures, which no test changes."""
    place = photos.parent / "made.cbir"
    network = ("--descriptor", "cifar10-cnn:embedding")
    assert call("index", photos, "--into", place, "--label-from-folder", *network).code == 0
    return place


@pytest.fixture
def own(made: Path, tmp_path: Path) -> Path:
    """A copy of it, to spoil."""
    return Path(shutil.copytree(made, tmp_path / "own.cbir"))


@pytest.fixture
def query(photos: Path) -> Path:
    return photos / "red" / "0.png"


def png(width: int, height: int) -> bytes:
    """A black RGB picture as a PNG file, row by row: no picture of that size is ever in memory."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)

    packer = zlib.compressobj(1)
    # Equal pieces of zeros: the filter byte of every row is a zero as well.
    total, piece = height * (1 + 3 * width), bytes(1 << 24)
    packed = b"".join(packer.compress(piece) for _ in range(total // len(piece)))
    packed += packer.compress(bytes(total % len(piece))) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


# --- pictures --------------------------------------------------------------------------------


def test_bad_pictures_are_rows_of_the_report_and_good_ones_are_found(
    photos: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "mixed"
    folder.mkdir()
    noise = np.random.default_rng(3).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "good.jpg")
    whole = (folder / "good.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "text.jpg").write_text("I am no picture.\n")
    (folder / "empty.jpg").touch()
    (folder / "huge.png").write_bytes(png(30_000, 30_000))
    (folder / "gone.jpg").symlink_to("nowhere.jpg")
    (folder / "a-folder.jpg").mkdir()
    (folder / "notes.txt").write_text("no picture, and not called like one")
    Image.new("RGB", (1, 1), (3, 9, 200)).save(folder / "one.png")
    Image.new("RGB", (60, 40)).save(folder / "black.png")
    place = tmp_path / "mixed.cbir"
    report = call("index", folder, "--into", place, "--json").json
    assert (report["added"], report["ignored"]) == (3, 1)
    assert report["ignored_by_extension"] == {".txt": 1}
    reasons = {failure["location"]: failure["reason"] for failure in report["failures"]}
    expected = {
        "cut.jpg": "image is truncated",
        "text.jpg": "not an image: unknown format",
        "empty.jpg": "the file is empty",
        "huge.png": "30000 x 30000 pixels exceeds the limit of 100 megapixels",
        "gone.jpg": "cannot be read: No such file or directory",
    }
    assert reasons == expected
    kept = {
        row["location"]: row["reason"] for row in call("info", place, "--json").json["failures"]
    }
    assert kept == expected
    for name in ("good.jpg", "one.png", "black.png"):
        (answer,) = call("search", folder / name, "--in", place, "--json").json
        assert answer["hits"][0]["id"] == f"mixed/{name}"
        assert answer["hits"][0]["score"] == pytest.approx(1, abs=1e-6)
    with closing(open_index(str(place))) as index:
        vector = index.vectors("mixed/black.png")
    assert np.isfinite(vector).all() and np.linalg.norm(vector) == pytest.approx(1, abs=1e-4)
    for name, reason in expected.items():
        message, _ = call("search", folder / name, "--in", place).error
        assert message == f"{folder / name}: {reason.removeprefix('cannot be read: ')}"
    assert call("verify", place).code == 0


@needs_unprivileged
def test_an_unreadable_picture_is_a_row_and_as_a_query_one_line(
    photos: Path, made: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(photos, tmp_path / "photos"))
    secret = folder / "red" / "0.png"
    secret.chmod(0)
    report = run_unprivileged(
        "index", folder, "--into", tmp_path / "p.cbir", "--json", *CLASSIC
    ).json
    assert report["added"] == 5
    assert report["failures"] == [
        {"source": "photos", "location": "red/0.png", "reason": "cannot be read: Permission denied"}
    ]
    assert run_unprivileged("search", secret, "--in", tmp_path / "p.cbir").error == (
        f"{secret}: Permission denied",
        "give the path of an image file",
    )


def test_bad_queries_are_named(made: Path, photos: Path, tmp_path: Path) -> None:
    assert call("search", tmp_path / "no.png", "--in", made).error == (
        f"{tmp_path / 'no.png'}: No such file or directory",
        "give the path of an image file",
    )
    assert call("search", photos, "--in", made).error[0] == f"{photos}: Is a directory"
    assert call("search", "", "--in", made).error[0] == "the name of the picture is empty"
    assert call("search", "-", "--in", made).error[0] == "standard input: the file is empty"
    assert (
        call("search", "-", "--in", made, stdin=b"GIF89a").error[0].startswith("standard input: ")
    )
    assert call("search", "--id", "photos/red/99.png", "--in", made).error == (
        "no record 'photos/red/99.png' in the index",
        "cbir search --ids shows ids",
    )


# --- sources ---------------------------------------------------------------------------------


def test_sources_that_hold_nothing_or_are_none_are_named(
    photos: Path, made: Path, tmp_path: Path
) -> None:
    place = tmp_path / "p.cbir"
    (tmp_path / "empty").mkdir()
    (tmp_path / "only-bad").mkdir()
    (tmp_path / "only-bad" / "a.jpg").write_text("text")
    (tmp_path / "text.txt").write_text("text")
    (tmp_path / "torn.zip").write_bytes(b"PK\x03\x04 and then nothing")

    def told(source: object) -> tuple[str, str]:
        return call("index", source, "--into", place).error

    lost = tmp_path / "no-such"
    assert told(lost) == (
        f"{lost}: no such file or folder",
        "check the spelling, or give the full path",
    )
    assert told("") == ("the source name is empty", "give a folder, an archive or an image")
    assert told("cifar10:trian") == (
        "unknown source 'cifar10:trian'",
        "did you mean 'cifar10:train'?",
    )
    assert told("cifar10") == ("unknown source 'cifar10'", "use cifar10:train or cifar10:test")
    assert told(made) == (
        f"{made} is an index, not a source of images",
        "give the image folder",
    )
    assert told(tmp_path / "text.txt")[0].endswith("not an image, folder or archive")
    assert told(tmp_path / "torn.zip")[0].endswith("damaged, or not an archive despite its name")
    assert not place.exists()  # nothing above is worth making an index for
    assert told(tmp_path / "empty") == (
        f"no images in {tmp_path / 'empty'}",
        "name the folder or archive that holds them",
    )
    assert told(tmp_path / "only-bad") == (
        f"no image of {tmp_path / 'only-bad'} could be read",
        "see the reasons above",
    )
    assert call("index", photos, "--into", place, "--json").json["added"] == 6


# --- places ----------------------------------------------------------------------------------


def test_places_that_are_no_index_are_named(
    photos: Path, query: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(photos, "photos")
    Path("file").write_text("x")
    Path("hollow").mkdir()
    for command in (["search", query, "--in"], ["info"], ["verify"], ["serve"], ["remove"]):
        more = ["some-id"] if command == ["remove"] else []
        assert call(*command, "lost.cbir", *more).error == (
            "no index at lost.cbir",
            "cbir index FOLDER --into lost.cbir",
        )
        assert call(*command, "file", *more).error == (
            "no index at file: it is a file",
            "give an index folder",
        )
        assert call(*command, "photos", *more).error == (
            "no index at photos: the folder contains none",
            "cbir index photos --into photos.cbir",
        )
        assert call(*command, "hollow", *more).error[1] == "cbir index FOLDER --into hollow"
    assert call("index", "photos", "--into", "photos").error == (
        "photos is a folder with other files",
        "give a new name, such as photos/photos.cbir",
    )
    assert call("index", "photos", "--into", "file").error == (
        "file is a file",
        "give a new name, such as file.cbir",
    )
    assert call("index", "photos", "--into", "").error[0] == "the index name is empty"
    assert (
        "unknown index URL scheme solr" in call("index", "photos", "--into", "solr://x/y").error[0]
    )
    assert sorted(os.listdir()) == ["file", "hollow", "photos"]  # noqa: PTH208


def test_another_descriptor_than_the_indexs_is_refused_and_harms_nothing(
    photos: Path, own: Path
) -> None:
    message, hint = call("index", photos, "--into", own, "--descriptor", "cifar10-cnn").error
    assert message.startswith(f"{own} was built with cifar10-cnn:embedding@")
    assert "(256-d); you gave cifar10-cnn@" in message
    assert hint == "Index with --descriptor cifar10-cnn:embedding, or choose a new place"
    assert call("index", photos, "--into", own, "--descriptor", "cifar").error == (
        "unknown name 'cifar'",
        "did you mean 'cifar10-cnn'?",
    )
    assert call("verify", own).code == 0


def test_damaged_models_and_names_of_no_descriptor_are_told(
    photos: Path, own: Path, query: Path, tmp_path: Path
) -> None:
    def told(name: object) -> str:
        place = tmp_path / "new.cbir"
        return call("index", photos, "--into", place, "--descriptor", name).error[0]

    model = Path(shutil.copytree(own / "model", tmp_path / "model"))
    (model / "model.onnx").write_bytes((model / "model.onnx").read_bytes()[:1000])
    other = "model.onnx of cifar10-cnn has another sha256 than its model.json says"
    assert told(model) == other
    (model / "model.onnx").unlink()
    assert told(model) == f"the model in {model} is damaged: it lacks model.onnx"
    assert told(tmp_path / "nothing") == f"no model in {tmp_path / 'nothing'}"
    assert told("json:loads").startswith("'json:loads' failed to create a descriptor: ")
    assert told("os:getcwd") == "'os:getcwd' is not a descriptor"
    assert not (tmp_path / "new.cbir").exists()

    (own / "model" / "model.onnx").write_bytes(b"x" * 1000)
    assert call("search", query, "--in", own).error[0] == other
    found = call("verify", own)
    assert (found.code, "model.onnx has changed" in found.out) == (1, True)
    (own / "model" / "model.onnx").unlink()
    assert call("search", query, "--in", own).error == (
        f"{own} lacks its model: {own}/model/model.onnx is missing",
        "restore the model's files, or index the sources again into a new index",
    )
    assert call("search", "--id", "photos/red/0.png", "--in", own, "-k", 1).code == 0


@pytest.mark.parametrize("damage", ["cut", "changed", "gone", "garbage"])
def test_a_damaged_cache_changes_no_answer_and_is_made_again(
    damage: str, own: Path, query: Path
) -> None:
    before = call("search", query, "--in", own, "--json").json[0]["hits"]
    cache = own / "vectors.cache"
    whole = bytearray(cache.read_bytes())
    if damage == "gone":
        cache.unlink()
    elif damage == "cut":
        cache.write_bytes(whole[: len(whole) // 2])
    elif damage == "garbage":
        cache.write_bytes(b"\xa5" * len(whole))
    else:
        whole[-200:] = bytes(200)
        cache.write_bytes(whole)
    if damage != "gone":  # without a cache nothing is wrong: it is made when it is needed
        answer = call("verify", own)
        assert (answer.code, answer.out.splitlines()[0][:14]) == (1, "vectors.cache:")
    assert call("search", query, "--in", own, "--json").json[0]["hits"] == before
    assert call("verify", own).code == 0


def test_garbage_in_the_records_is_one_line_everywhere(
    own: Path, photos: Path, query: Path
) -> None:
    (own / "index.sqlite").write_bytes(np.random.default_rng(0).bytes(60_000))
    told = (
        f"{own}/index.sqlite is damaged: it is not a database",
        "index the sources again into a new index",
    )
    for command in (
        ["search", query, "--in", own], ["info", own], ["verify", own],
        ["index", photos, "--into", own], ["remove", own, "photos/red/0.png"], ["serve", own],
    ):  # fmt: skip
        assert call(*command).error == told, command
    message, hint = call("verify", own, "--repair").error
    assert message.startswith(f"{own}/index.sqlite is damaged, and nothing of it can be read:")
    assert hint == told[1]


def test_lost_thumbnails_are_a_problem_that_repair_and_indexing_mend(
    own: Path, photos: Path, query: Path
) -> None:
    (own / "thumbs.sqlite").unlink()
    assert call("search", query, "--in", own).code == 0
    assert call("verify", own).error == (
        f"{own}/thumbs.sqlite is missing",
        f"cbir verify {own} --repair",
    )
    repaired = call("verify", own, "--repair")  # makes them from the originals
    assert (repaired.code, repaired.out.splitlines()[0]) == (0, "6 records have no thumbnail")
    assert call("verify", own).code == 0
    assert "6 unchanged" in call("index", photos, "--into", own).out


def test_a_second_writer_gets_one_line_with_the_process_and_readers_go_on(
    own: Path, photos: Path, query: Path
) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDS_THE_LOCK, str(own)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with holder:
        assert holder.stdout is not None and holder.stdin is not None
        assert holder.stdout.readline() == "ready\n"
        told = (
            f"{own} is being written by process {holder.pid}",
            "wait until it finishes, or stop it",
        )
        assert call("index", photos, "--into", own).error == told
        assert call("remove", own, "photos/red/0.png").error == told
        assert call("verify", own, "--repair").error == told
        assert call("search", query, "--in", own).code == 0
        assert call("verify", own).code == 0
        holder.stdin.close()
    assert call("index", photos, "--into", own, "--json").json["unchanged"] == 6


@needs_unprivileged
def test_a_place_that_cannot_be_written_is_searched_and_refused_to_writers(
    own: Path, photos: Path, query: Path
) -> None:
    def set_modes(folder: int, file: int) -> None:
        for path in [own.parent, own, *own.rglob("*")]:
            path.chmod(folder if path.is_dir() else file)

    set_modes(0o555, 0o444)
    try:
        answer = run_unprivileged("search", query, "--in", own, "-k", 1)
        assert (answer.code, "photos/red/0.png" in answer.out) == (0, True)
        told = (
            f"{own} cannot be written: Permission denied",
            "check its permissions and free space",
        )
        assert run_unprivileged("index", photos, "--into", own).error == told
        fresh = own.parent / "fresh.cbir"
        assert run_unprivileged("index", photos, "--into", fresh, *CLASSIC).error == (
            f"{fresh} cannot be created: Permission denied",
            "free some space, or choose another folder",
        )
        assert run_unprivileged("run", photos, "--in", own, "-o", fresh).error == (
            f"cannot write {fresh}: Permission denied",
            "choose another place",
        )
    finally:
        set_modes(0o755, 0o644)
    assert call("verify", own).code == 0


@needs_signals
def test_a_full_disk_in_the_middle_is_one_line_and_nothing_committed_is_lost(
    tmp_path: Path,
) -> None:
    # Pictures that take little room are committed first, then come more of others than fit.
    many, place = many_pictures(tmp_path / "many", 400, kind="png"), tmp_path / "full.cbir"
    for number in range(1100):
        flat = Image.new("RGB", (4, 4), (number % 256, number // 256, 9))
        flat.save(many / f"!{number:04}.png")
    quick = ("--descriptor", "cifar10-cnn:embedding")
    assert call("index", many / "0000.png", "--into", place, *quick).code == 0
    arguments = ["1700000", "index", str(many), "--into", str(place)]
    ended = subprocess.run(
        [sys.executable, "-c", GROWS_NO_FILE_OVER, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    message, hint = Answer(ended.returncode, ended.stdout, ended.stderr).error
    assert str(place) in message and "committed changes are kept" in hint
    kept = call("info", place, "--json").json["count"]
    assert 1 < kept < 1500
    again = call("index", many, "--into", place, "--json").json
    assert (again["added"], again["unchanged"]) == (1500 - kept, kept)
    clean = call("verify", place)
    assert (clean.code, clean.out) == (0, f"{place}: 1,500 images, 0 problems\n")


def test_an_interrupted_making_is_done_again(photos: Path, tmp_path: Path) -> None:
    place = tmp_path / "half.cbir"
    (place / "model").mkdir(parents=True)
    (place / "writer.lock").touch()
    assert call("info", place).error == (
        f"{place} is incomplete: its creation was interrupted",
        f"cbir index FOLDER --into {place}",
    )
    assert call("index", photos, "--into", place, "--json").json["added"] == 6


# --- questions -------------------------------------------------------------------------------


def test_questions_that_cannot_be_answered_say_what_can(
    made: Path, query: Path, photos: Path, tmp_path: Path
) -> None:
    def told(*arguments: object) -> tuple[str, str]:
        return call("search", query, "--in", made, *arguments).error

    assert told("-k", 0) == ("k is 0", "ask for at least one hit")
    assert told("-k", 10_001) == ("k is 10001", "ask for at most 10,000 hits")
    assert told("--expand", -1) == ("expand is -1", "choose 0 or more")
    assert told("--where", "lable=red") == (
        "filter 'lable=red': unknown field 'lable'",
        "did you mean 'label'?",
    )
    assert told("--where", 'label="cat')[1] == ('quote the whole value: --where \'label="""cat"\'')
    assert told("--where", "label")[0] == "filter 'label' cannot be read"
    assert told("--region", "0.5,0,0.2,1")[1].startswith("give left, top, right, bottom")
    others = shutil.copytree(photos, tmp_path / "others")
    no_label = (
        f"queries of {others} have no label, so nothing is relevant to them",
        "use --label-from-folder, or --metadata with a label column",
    )
    asked = ["evaluate", "--in", made, "--queries", others]
    assert call(*asked).error == no_label
    (tmp_path / "empty").mkdir()
    for command in (
        ["evaluate", "--in", made, "--label-from-folder", "--queries"],
        ["qrels", "--in", made, "--label-from-folder", "-o", tmp_path / "q"],
    ):
        nothing = f"{tmp_path / 'empty'} has no image that can be a query"
        assert call(*command, tmp_path / "empty").error[0] == nothing
    for place in (others, others / "red" / "report", made):
        inside = call(*asked, "--label-from-folder", "--report", place)
        assert "is inside" in inside.error[0]
    assert call(*asked, "-m", "precision@5").error[0] == "unknown measure 'precision@5'"
    assert call(*asked, "-m", "AP@x").error == (
        "measure 'AP@x' cannot be parsed",
        "did you mean 'AP'?",
    )
    assert call("qrels", others, "--in", made, "-o", tmp_path / "q").error == no_label
    assert call("run", photos, "--in", made, "-k", 0, "-o", "-").error[0] == "k is 0"
    nowhere = tmp_path / "no" / "a.run"
    assert (
        call("run", photos, "--in", made, "-o", nowhere)
        .error[0]
        .startswith(f"cannot write {nowhere}: ")
    )
    (tmp_path / "q").write_text("0 0 a 1\n")
    assert (
        call("evaluate", "--qrels", tmp_path / "q", nowhere)
        .error[0]
        .startswith(f"cannot read {nowhere}: ")
    )
    (tmp_path / "r").write_text("0 Q0 a one 0.5 tag\n")
    assert (
        call("evaluate", "--qrels", tmp_path / "r", tmp_path / "r")
        .error[0]
        .startswith(f"{tmp_path / 'r'}:1: 4 fields expected")
    )


def test_the_report_names_what_was_passed_over_and_what_was_unusual(tmp_path: Path) -> None:
    folder = write_photos(tmp_path / "photos", per_colour=1)
    for name in ("a.mov", "b.MOV", "c.txt", "LICENSE"):
        (folder / name).write_text("no picture")
    Image.new("RGB", (400, 300), "teal").save(folder / "large.jpg")
    (folder / "large.jpg").write_bytes((folder / "large.jpg").read_bytes()[:-2])
    lines = call("index", folder, "--into", tmp_path / "p.cbir").out.splitlines()
    assert "4 files ignored (not an image): 2 .mov, 1 .txt, 1 without extension" in lines
    assert "1 note:" in lines
    note = "the end marker of the JPEG is missing; every pixel is there"
    assert f"  {folder / 'large.jpg'}: {note}" in lines
    limited = call("index", folder, "--into", tmp_path / "q.cbir", "--max-pixels", "100000").out
    assert "large.jpg: 400 x 300 pixels exceeds the limit of 0.1 megapixels" in limited


def test_a_read_only_file_system_has_a_hint_of_its_own(
    photos: Path, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing to free and no permission to change: only another place, or mounting it, helps."""
    frozen, own = tmp_path / "frozen", tmp_path / "frozen" / "own.cbir"
    frozen.mkdir()
    shutil.copytree(made, own)
    makes, opens = os.mkdir, os.open

    def refusing(original: Callable[..., Any], writes: Callable[[int], int]) -> Callable[..., Any]:
        def call(path: Any, flags: int = 0, *rest: Any, **named: Any) -> Any:
            if str(path).startswith(str(frozen)) and writes(flags):
                raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
            return original(path, flags, *rest, **named)

        return call

    monkeypatch.setattr(os, "mkdir", refusing(makes, lambda mode: 1))
    writing = os.O_WRONLY | os.O_RDWR
    monkeypatch.setattr(os, "open", refusing(opens, lambda flags: flags & writing))
    labels = "--label-from-folder"
    for arguments in (
        ("index", photos, "--into", frozen / "new.cbir", *CLASSIC),
        ("index", photos, "--into", own),
        ("run", photos, "--in", made, "-o", frozen / "a.run"),
        ("evaluate", "--in", made, "--queries", photos, labels, "--per-query", frozen / "a.csv"),
        ("evaluate", "--in", made, "--queries", photos, labels, "--report", frozen / "report"),
        ("train", "cnn", photos, labels, "--name", "x", "--out", frozen / "model"),
    ):
        message, hint = call(*arguments).error
        assert os.strerror(errno.EROFS) in message, arguments
        assert hint == "mount it for writing, or choose a place on another file system", arguments
