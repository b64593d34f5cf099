"""`cbir cache`: what is kept, and what goes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.cli.support_cli import call

HOME = {
    "models/net@0123456789abcdef/model.onnx": 3_000,
    "data/cifar-10-python.tar.gz": 2_000,
    "demo/cifar10.cbir/index.sqlite": 1_000,
    "archives/0123-4567.tar": 4_000,
    "training/mine.safetensors": 500,
    "keypoints/0.kept": 200,
}


@pytest.fixture
def home() -> Path:
    folder = Path(os.environ["CBIR_HOME"])
    for name, size in HOME.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(bytes(size))
    return folder


def test_the_cache_is_listed_with_sizes_and_cures(home: Path) -> None:
    kept = {row["what"]: row for row in call("cache", "--json").json["kept"]}
    assert {what: (row["bytes"], row["place"]) for what, row in kept.items()} == {
        "models": (3_000, str(home / "models")),
        "downloads": (2_000, str(home / "data")),
        "demonstration": (1_000, str(home / "demo")),
        "expanded archives": (4_000, str(home / "archives")),
        "checkpoints": (500, str(home / "training")),
        "keypoints": (200, str(home / "keypoints")),
    }
    table = call("cache")
    assert "3.0 kB" in table.out and "cbir models remove NAME" in table.out
    doctor = {row["check"]: row["detail"] for row in _doctor()}
    assert doctor["downloads"] == f"2.0 kB in {home / 'data'}; to remove: cbir cache --clear"
    assert "cbir models remove NAME" in doctor["models"]


def test_an_empty_cache_says_so() -> None:
    listed = call("cache")
    assert (listed.code, listed.out) == (0, "")
    assert listed.err == f"{os.environ['CBIR_HOME']} is empty\n"
    assert call("cache", "--json").json == {"kept": []}


def test_clear_asks_and_keeps_models_and_checkpoints(home: Path) -> None:
    asked = call("cache", "--clear")
    assert (asked.code, asked.err) == (
        1,
        "error: this needs a yes\n  hint: cbir cache --clear --yes\n",
    )
    assert "downloads" in asked.out and "models" not in asked.out
    assert (home / "data").is_dir()
    done = call("cache", "--clear", "--yes")
    assert done.code == 0
    assert done.err.splitlines()[0] == "7.2 kB removed"
    assert "models: 3.0 kB stay; to remove: cbir models remove NAME" in done.err
    left = {str(path.relative_to(home)) for path in home.rglob("*") if path.is_file()}
    left.discard("sources.json")  # of other tests
    assert left == {name for name in HOME if name.startswith(("models", "training"))}
    again = call("cache", "--clear", "--yes", "--json")
    assert again.json == {"removed": []}
    assert call("cache", "--yes").code == 2


def test_downloads_from_the_hub_are_those_that_cbir_fetched(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    constants = pytest.importorskip("huggingface_hub.constants", reason="needs the `hub` extra")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    for name in ("models--some--own", "models--an--others"):
        (tmp_path / name / "blobs").mkdir(parents=True)
        (tmp_path / name / "blobs" / "1").write_bytes(bytes(700))
    lock = tmp_path / ".locks" / "models--some--own" / "cbir.lock"
    lock.parent.mkdir(parents=True)
    lock.touch()
    rows = call("cache", "--json").json["kept"]
    own = tmp_path / "models--some--own"
    assert [row["place"] for row in rows if row["what"] == "hub cache"] == [str(own)]
    removed = call("cache", "--clear", "--yes", "--json").json["removed"]
    assert str(own) in {row["place"] for row in removed} and not own.exists()
    assert (tmp_path / "models--an--others" / "blobs" / "1").exists()


def _doctor() -> list[dict[str, str]]:
    import json

    rows: list[dict[str, str]] = json.loads(call("doctor", "--json").out)
    return rows


@pytest.mark.skipif(os.name != "posix", reason="links need rights on Windows")
def test_clear_empties_a_folder_that_is_a_link_to_another_disk(home: Path, tmp_path: Path) -> None:
    disk = (home / "data").rename(tmp_path / "disk")
    (home / "data").symlink_to(disk)
    assert call("cache", "--clear", "--yes").code == 0
    assert list(disk.iterdir()) == []
    assert (home / "data").is_symlink()
