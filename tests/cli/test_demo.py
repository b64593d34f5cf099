"""`cbir demo` as a person runs it: once from nothing, once more, broken off, and without data."""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from cbir.cli.output import own_command
from cbir.errors import how_to_install
from cbir.home import cbir_home
from tests.cli.support_cli import call, look_at, needs_signals, serving, start
from tests.images.support_images import tiny_cifar10, write_tree

pytestmark = needs_signals

TRAIN = 5 * 17
TEST = 17


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every download fails at once: nobody listens where the proxy should be."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        nobody = f"http://127.0.0.1:{taken.getsockname()[1]}"
    # urllib keeps its first opener, proxies included; this one must not outlive the test.
    monkeypatch.setattr("urllib.request._opener", None)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, nobody)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_network: None) -> Path:
    """A made-up CIFAR-10 of 85 and 17 pictures, which CBIR_DATA names."""
    folder = write_tree(tmp_path / "data", tiny_cifar10(per_batch=7))
    monkeypatch.setenv("CBIR_DATA", str(folder))
    return folder


def place() -> Path:
    (found,) = (cbir_home() / "demo").glob("*.cbir")
    return found


def state(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of every file that holds something."""
    return {
        path.name: (path.stat().st_size, path.stat().st_mtime_ns)
        for path in folder.iterdir()
        if path.is_file() and path.suffix != ".lock" and not path.name.endswith("-shm")
    }


def test_the_demo_indexes_evaluates_and_serves_and_the_second_run_does_only_that(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving("demo", "--port", 0) as (said, address):
        assert said[0] == f"indexing cifar10:train into {place()}\n"
        assert said[1].startswith(f"{TRAIN} images in ")
        assert said[-1].startswith(f"The page is at {address} ")
        assert f"{TRAIN}" in look_at(address)
    info = call("info", place(), "--json").json
    assert (info["count"], info["descriptor"]["name"]) == (TRAIN, "cifar10-cnn")
    before = state(place())

    # Nothing could be fetched or described now, even if the demo wanted to.
    shutil.rmtree(data)
    with serving("demo", "--port", 0) as (said, address):
        assert said[0] == f"cifar10: {TRAIN} images in {place()}\n"
        assert not any("downloading" in line or "indexing" in line for line in said)
        look_at(address)
    monkeypatch.delenv("CBIR_DATA")
    with serving("demo", "--port", 0) as (said, address):
        assert said[0] == f"cifar10: {TRAIN} images in {place()}\n"
        look_at(address)
    assert state(place()) == before


def test_the_demo_prints_both_measures_and_all_three_figures(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cbir.web.serve.serve", lambda *_, **__: None)
    answer = call("demo", "--port", 0)
    assert answer.code == 0
    assert f"{TEST} queries, {TRAIN} indexed (index = training images)" in answer.out
    rows = {line.split()[0]: line.split()[1:] for line in answer.out.splitlines() if line}
    # The mean and both ends of its interval, under each protocol.
    assert len(rows["AP@100"]) == len(rows["nAP@100"]) == 2 * (1 + len(["a", "to", "b"]))
    assert "accuracy of the model's own classifier" in answer.out
    again = call("demo", "--port", 0)
    assert again.out == answer.out
    assert again.err.splitlines()[0].startswith("cifar10: ")


def test_a_demo_whose_index_has_changed_puts_it_right(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cbir.web.serve.serve", lambda *_, **__: None)
    assert call("demo", "--port", 0).code == 0
    assert call("remove", place(), "cifar10/train/cat/0000").code == 0
    mended = call("demo", "--port", 0)
    assert (mended.code, "1 images in " in mended.err) == (0, True)
    assert call("info", place(), "--json").json["count"] == TRAIN
    # Other data under the same name is other data.
    elsewhere = write_tree(data.parent / "elsewhere", tiny_cifar10(per_batch=9))
    monkeypatch.setenv("CBIR_DATA", str(elsewhere))
    other = call("demo", "--port", 0)
    assert "19 queries, 95 indexed" in other.out


def test_figures_that_another_version_kept_are_measured_again(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cbir.web.serve.serve", lambda *_, **__: None)
    first = call("demo", "--port", 0)
    kept = place().with_suffix(".json")
    kept.write_text(json.dumps({"origin": json.loads(kept.read_text())["origin"], "figures": {}}))
    again = call("demo", "--port", 0)
    assert again.code == 0 and again.out.splitlines()[:3] == first.out.splitlines()[:3]
    assert json.loads(kept.read_text())["figures"]["n_indexed"] == TRAIN


def test_the_command_that_the_demo_prints_can_be_pasted(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cbir.web.serve.serve", lambda *_, **__: None)
    monkeypatch.setattr("cbir.cli.demo.own_command", lambda: ".venv/bin/cbir")
    into = tmp_path / "my demo"
    line = call("demo", "--port", 0, "--into", into).err.splitlines()[-1]
    told, command = line.split(": ", 1)
    *words, index = shlex.split(command)
    assert (told, words) == ("In a terminal", [".venv/bin/cbir", "search", "PICTURE", "--in"])
    assert Path(index).parent == into


def test_a_program_that_the_shell_would_not_find_is_named_by_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs, elsewhere = tmp_path / "my env" / "bin", tmp_path / "elsewhere"
    for folder in (programs, elsewhere):
        folder.mkdir(parents=True)
        (folder / "cbir").touch(mode=0o755)
    monkeypatch.setattr("sys.argv", [str(programs / "cbir")])
    for folder, path, shown in (
        (tmp_path, "", "'my env/bin/cbir'"),
        (tmp_path, str(elsewhere), "'my env/bin/cbir'"),
        (elsewhere, "", f"'{programs / 'cbir'}'"),
        (elsewhere, str(programs), "cbir"),
    ):
        monkeypatch.chdir(folder)
        monkeypatch.setenv("PATH", path)
        assert own_command() == shown
    monkeypatch.setattr("sys.argv", ["-c"])
    assert own_command() == "cbir"


def test_make_passes_the_port_to_the_demo() -> None:
    make = shutil.which("make")
    if make is None:
        pytest.skip("needs make")
    for given, options in (["PORT=5055"], ["--port", "5055"]), ([], []):
        asked = [make, "--dry-run", "--silent", "demo", *given]
        root = Path(__file__).parents[2]
        told = subprocess.run(asked, cwd=root, capture_output=True, text=True, check=True).stdout
        assert told.splitlines()[-1].split() == [".venv/bin/cbir", "demo", *options]


def test_a_demo_that_was_broken_off_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_network: None
) -> None:
    data = write_tree(tmp_path / "data", tiny_cifar10(per_batch=190))
    monkeypatch.setenv("CBIR_DATA", str(data))
    # At once: while libraries are still being imported.
    for end, pause in ((signal.SIGINT, 0.0), (signal.SIGINT, 0.1), (signal.SIGKILL, 0.1)):
        with start("demo", "--port", 0) as child:
            assert child.stderr is not None
            assert child.stderr.readline().startswith("indexing cifar10:train into ")
            time.sleep(pause)
            child.send_signal(end)
            _, err = child.communicate(timeout=60)
        assert "Traceback" not in err
        if end == signal.SIGINT:
            assert child.returncode == 130
            told = "the download and the indexed images are kept; the same command resumes"
            assert err.splitlines() == [told, "", "interrupted"]
    with serving("demo", "--port", 0) as (_, address):
        look_at(address)
    assert call("verify", place()).code == 0
    assert call("info", place(), "--json").json["count"] == 1000


def test_a_demo_with_a_damaged_index_says_what_to_delete(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cbir.web.serve.serve", lambda *_, **__: None)
    assert call("demo", "--port", 0).code == 0
    (place() / "index.sqlite").write_bytes(b"garbage" * 1000)
    assert call("demo", "--port", 0).error == (
        f"{place()}/index.sqlite is damaged: it is not a database",
        f"delete {place()} and run the same command again",
    )
    shutil.rmtree(place())
    assert call("demo", "--port", 0).code == 0


def test_a_port_in_use_is_said_before_anything_is_done(data: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert call("demo", "--port", port).error == (
            f"cannot listen on 127.0.0.1, port {port}: "
            f"[Errno {errno.EADDRINUSE}] {os.strerror(errno.EADDRINUSE)}",
            "choose another with --port (make demo PORT=5055), or stop the process that uses it",
        )
    assert not (cbir_home() / "demo").exists()


def test_without_data_and_network_the_digits_stand_in_and_one_line_says_so(
    no_network: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("sklearn")
    monkeypatch.delenv("CBIR_DATA", raising=False)
    with serving("demo", "--port", 0) as (said, address):
        assert said[0] == "CIFAR-10 was not found; downloading it (170 MB)\n"
        assert said[1].startswith("cannot download https://")
        assert "using scikit-learn's digits. For CIFAR-10, set CBIR_DATA to" in said[1]
        assert said[2] == f"indexing digits:train into {place()}\n"
        look_at(address)
    assert place().name.startswith("digits-")
    figures = json.loads(place().with_suffix(".json").read_text())["figures"]
    assert figures["n_indexed"] + figures["n_queries"] == 1797
    assert figures["descriptor"].startswith("classic@")
    assert figures["measures"]["P@10"] > 0.9  # ten classes
    before = state(place())
    with serving("demo", "--port", 0) as (said, _):
        assert said[2].startswith("digits: 1,4") and "indexing" not in "".join(said)
    assert state(place()) == before


def test_without_data_network_and_scikit_learn_one_line_says_what_to_do(
    no_network: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CBIR_DATA", "mistyped")
    original = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "sklearn" else original(name, *rest),
    )
    answer = call("demo", "--port", 0)
    assert answer.code == 1
    assert answer.err.splitlines() == [
        "no CIFAR-10 in mistyped (CBIR_DATA); downloading it (170 MB)",
        "error: no data set: CIFAR-10 cannot be downloaded and scikit-learn is not installed",
        f"  hint: {how_to_install('digits')}, or set CBIR_DATA to a folder with "
        "cifar-10-python.tar.gz, or connect to a network",
    ]
