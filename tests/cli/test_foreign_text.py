"""Text that others wrote (names, labels, links, metadata, cards) never controls the terminal."""

from __future__ import annotations

import io
import json
import logging
import os
import socket
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from PIL import Image

from cbir.cli.output import escaping_output, progress_stages
from cbir.measures.trec import read_run
from cbir.wording import EscapedStream, escaped
from tests.cli.support_cli import Answer, call, needs_signals, run
from tests.images.support_images import noise

NASTY = [
    "\x1b[31mred",
    "a\x9b2Jb",
    "\u202egnp",
    "bell\x07\r",
    "new\nline",
    "\x1b]0;title\x07",
    "é ü",
]
CLASSIC = ("--descriptor", "classic")

pytestmark = pytest.mark.skipif(os.name != "posix", reason="such names are POSIX")


def clean(answer: Answer) -> None:
    """Nothing on either stream controls a terminal."""
    for text in (answer.out, answer.err):
        assert all(line.isprintable() for line in text.split("\n")), ascii(text)


@pytest.fixture(params=NASTY, ids=ascii)
def nasty(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def folder(nasty: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two labels of two pictures each, and files that fail or are ignored, all named oddly."""
    monkeypatch.chdir(tmp_path)
    root = tmp_path / f"f{nasty}"
    for number in range(4):
        place = root / f"{nasty}{number % 2}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise(number)).save(place / f"{number}{nasty}.png")
    (root / f"bad{nasty}.png").write_text("no picture")
    (root / f"note.x{nasty}").write_text("no picture")
    (root / f"dead{nasty}.png").symlink_to(f"/nowhere{nasty}")
    with zipfile.ZipFile(root / f"z{nasty}.zip", "w") as archive:
        link = zipfile.ZipInfo(f"link{nasty}.png")
        link.create_system, link.external_attr = 3, 0o120777 << 16
        archive.writestr(link, f"to{nasty}.png")
    return root


def test_no_command_prints_it_raw(folder: Path, nasty: str, tmp_path: Path) -> None:
    place = tmp_path / f"i{nasty}.cbir"
    picture = next(folder.glob("*0/0*.png"))
    table = tmp_path / "m.csv"
    key = picture.relative_to(folder).as_posix()
    if "\n" not in nasty and "\r" not in nasty:
        table.write_text(f'path,"c{nasty}"\n"{key}","v{nasty}"\n"no{nasty}",x\n', encoding="utf-8")
    else:
        table.write_text("path,c\nno,x\n")
    (zipped,) = folder.glob("z*.zip")
    indexed = call(
        *("index", folder, zipped, "--into", place, "--label-from-folder", *CLASSIC),
        *("--metadata", table),
    )
    assert "4 added" in indexed.out
    answers = [
        indexed,
        call("search", picture, "--in", place),
        call("search", picture, "--in", place, "--ids"),
        call("search", picture, picture, "--in", place),
        call("search", picture, "--in", place, "--where", f"label={nasty}"),
        call("search", nasty, "--in", place),
        call("search", picture, "--in", nasty),
        call("search", "--id", nasty, "--in", place),
        call("why", picture, picture, "--in", place),
        call("why", nasty, picture, "--in", place),
        call("sources", place),
        call("info", place),
        call("verify", place),
        call("remove", nasty, "--in", place),
        call("evaluate", "--in", place, "--queries", folder, "--label-from-folder"),
        call("evaluate", "--qrels", nasty, nasty),
        call("copy", place, tmp_path / f"c{nasty}.cbir"),
        call("run", folder, "--in", place, "-o", tmp_path / f"r{nasty}"),
        call("qrels", folder, "--in", place, "--label-from-folder", "-o", tmp_path / f"q{nasty}"),
        call("index", nasty, "--into", place),
        call("index", folder, "--into", place, "--exclude", nasty),
        call("models", "list"),
        call("models", "show", nasty),
        call("models", "add", nasty, "--name", "x"),
        call("models", "remove", nasty),
        call("cache"),
        call("doctor"),
        call(nasty),
        call("search", f"--{nasty}"),
        call("search", picture, "--in", place, "-k", nasty),
        call("search", picture, "--in", place, "--debug", "--where", nasty),
    ]
    for answer in answers:
        clean(answer)


def test_json_is_exact_and_clean(folder: Path, nasty: str, tmp_path: Path) -> None:
    place = tmp_path / "i.cbir"
    assert call("index", folder, "--into", place, "--label-from-folder", *CLASSIC).code == 0
    picture = next(folder.glob("*0/0*.png"))
    found = call("search", picture, "--in", place, "--json")
    clean(found)
    [answer] = found.json
    assert answer["query"] == str(picture)
    assert answer["hits"][0]["path"] == str(picture)
    assert answer["hits"][0]["label"] == f"{nasty}0"
    told = call("info", place, "--json")
    clean(told)
    assert len(told.json["failures"]) == 2


@contextmanager
def terminal() -> Iterator[None]:
    """Standard output and standard error are terminals."""
    with patch("tests.cli.support_cli._Stream.isatty", lambda _: True):
        yield


def test_paths_are_exact_in_a_pipe_and_escaped_in_a_terminal(folder: Path, tmp_path: Path) -> None:
    place = tmp_path / "i.cbir"
    assert call("index", folder, "--into", place, *CLASSIC).code == 0
    picture = next(folder.glob("*0/0*.png"))
    asked = ("search", picture, "--in", place, "--paths", "-k", 1)
    expected = str(picture.relative_to(tmp_path))
    assert run(*asked, "-0").out == f"{expected}\0"
    with terminal():
        for option in ((), ("-0",)):
            shown = call(*asked, *option)
            clean(shown)
            assert len(shown.out.splitlines()) == 1


def test_a_run_on_standard_output_is_exact_in_a_pipe(folder: Path, tmp_path: Path) -> None:
    place = tmp_path / "i.cbir"
    assert call("index", folder, "--into", place, *CLASSIC).code == 0
    assert call("run", folder, "--in", place, "-o", tmp_path / "run").code == 0
    piped = call("run", folder, "--in", place, "-o", "-").out
    assert piped == (tmp_path / "run").read_text("utf-8")
    assert len(read_run(tmp_path / "run")) == 4
    with terminal():
        clean(replace(call("run", folder, "--in", place, "-o", "-"), err=""))  # its progress


def test_what_others_print_is_escaped_too(nasty: str, capsys: pytest.CaptureFixture[str]) -> None:
    with escaping_output():
        print(nasty, nasty, sep="\n")
        sys.stdout.writelines([nasty])
        logging.getLogger("elsewhere").addHandler(handler := logging.StreamHandler())
        logging.getLogger("elsewhere").warning("%s", nasty)
        logging.getLogger("elsewhere").removeHandler(handler)
    out, err = capsys.readouterr()
    clean(Answer(0, out, err))
    assert err == f"{escaped(nasty)}\n"
    assert not isinstance(sys.stdout, EscapedStream)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_draws_itself_and_escapes_what_it_names(
    nasty: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    with escaping_output(), progress_stages() as update:
        update(f"reading: [bold]{nasty}", 1, 2)
        print(f"said {nasty}", file=sys.stderr)
    drawn = screen.getvalue()
    assert "\x1b[" in drawn and "[bold]" in drawn
    if nasty != "é ü":
        assert nasty not in drawn
        assert "\x9b" not in drawn and "\u202e" not in drawn and "\x07" not in drawn


def test_cards_of_models_are_foreign(nasty: str, tmp_path: Path) -> None:
    from tests.descriptors.support_photos import write_photos

    photos = write_photos(tmp_path / "photos", per_colour=2)
    assert call("index", photos, "--into", tmp_path / "i.cbir", *CLASSIC).code == 0
    (card,) = (tmp_path / "i.cbir").glob("model/**/model.json")
    folder = tmp_path / "own"
    folder.mkdir()
    for file in card.parent.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    content = json.loads(card.read_bytes())
    content["licence"] = content["training_data"] = f"free {nasty}"
    (folder / "model.json").write_text(json.dumps(content))
    clean(call("models", "show", folder))
    clean(call("index", photos, "--into", tmp_path / "j.cbir", "--descriptor", folder))


# ---- pipes, sockets, devices


@pytest.fixture
def specials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """The paths of files that are none, by kind."""
    monkeypatch.chdir(tmp_path)  # a socket's path is short
    os.mkfifo("pipe.png")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("socket.png")
        yield {"named pipe": "pipe.png", "socket": "socket.png", "device": "/dev/zero"}


@needs_signals
def test_what_is_no_file_is_named_wherever_it_is_given(
    specials: dict[str, str], tmp_path: Path
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.fromarray(noise(1)).save(photos / "a.png")
    assert call("index", photos, "--into", "i.cbir", *CLASSIC).code == 0
    for kind, path in specials.items():
        for arguments in (
            ("search", path, "--in", "i.cbir"),
            ("why", path, "photos/a.png", "--in", "i.cbir"),
            ("index", path, "--into", "i.cbir"),
            ("run", path, "--in", "i.cbir", "-o", "x.run"),
            ("models", "add", path, "--name", "x"),
            ("evaluate", "--in", "i.cbir", "--queries", path),
            ("evaluate", "--qrels", path, path),
        ):
            message, _ = call(*arguments).error
            assert kind in message, arguments
            assert path in message, arguments
    os.mkfifo("rows.csv")
    message, _ = call("index", photos, "--into", "i.cbir", "--metadata", "rows.csv").error
    assert "rows.csv" in message and "named pipe" in message


@needs_signals
def test_what_is_no_file_in_a_folder_is_counted_as_what_it_is(specials: dict[str, str]) -> None:
    folder = Path.cwd() / "sub"
    folder.mkdir()
    for name in ("pipe.png", "socket.png"):
        Path(name).rename(folder / name)
    (folder / "device.png").symlink_to(specials["device"])
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(folder / "a.png")
    report = call("index", folder, "--into", "i.cbir", *CLASSIC, "--json").json
    assert report["added"] == 1 and report["failures"] == []
    assert report["ignored_by_extension"] == {"device": 1, "named pipe": 1, "socket": 1}
    os.mkfifo(folder / ".cbirignore")
    again = call("index", folder, "--into", "i.cbir")
    assert ".cbirignore cannot be read: a named pipe, not a file" in again.out
