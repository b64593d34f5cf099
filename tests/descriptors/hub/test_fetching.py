"""Fetching into the cache: whole files only, resumed after every break, and without a network."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections import namedtuple
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock

from cbir.descriptors.hub.fetching import fetch
from cbir.descriptors.hub.known import KNOWN
from cbir.descriptors.hub.offers import Offer, offer
from cbir.errors import CbirError
from tests.descriptors.support_hub import use_hub, write_repository
from tools.hub_server import Hub, serve_hub

REPOSITORY = KNOWN["clip-vit-b32"].repository
SMALL = (
    *("config.json", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json"),
    *("special_tokens_map.json", "README.md"),
)
IMAGE, TEXT = "onnx/vision_model.onnx", "onnx/text_model.onnx"
NAMES = (*SMALL, IMAGE, TEXT, f"{TEXT}_data")
AGAIN = "run the command again: it continues where it stopped"

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    folder = write_repository(tmp_path / "clip", *NAMES)
    monkeypatch.setattr("cbir.descriptors.hub.fetching.WAITS", (0.0, 0.0, 0.0))
    with serve_hub({REPOSITORY: folder}) as served:
        use_hub(monkeypatch, served.endpoint, tmp_path / "home")
        yield served


@pytest.fixture
def cache(hub: Hub, tmp_path: Path) -> Path:
    return tmp_path / "home/huggingface/hub/models--Xenova--clip-vit-base-patch32"


def fetched(offered: Offer) -> Path:
    return fetch(offered, lambda done, total: None)


def refused(offered: Offer) -> tuple[str, str]:
    with pytest.raises(CbirError) as raised:
        fetched(offered)
    assert "\n" not in raised.value.message + raised.value.hint
    return raised.value.message, raised.value.hint


def same(folder: Path, hub: Hub) -> bool:
    original = hub.repositories[REPOSITORY]
    return all((folder / name).read_bytes() == (original / name).read_bytes() for name in NAMES)


def half(cache: Path) -> list[Path]:
    return list((cache / "blobs").glob("*.incomplete"))


def offline(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_hub(monkeypatch, hub.endpoint, tmp_path / "home", offline=True)
    hub.forget()


def test_every_file_is_fetched_once_and_shown(hub: Hub, cache: Path) -> None:
    offered = offer("clip-vit-b32")
    seen: list[tuple[int, int | None]] = []
    folder = fetch(offered, lambda done, total: seen.append((done, total)))
    assert folder == cache / "snapshots" / offered.commit
    assert same(folder, hub)
    assert dict(hub.sent) == {file.name: file.size for file in offered.files}
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    assert seen[-1] == (offered.size, offered.size)
    assert half(cache) == []
    hub.forget()
    assert fetched(offered) == folder
    assert hub.asked == []


def test_huggingface_hub_finds_the_files_by_the_revisions_name(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import hf_hub_download, scan_cache_dir, snapshot_download

    folder = fetched(offer("clip-vit-b32"))
    offline(hub, tmp_path, monkeypatch)
    assert snapshot_download(REPOSITORY) == str(folder)
    assert hf_hub_download(REPOSITORY, IMAGE, revision="main") == str(folder / IMAGE)
    scanned = scan_cache_dir()
    (repository,) = scanned.repos
    assert (repository.repo_id, repository.nb_files) == (REPOSITORY, len(NAMES))
    assert not scanned.warnings


def test_what_huggingface_hub_has_fetched_is_not_fetched_again(hub: Hub) -> None:
    from huggingface_hub import hf_hub_download

    hf_hub_download(REPOSITORY, IMAGE)
    hub.forget()
    assert same(fetched(offer("clip-vit-b32")), hub)
    assert IMAGE not in hub.sent


def test_a_broken_connection_is_resumed_at_once(hub: Hub) -> None:
    hub.faults.cuts, hub.faults.cut_after = 2, 100_000
    offered = offer("clip-vit-b32")
    assert same(fetched(offered), hub)
    assert {name: hub.sent[name] for name in NAMES} == {f.name: f.size for f in offered.files}


def test_a_connection_that_breaks_each_time_still_brings_the_file(hub: Hub) -> None:
    hub.faults.cuts, hub.faults.cut_after = 1_000, 50_000
    assert same(fetched(offer("clip-vit-b32")), hub)


def test_a_later_call_continues_where_the_first_one_stopped(hub: Hub, cache: Path) -> None:
    offered = offer("clip-vit-b32")
    hub.faults.dead_at = 120_000
    message, hint = refused(offered)
    assert message.startswith(f"{TEXT}_data is incomplete: the connection to 127.0.0.1")
    assert hint == AGAIN
    (draft,) = half(cache)
    assert draft.stat().st_size == 120_000
    assert hub.sent[f"{TEXT}_data"] == 120_000
    hub.faults.dead_at = None
    hub.forget()
    seen: list[int] = []
    assert same(fetch(offered, lambda done, total: seen.append(done)), hub)
    assert hub.sent[f"{TEXT}_data"] == 180_000
    assert seen[0] > 120_000
    assert half(cache) == []


def test_four_attempts_without_a_byte_are_the_end(hub: Hub) -> None:
    offered = offer("clip-vit-b32")
    hub.forget()
    hub.faults.dead_at = 0
    refused(offered)
    assert hub.asked.count(f"GET /{REPOSITORY}/resolve/{offered.commit}/{TEXT}_data") == 4


def test_a_server_without_ranges_sends_everything_again(hub: Hub) -> None:
    offered = offer("clip-vit-b32")
    hub.faults.cuts, hub.faults.cut_after, hub.faults.no_ranges = 1, 100_000, True
    assert same(fetched(offered), hub)
    assert hub.sent[f"{TEXT}_data"] == 400_000


@pytest.mark.parametrize("name", [IMAGE, "config.json"])
def test_other_bytes_than_the_hash_are_deleted(name: str, hub: Hub, cache: Path) -> None:
    offered = offer("clip-vit-b32")
    hub.faults.other_bytes = {name}
    message, hint = refused(offered)
    assert message == f"{name} is damaged: the hub sent other bytes than its hash says"
    assert hint
    assert half(cache) == []
    folder = cache / "snapshots" / offered.commit
    assert not (folder / name).exists()
    assert not (folder / IMAGE).exists()
    hub.faults.other_bytes = set()
    assert same(fetched(offered), hub)


def test_more_bytes_than_the_size_are_not_taken(hub: Hub, cache: Path) -> None:
    offered = offer("clip-vit-b32")
    path = hub.repositories[REPOSITORY] / IMAGE
    path.write_bytes(path.read_bytes() + b"x" * 5_000_000)
    moved = replace(offered, commit=hub.commit(REPOSITORY))
    assert "other bytes than its hash" in refused(moved)[0]
    assert half(cache) == []


def test_a_resumed_draft_of_other_bytes_is_noticed(hub: Hub, cache: Path) -> None:
    offered = offer("clip-vit-b32")
    digest = next(file.digest for file in offered.files if file.name == IMAGE)
    (cache / "blobs").mkdir(parents=True)
    (cache / "blobs" / f"{digest}.incomplete").write_bytes(b"x" * 1000)
    assert "other bytes than its hash" in refused(offered)[0]
    assert same(fetched(offered), hub)


@pytest.mark.parametrize("size", [300_000, 10])
def test_a_damaged_file_of_the_cache_is_fetched_again(size: int, hub: Hub) -> None:
    offered = offer("clip-vit-b32")
    folder = fetched(offered)
    (folder / IMAGE).resolve().write_bytes(b"x" * size)
    hub.forget()
    assert same(fetched(offered), hub)
    assert dict(hub.sent) == {IMAGE: 300_000}


@pytest.mark.parametrize(
    ("failure", "message", "hint", "requests"),
    [
        ("404 EntryNotFound", "has lost a file of", "pull it again", 1),
        ("404 RevisionNotFound", "has no revision", "look at", 1),
        ("401 GatedRepo", "is gated", "HF_TOKEN", 1),
        ("403", "refuses Xenova/clip-vit-base-patch32 (HTTP 403)", "HF_TOKEN", 1),
        ("500", f"{IMAGE} is incomplete: 127.0.0.1", AGAIN, 4),
        ("429", "refuses more requests for now", AGAIN, 4),
    ],
)
def test_refusals_while_fetching(
    failure: str, message: str, hint: str, requests: int, hub: Hub, cache: Path
) -> None:
    offered = offer("clip-vit-b32")
    hub.forget()
    hub.faults.status[f"/resolve/{offered.commit}/{IMAGE}"] = failure
    said, cure = refused(offered)
    assert message in said
    assert hint in cure
    assert sum(IMAGE in asked for asked in hub.asked) == requests
    assert not (cache / "snapshots" / offered.commit / IMAGE).exists()


def test_offline_a_fetched_revision_is_offered_by_the_cache(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    online = offer("clip-vit-b32")
    folder = fetched(online)
    offline(hub, tmp_path, monkeypatch)
    offered = offer("clip-vit-b32")
    assert offered == online
    assert (online.cached, offered.cached) == (False, True)
    assert offered.licence == "mit"
    assert fetched(offered) == folder
    assert offer(f"hf:{REPOSITORY}@{online.commit}").files == online.files
    assert hub.asked == []
    for name in ("dinov2-small", f"hf:{REPOSITORY}@v1"):
        with pytest.raises(CbirError, match="HF_HUB_OFFLINE is set, and the cache does not hold"):
            offer(name)


@pytest.mark.parametrize("failure", ["500", "503", "429"])
def test_a_hub_that_fails_is_replaced_by_the_cache(failure: str, hub: Hub) -> None:
    online = offer("clip-vit-b32")
    fetched(online)
    hub.faults.status["/api/"] = failure
    assert offer("clip-vit-b32") == online


@pytest.mark.parametrize("failure", ["401", "404 RepoNotFound", "403 GatedRepo"])
def test_a_hub_that_refuses_is_not(failure: str, hub: Hub) -> None:
    fetched(offer("clip-vit-b32"))
    hub.faults.status["/api/"] = failure
    with pytest.raises(CbirError):
        offer("clip-vit-b32")


def test_an_unreachable_hub_is_replaced_by_the_cache(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    online = offer("clip-vit-b32")
    fetched(online)
    use_hub(monkeypatch, "http://127.0.0.1:9", tmp_path / "home")
    assert offer("clip-vit-b32") == online


def test_offline_a_half_fetched_revision_is_not_taken_for_a_whole_one(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offered = offer("clip-vit-b32")
    hub.faults.status[f"/resolve/{offered.commit}/{IMAGE}"] = "403"
    refused(offered)
    offline(hub, tmp_path, monkeypatch)
    with pytest.raises(CbirError, match="the cache does not hold all of"):
        offer("clip-vit-b32")
    assert "the cache does not hold all of" in refused(offered)[0]


def test_offline_a_damaged_file_is_noticed(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = fetched(offer("clip-vit-b32"))
    (folder / IMAGE).resolve().write_bytes(b"x" * 300_000)
    offline(hub, tmp_path, monkeypatch)
    assert "the cache does not hold all of" in refused(offer("clip-vit-b32"))[0]


def test_two_revisions_share_files_of_the_same_bytes(hub: Hub) -> None:
    fetched(offer("clip-vit-b32"))
    (hub.repositories[REPOSITORY] / "config.json").write_text("{}")
    hub.forget()
    assert same(fetched(offer("clip-vit-b32")), hub)
    assert dict(hub.sent) == {"config.json": 2}


def test_without_symbolic_links_the_snapshot_has_the_files(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_DISABLE_SYMLINKS", True)
    online = offer("clip-vit-b32")
    folder = fetched(online)
    assert same(folder, hub)
    assert not any(path.is_symlink() for path in folder.rglob("*"))
    hub.forget()
    assert fetched(online) == folder
    offline(hub, tmp_path, monkeypatch)
    assert fetched(offer("clip-vit-b32")) == folder
    assert hub.asked == []


def test_no_space_is_said_before_anything_is_fetched(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    offered = replace(offer("clip-vit-b32"))
    hub.forget()
    monkeypatch.setattr("shutil.disk_usage", lambda path: Usage(10**9, 10**9, 100_000))
    message, hint = refused(offered)
    assert message.endswith("needs 1 MB and has 0 MB free")
    assert hint == "free some space, or set HF_HOME to a folder on another disk"
    assert hub.asked == []


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
from cbir.descriptors.hub.fetching import fetch
from cbir.descriptors.hub.offers import offer
from cbir.errors import CbirError
try:
    fetch(offer("clip-vit-b32"), lambda done, total: None)
except CbirError as error:
    print(f"{error.message}|{error.hint}")
"""
INTERRUPTED = """
from cbir.descriptors.hub.fetching import fetch
from cbir.descriptors.hub.offers import offer
print("started", flush=True)
try:
    fetch(offer("clip-vit-b32"), lambda done, total: print(done, flush=True))
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.skipif(os.name != "posix", reason="limits are POSIX")
def test_a_disk_that_fills_up_is_one_line_and_the_rest_comes_later(hub: Hub, cache: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", LIMITED], capture_output=True, text=True)
    assert ended.stderr == ""
    message, _, hint = ended.stdout.strip().partition("|")
    assert message.startswith("cannot write ")
    assert os.strerror(errno.EFBIG) in message
    assert hint == "free some space, or set HF_HOME to a folder on another disk"
    assert len(half(cache)) == 1
    hub.forget()
    assert same(fetched(offer("clip-vit-b32")), hub)
    assert 0 < hub.sent[f"{TEXT}_data"] < 300_000


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_process_leaves_what_the_next_one_continues(
    how: signal.Signals, hub: Hub, cache: Path
) -> None:
    hub.faults.pause = 0.05
    child = subprocess.Popen([sys.executable, "-c", INTERRUPTED], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    try:
        while not any(draft.stat().st_size > 50_000 for draft in half(cache)):
            time.sleep(0.01)
            assert child.poll() is None
        child.send_signal(how)
        said, _ = child.communicate(timeout=30)
    finally:
        child.kill()
        child.wait()
    assert said.endswith("interrupted\n") or how == signal.SIGKILL
    hub.faults.pause = 0.0
    hub.forget()
    assert same(fetched(offer("clip-vit-b32")), hub)
    assert 0 < hub.sent[f"{TEXT}_data"] < 300_000


def test_only_one_process_fetches_a_repository(hub: Hub, cache: Path) -> None:
    offered = offer("clip-vit-b32")
    locks = cache.parent / ".locks" / cache.name
    locks.mkdir(parents=True)
    with FileLock(locks / "cbir.lock"):
        message, hint = refused(offered)
    assert message == f"another process is fetching {REPOSITORY}"
    assert hint
    assert same(fetched(offered), hub)


def test_the_cache_cannot_be_written(hub: Hub, tmp_path: Path) -> None:
    offered = offer("clip-vit-b32")
    (tmp_path / "home").mkdir()
    (tmp_path / "home/huggingface").write_text("a file")
    message, hint = refused(offered)
    assert message.startswith(f"cannot write {tmp_path / 'home/huggingface'}")
    assert "HF_HOME" in hint
