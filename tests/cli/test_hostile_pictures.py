"""Pictures and limits that are made to stop the command line."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

import pytest

from cbir.images import decode, limits
from tests.cli.support_cli import call, many_pictures, needs_signals, run, start
from tests.images.support_hostile import many_scans

CLASSIC = ("--descriptor", "classic")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return many_pictures(tmp_path / "photos", 3, "png")


def test_a_picture_that_takes_too_long_is_a_row_and_the_others_are_found(
    photos: Path, tmp_path: Path
) -> None:
    (photos / "slow.jpg").write_bytes(many_scans(450, side=4000))
    (photos / "scans.jpg").write_bytes(many_scans(10_000))
    told = call("index", photos, "--into", tmp_path / "i.cbir", *CLASSIC, "--max-seconds", "0.5")
    assert told.code == 0, told.err
    assert "slow.jpg: took longer than 0.5 s to decode" in told.out
    assert "scans.jpg: the JPEG has more than 500 scans" in told.out
    assert "3 added" in told.out


def test_a_limit_that_is_no_number_is_refused_before_anything_is_made(
    photos: Path, tmp_path: Path
) -> None:
    told = call("index", photos, "--into", tmp_path / "i.cbir", *CLASSIC, "--max-seconds", "nan")
    assert told.code == 1
    assert told.error[0] == "nan seconds to decode a picture"
    assert not (tmp_path / "i.cbir").exists()


def test_a_picture_has_one_vector_whichever_process_decodes_it(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index, query = tmp_path / "i.cbir", photos / "0001.png"
    call("index", photos, "--into", index, *CLASSIC)
    here = call("search", query, "--in", index, "--json").json
    monkeypatch.setattr(decode, "_TINY", 0)
    monkeypatch.setattr(limits, "_QUICK", 0.0)
    apart = call("search", query, "--in", index, "--json").json
    assert here[0]["hits"] == apart[0]["hits"]
    assert apart[0]["hits"][0]["score"] == pytest.approx(1, abs=1e-6)


@needs_signals
def test_an_interruption_does_not_wait_for_a_slow_picture(tmp_path: Path) -> None:
    (tmp_path / "slow.jpg").write_bytes(many_scans(450, side=8000))
    child = start(
        *("index", tmp_path, "--into", tmp_path / "i.cbir", *CLASSIC, "--max-seconds", "600")
    )
    try:
        time.sleep(4)  # whatever it does by then, it is not done
        asked = time.monotonic()
        child.send_signal(signal.SIGINT)
        child.communicate(timeout=30)
        assert child.returncode == 130
        assert time.monotonic() - asked < 25
    finally:
        child.kill()
        child.communicate()


@pytest.mark.skipif(sys.platform != "linux", reason="limits of address space")
@pytest.mark.parametrize("megabytes", [250, 350, 600])
def test_too_little_address_space_is_said(photos: Path, tmp_path: Path, megabytes: int) -> None:
    limited = "import resource; resource.setrlimit(resource.RLIMIT_AS, ({0}, {0}))\n".format(
        megabytes * 10**6
    )
    command = [sys.executable, "-c", limited + "from cbir.cli.main import main; main()"]
    message, hint = run("index", photos, "--into", tmp_path / "i.cbir", command=command).error
    assert message == (
        f"cbir needs more memory than is available: the limit is {megabytes} MB of address space"
    )
    assert hint == "allow 1,000 MB or more: ulimit -v 1000000"
