"""`cbir index --exclude` and `--watch` as a person runs them."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

import cbir
from tests.cli.support_cli import (
    call,
    check_no_process_is_left,
    many_pictures,
    needs_signals,
    run,
    serving,
    start,
)

DEADLINE = 60.0
QUICK = ("--descriptor", "cifar10-cnn:embedding")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return many_pictures(tmp_path / "photos", 6)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "photos.cbir"


def count(place: Path) -> int:
    with closing(cbir.open_index(place)) as index:
        return index.count()


def until(reached: Callable[[], bool]) -> None:
    end = time.monotonic() + DEADLINE
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.05)


# ---- --exclude


def test_what_is_left_out_is_said(photos: Path, place: Path) -> None:
    shutil.copytree(photos, photos / "@eaDir")
    shutil.copytree(photos, photos / ".trash", ignore=shutil.ignore_patterns("@eaDir"))
    arguments = ("index", photos, "--into", place, *QUICK)
    assert call(*arguments).out.splitlines()[1:] == [
        "passed over: 2 folders (.trash, @eaDir); --no-default-excludes includes them"
    ]
    said = call(*arguments, "--exclude", "0003.bmp", "--exclude", "typo").out.splitlines()
    assert said[1:] == [
        "1 record removed (excluded)",
        "excluded: 1 file (0003.bmp)",
        "passed over: 2 folders (.trash, @eaDir); --no-default-excludes includes them",
        "--exclude matched nothing: typo",
    ]
    report = call(*arguments, "--no-default-excludes", "--json").json
    assert (report["added"], report["unchanged"]) == (13, 5)
    assert (report["passed_over"], report["excluded"], report["dropped"]) == ({}, {}, 0)
    call(*arguments)
    assert count(place) == 6


def test_a_source_of_excluded_pictures_only_is_an_error_that_says_so(
    photos: Path, place: Path
) -> None:
    said = call("index", photos, "--into", place, *QUICK, "--exclude", "*.bmp")
    message, _ = said.error
    assert "6 files (0000.bmp, 0001.bmp, 0002.bmp ...)" in message
    assert not place.exists()
    message, hint = call("index", photos, "--into", place, "--exclude", "!").error
    assert message == "'!' is not a pattern in gitignore syntax"
    assert "drafts/" in hint


# ---- --watch


@contextmanager
def watching(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    """`cbir index ARGUMENTS --watch` after its first pass."""
    pytest.importorskip("watchfiles")
    child = start("index", *arguments, "--watch", *QUICK, start_new_session=True)
    try:
        assert child.stderr is not None
        said = []
        for line in child.stderr:
            said.append(line)
            if "Ctrl-C" in line:
                break
        else:
            pytest.fail(f"not watching: {said}")
        yield child
    finally:
        child.kill()
        child.communicate()


@needs_signals
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_each_pass_that_changed_something_is_a_line_and_a_signal_ends_it_well(
    photos: Path, place: Path, how: signal.Signals
) -> None:
    with watching(photos, "--into", place) as child:
        assert child.stdout is not None
        assert re.search(r": 6 added in", child.stdout.readline())
        shutil.copy(photos / "0000.bmp", photos / "copy.bmp")
        (photos / "bad.jpg").write_text("no picture")
        assert re.fullmatch(r"\d\d:\d\d:\d\d added 1, failed 1\n", child.stdout.readline())
        assert "photos/bad.jpg: " in child.stdout.readline()
        (photos / "copy.bmp").unlink()
        assert re.fullmatch(r"\d\d:\d\d:\d\d missing 1\n", child.stdout.readline())
        child.send_signal(how)
        out, err = child.communicate(timeout=DEADLINE)
        assert (child.returncode, out, err) == (0, "", "")
        check_no_process_is_left(child)
    assert call("index", photos, "--into", place, *QUICK).code == 0  # the lock is free


@needs_signals
def test_json_is_one_object_a_line(photos: Path, place: Path) -> None:
    with watching_json(photos, place) as child:
        assert child.stdout is not None
        first = json.loads(child.stdout.readline())
        assert (first["added"], first["failures"]) == (6, [])
        shutil.copy(photos / "0000.bmp", photos / "copy.bmp")
        second = json.loads(child.stdout.readline())
        assert second["added"] == 1
        assert second["at"] >= first["at"]


@contextmanager
def watching_json(photos: Path, place: Path) -> Iterator[subprocess.Popen[str]]:
    pytest.importorskip("watchfiles")
    child = start("index", photos, "--into", place, "--watch", "--json", *QUICK)
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


@needs_signals
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_watch_that_is_ended_in_a_pass_keeps_what_was_committed(
    tmp_path: Path, photos: Path, place: Path, how: signal.Signals
) -> None:
    more = many_pictures(tmp_path / "more", 1800)
    with watching(photos, "--into", place) as child:
        for picture in more.iterdir():
            os.link(picture, photos / f"more-{picture.name}")
        until(lambda: count(place) > 6)
        child.send_signal(how)
        _, err = child.communicate(timeout=DEADLINE)
        assert child.returncode == (-how if how == signal.SIGKILL else 0)
        assert "Traceback" not in err
        if how != signal.SIGKILL:
            check_no_process_is_left(child)
    assert 6 < count(place) <= 1806
    assert run("verify", place).code == 0
    report = call("index", photos, "--into", place, *QUICK, "--json").json
    assert report["added"] + report["unchanged"] == 1806
    assert report["unchanged"] > 6


@needs_signals
def test_a_page_beside_it_sees_the_changes(photos: Path, place: Path) -> None:
    from urllib.request import ProxyHandler, build_opener

    with watching(photos, "--into", place), serving("serve", place, "--port", 0) as (_, address):
        opener = build_opener(ProxyHandler({}))

        def shown() -> int:
            with opener.open(f"{address}info", timeout=DEADLINE) as answer:
                return int(json.load(answer)["count"])

        assert shown() == 6
        shutil.copy(photos / "0000.bmp", photos / "copy.bmp")
        until(lambda: shown() == 7)


def test_watch_and_rebuild_exclude_each_other(photos: Path, place: Path) -> None:
    said = call("index", photos, "--into", place, "--watch", "--rebuild")
    assert said.code == 2
    assert "--rebuild replaces it" in said.err


def test_a_source_that_is_not_there_is_an_error_at_once(place: Path, tmp_path: Path) -> None:
    pytest.importorskip("watchfiles")
    message, _ = call("index", tmp_path / "typo", "--into", place, "--watch").error
    assert message.endswith("typo: no such file or folder")
