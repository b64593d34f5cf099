"""What a search shows of the files it finds: paths to paste, to pipe and to open."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from zipfile import ZipFile, ZipInfo

import pytest
from PIL import Image

from cbir.home import cbir_home
from cbir.wording import shell_word
from tests.cli.support_cli import call, run

WORDS = [
    "plain.png",
    'it\'s a "cat" $HOME `x`.png',
    "für\u2028.png",
    "a\nb\x1b[1m.png",
    "-k.png",
    "~.png",
]
needs_posix = pytest.mark.skipif(os.name != "posix", reason="shells and openers are POSIX")


def rows(answer: str) -> list[list[str]]:
    """The cells of a table without its header; cells may contain single blanks."""
    return [re.split(" {2,}", line) for line in answer.splitlines()[1:]]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with `photos` (three odd names) and its index `p.cbir`."""
    monkeypatch.chdir(tmp_path)
    photos = tmp_path / "photos"
    photos.mkdir()
    for number, name in enumerate(("my cat's.png", "-k.png", "b%20.png")):
        Image.new("RGB", (40, 30), (80 * number, 200 - 60 * number, 40)).save(photos / name)
    assert call("index", "photos", "--into", "p.cbir").code == 0
    return photos


@needs_posix
def test_a_shown_path_is_one_word_of_a_shell() -> None:
    for word in [*WORDS, os.fsdecode(b"caf\xe9 1.png"), os.fsdecode(b"\xff'\\.png")]:
        shown = shell_word(word)
        assert shown.isprintable()
        printed = subprocess.run(
            ["bash", "-c", f"printf %s {shown}"], capture_output=True, check=True
        )
        assert printed.stdout == os.fsencode(word)
    assert shell_word("a/b-c_1.png") == "a/b-c_1.png"


@needs_posix
def test_paths_are_relative_below_the_working_directory(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = {row[3] for row in rows(call("search", folder / "-k.png", "--in", "p.cbir").out)}
    assert shown == {shell_word(f"photos/{n}") for n in ("my cat's.png", "-k.png", "b%20.png")}
    place = folder.parent / "p.cbir"
    monkeypatch.chdir(folder)
    inside = {row[3] for row in rows(call("search", "./-k.png", "--in", place).out)}
    assert "./-k.png" in inside and "b%20.png" in inside
    (folder / "empty").mkdir()
    monkeypatch.chdir(folder / "empty")
    outside = {row[3] for row in rows(call("search", folder / "-k.png", "--in", place).out)}
    assert str(folder / "b%20.png") in outside
    with_ids = {
        row[3] for row in rows(call("search", folder / "-k.png", "--in", place, "--ids").out)
    }
    assert with_ids == {"photos/my%20cat's.png", "photos/-k.png", "photos/b%2520.png"}


def test_members_of_archives_are_shown_inside_them(folder: Path, tmp_path: Path) -> None:
    with tarfile.open("all.tar", "w") as archive:
        archive.add("photos/-k.png", "trips/a b.png")
    assert call("index", "all.tar", "--into", "a.cbir").code == 0
    found = call("search", folder / "-k.png", "--in", "a.cbir")
    assert rows(found.out)[0][3:] == ["all.tar: trips/a b.png"]
    opened = call("search", folder / "-k.png", "--in", "a.cbir", "--open", 1)
    assert opened.err.splitlines()[0] == "error: hit 1 has no file of its own"
    Path("all.tar").rename("other.tar")
    gone = call("search", folder / "-k.png", "--in", "a.cbir")
    assert rows(gone.out)[0][3:] == ["all.tar: trips/a b.png", "gone"]
    paths = call("search", folder / "-k.png", "--in", "a.cbir", "--paths")
    assert (paths.out, paths.err) == ("", "1 hit left out: gone, or without a file of its own\n")


def test_hits_whose_file_is_gone_are_marked(folder: Path) -> None:
    (folder / "new").mkdir()
    (folder / "b%20.png").rename(folder / "new" / "b.png")
    query = folder / "new" / "b.png"

    def marks() -> dict[str, str]:
        found = call("search", query, "--in", "p.cbir", "--ids")
        assert found.out.splitlines()[0].split() == ["rank", "score", "label", "id", "file"]
        return {row[3]: row[4] for row in rows(found.out)}

    expected = {"photos/my%20cat's.png": "-", "photos/-k.png": "-", "photos/b%2520.png": "gone"}
    assert marks() == expected  # before the index knows it
    (folder / "-k.png").unlink()
    assert call("index", "photos", "--into", "p.cbir").code == 0
    after = marks()
    assert after["photos/-k.png"] == "gone"
    paths = call("search", query, "--in", "p.cbir", "--paths")
    assert sorted(paths.out.splitlines()) == ["photos/my cat's.png", "photos/new/b.png"]
    shutil.rmtree(folder)
    kept = call("search", "--id", "photos/my%20cat's.png", "--in", "p.cbir")
    assert {row[4] for row in rows(kept.out)} == {"gone"}
    lost = call("search", "--id", "photos/my%20cat's.png", "--in", "p.cbir", "--open", 1)
    assert lost.err.splitlines()[:1] == ["error: the file of hit 1 is gone"]


@needs_posix
def test_paths_pipe_into_xargs(folder: Path) -> None:
    shutil.copy(folder / "-k.png", os.fsencode(folder) + b"/x\ny.png")
    assert call("index", "photos", "--into", "p.cbir").code == 0
    searched = ["search", "photos/-k.png", "--in", "p.cbir", "--paths"]
    lines = call(*searched).out.splitlines()
    assert lines[0] == "photos/-k.png" and "photos/my cat's.png" in lines
    answer = run(*searched, "-0")
    names = answer.out.split("\0")
    assert names.pop() == "" and set(map(Path, names)) == set(Path("photos").iterdir())
    listed = subprocess.run(
        ["xargs", "-0", "ls", "-d"], input=answer.out.encode(), capture_output=True, check=True
    )
    assert b"x\ny.png" in listed.stdout
    both = call("search", "photos/-k.png", "photos/b%20.png", "--in", "p.cbir", "--paths", "-k", 1)
    assert both.out == "photos/-k.png\nphotos/b%20.png\n"


@needs_posix
def test_a_hit_is_opened_with_the_systems_viewer(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bin_folder, told = tmp_path / "bin", tmp_path / "opened"
    bin_folder.mkdir()
    opener = bin_folder / ("open" if sys.platform == "darwin" else "xdg-open")
    opener.write_text(f'#!/bin/sh\nprintf %s "$1" > {told}\nexit 0\n')
    opener.chmod(0o755)
    monkeypatch.setenv("PATH", str(bin_folder))
    asked = ["search", folder / "my cat's.png", "--in", "p.cbir", "--open"]
    answer = call(*asked, 1)
    assert (answer.code, answer.err) == (0, "")
    assert answer.out == call(*asked[:-1]).out
    assert told.read_text() == str(folder / "my cat's.png")
    assert call(*asked, 1, "--json").json[0]["hits"][0]["rank"] == 1
    assert call(*asked, 4).error == ("there is no hit 4, only 3", "ask for more with -k")
    opener.write_text("#!/bin/sh\nexit 3\n")
    assert "cannot open" in call(*asked, 1).err
    opener.unlink()
    assert f"{opener.name} is not installed" in call(*asked, 1).err


@needs_posix
def test_only_the_indexed_picture_is_opened_and_a_change_is_shown(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, asked = tmp_path / "opened", ["search", "--id", "photos/-k.png", "--in", "p.cbir"]
    opener = tmp_path / ("open" if sys.platform == "darwin" else "xdg-open")
    opener.write_text(f"#!/bin/sh\n: > {told}\n")
    opener.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    name = json.loads(call(*asked, "--json").out)[0]["hits"][0]["path"]
    Image.effect_noise((40, 40), 99).convert("RGB").save(name)
    assert rows(call(*asked).out)[0][-1] == "changed"
    assert "has changed since it was indexed" in call(*asked, "--open", 1).err
    assert call("index", "photos", "--into", "p.cbir").code == 0
    (cbir_home() / "sources.json").unlink()
    found = call(*asked, "--open", 1)
    assert found.err.startswith(f"error: originals in photos ({folder}) are not opened: ")
    assert found.error[1] == "if they are yours: cbir sources p.cbir --confirm"
    assert not told.exists()
    assert "not confirmed" in call("sources", "p.cbir").out
    confirmed = call("sources", "p.cbir", "--confirm", "photos")
    assert confirmed.err == f"photos is confirmed: originals in {folder} are opened\n"
    assert call(*asked, "--open", 1).code == 0
    assert told.exists()


def test_ways_to_print_exclude_each_other(folder: Path) -> None:
    for wrong in (
        ("--paths", "--json"),
        ("--ids", "--paths"),
        ("-0",),
        ("--open", 0),
        ("--open", 1, "--id", "photos/-k.png"),
    ):
        answer = call("search", "photos/b%20.png", "--in", "p.cbir", *wrong)
        assert (answer.code, answer.out) == (2, ""), wrong


@needs_posix
def test_names_of_files_do_not_reach_the_terminal_raw(folder: Path) -> None:
    odd = folder / "odd \x1b[31m"
    (odd / "a\x1b[1m.lrdata").mkdir(parents=True)
    (odd / "note.\x1b[1m").write_text("no picture")
    (odd / "dead.png").symlink_to("/nowhere")
    (odd / "one.png").write_bytes((folder / "-k.png").read_bytes())
    with ZipFile(folder / "a.zip", "w") as archive:
        link = ZipInfo("link.png")
        link.create_system, link.external_attr = 3, 0o120777 << 16
        archive.writestr(link, "\x1b[31mred.png")
    answer = call("index", odd, folder / "a.zip", "--into", "my index.cbir")
    assert "\x1b" not in answer.out + answer.err
    assert "a link to \\x1b[31mred.png, which is not in the archive" in answer.out
    with ZipFile(folder / "b.zip", "w") as archive:
        for number in range(11):
            archive.writestr(f"{number}.png", "no picture")
    many = call("index", folder / "b.zip", "--into", "my index.cbir")
    assert "cbir info 'my index.cbir' --json" in many.out


def test_labels_do_not_reach_the_terminal_raw(folder: Path) -> None:
    odd = folder.parent / "more" / "red\x1b[1m"
    odd.mkdir(parents=True)
    shutil.copy(folder / "-k.png", odd)
    assert call("index", "more", "--into", "m.cbir", "--label-from-folder").code == 0
    found = call("search", odd / "-k.png", "--in", "m.cbir")
    assert rows(found.out)[0][2] == "red\\x1b[1m"


def test_an_indexed_picture_is_named_by_its_path_or_its_id(folder: Path) -> None:
    expected = call("search", "--id", "photos/my%20cat's.png", "--in", "p.cbir").out
    for name in ("photos/my cat's.png", str(folder / "my cat's.png")):
        assert call("search", "--id", name, "--in", "p.cbir").out == expected
