"""The suite of hostile input, with small counts: it finds nothing, and it would find something."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path

import pytest

from benchmarks import robustness
from benchmarks.hostile import archives, bit_flips, bombs, flips, kills, pictures
from benchmarks.hostile.measured import ROOT
from benchmarks.hostile.seeds import seeds
from benchmarks.hostile.trials import Trial
from cbir.errors import ImageError
from cbir.images.decode import decode_file

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="kills, and looks at /proc")
SMALL = ("--pictures", "34", "--kills", "1", "--flips", "8", "--seconds", "1")


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """One bomb, and small archives."""
    name = "JPEG of 10,000 scans"
    monkeypatch.setattr(bombs, "BOMBS", {name: bombs.BOMBS[name]})
    monkeypatch.setattr(archives, "EXPANDED", 200_000_000)
    cases = list(islice(archives._cases(), 0, None, 14))
    monkeypatch.setattr(archives, "_cases", lambda: iter(cases))


@pytest.mark.parametrize(
    ("part", "tried"),
    [
        ("pictures", ["mutated pictures | 34"]),
        ("kills", [f"kills: {name} | 1" for name in kills.OPERATIONS]),
        ("flips", ["flipped bits | 8"]),
        ("bombs", ["bombs | 1"]),
        ("archives", ["zip bombs | 1", "tar bombs | 1"]),
        pytest.param("clients", ["odd requests | 10"], marks=pytest.mark.slow),
        pytest.param("load", ["8 clients, alone | 80"], marks=pytest.mark.slow),
    ],
)
def test_each_part_runs_alone_and_prints_a_row(
    part: str, tried: list[str], few: None, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        robustness.main(["--only", part, *SMALL])
    except SystemExit:  # a busy machine may refuse requests
        assert part in ("clients", "load")
    rows = capsys.readouterr().out
    failed = "" if part in ("clients", "load") else " | 0 |"
    for row in tried:
        assert f"| {row}{failed}" in rows


def test_a_failure_is_counted_told_and_the_exit_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = (Trial("kites", problem) for problem in ("", "fell", ""))
    monkeypatch.setattr(robustness, "PARTS", {"kites": lambda *_: found})
    with pytest.raises(SystemExit) as ended:
        robustness.main(["--only", "kites"])
    told = capsys.readouterr()
    assert ended.value.code == 1
    assert "| kites | 3 | 1 |" in told.out and "kites: fell" in told.err


def test_ctrl_c_ends_it_and_all_that_it_started() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks", "robustness", "--only", "pictures", "kills"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        start_new_session=True,
    ) as child:
        assert child.stdout is not None
        while "| --- " not in child.stdout.readline():
            pass
        time.sleep(3)
        os.killpg(child.pid, signal.SIGINT)
        out, errors = child.communicate(timeout=60)
    assert (child.returncode, errors) == (130, "")
    assert "mutated pictures" in out
    with pytest.raises(ProcessLookupError):
        os.killpg(child.pid, 0)


def test_seeds_are_sound_and_mutations_are_not() -> None:
    assert len(seeds()) >= 16
    for data in seeds().values():
        assert decode_file(data).pixels.size
    assert len({pictures.mutated(number)[1] for number in range(100)}) > 95
    assert pictures.mutated(20) == pictures.mutated(20)


@pytest.mark.parametrize("error", [ValueError("x"), ImageError("two\nlines")])
def test_a_decoder_that_raises_is_found(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_data: bytes) -> None:
        raise error

    monkeypatch.setattr(pictures, "decode_file", fail)
    assert all(pictures.read(0, 3, tmp_path))


def test_an_index_that_refuses_a_good_picture_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = seeds()["plain.png"]
    monkeypatch.setattr(pictures, "mutated", lambda number: (f"{number}.png", plain))
    assert list(pictures.read(0, 2, tmp_path)) == ["", ""]
    monkeypatch.setattr(pictures, "_is_decoded", lambda data: False)
    assert all(pictures.read(0, 2, tmp_path))


def test_damage_that_is_not_found_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flips, "apply", lambda folder, flip: True)  # nothing is changed
    (trial,) = bit_flips.in_table("records", 1, tmp_path)
    assert "verify does not find it" in trial.problem


def test_a_lost_record_is_a_failure(tmp_path: Path) -> None:
    lossy = kills.Operation(kills._ingest, kills._remove)
    kills.write_pictures(tmp_path / "pictures", 40)
    (tmp_path / "trial").mkdir()
    kills._ingest(tmp_path / "trial")
    before = kills._contents(tmp_path / "trial" / kills.INDEX)
    kills._remove(tmp_path / "trial")
    with pytest.raises(AssertionError, match="is lost"):
        kills._check(tmp_path / "trial", lossy, before, before)


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("import os; os._exit(3)", "exit code 3"),
        ("result = ''", "GB"),
        ("import time; time.sleep(60)", "exit code -9"),
    ],
)
def test_a_bomb_that_goes_off_is_a_failure(
    code: str, problem: str, few: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bombs, "DECODE", code)
    monkeypatch.setattr(bombs, "MEMORY", -bombs.SLACK_MEMORY)
    monkeypatch.setattr(bombs, "SECONDS", 2 - bombs.SLACK_SECONDS)
    (trial,) = bombs.trials(tmp_path)
    assert problem in trial.problem
