"""`cbir models pull` as a person meets it: what is shown, the question, and what is left behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest

import cbir
from cbir.descriptors.contract import describe_texts
from cbir.descriptors.fusion import unit_rows
from cbir.descriptors.hub.known import KNOWN
from cbir.descriptors.models import load_descriptor
from cbir.errors import how_to_install
from tests.cli.support_cli import COMMAND, call, needs_signals, run
from tests.descriptors.support_hub import README, use_hub
from tests.descriptors.support_networks import DIM, network, table, text_network
from tests.descriptors.support_photos import write_photos
from tools.hub_server import Hub, serve_hub

onnx = pytest.importorskip("onnx", reason="needs the `photos` extra")
pytest.importorskip("huggingface_hub", reason="needs the `hub` extra")
tokenizers = pytest.importorskip("tokenizers", reason="needs the `hub` extra")

REPOSITORY = KNOWN["clip-vit-b32"].repository
PULL = ("models", "pull", "clip-vit-b32")
IMAGES, TEXTS = "onnx/vision_model.onnx", "onnx/text_model.onnx"
PROCESSOR = {
    "image_processor_type": "CLIPImageProcessor",
    "size": {"shortest_edge": 16},
    "crop_size": {"height": 16, "width": 16},
}
WORDS = {"[PAD]": 0, "[UNK]": 1, "dog": 2, "beach": 3, "flowers": 4}


def write_clip(folder: Path) -> Path:
    """A small model with CLIP's files; its networks are made larger, so that they take a while."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(WORDS, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    files: dict[str, bytes | str] = {
        "README.md": README,
        "config.json": json.dumps({"model_type": "clip"}),
        "preprocessor_config.json": json.dumps(PROCESSOR),
        "tokenizer.json": tokenizer.to_str(),
        "tokenizer_config.json": json.dumps({"pad_token": "[PAD]", "model_max_length": 8}),
        IMAGES: large(network(("image_embeds", "last_hidden_state"))),
        TEXTS: large(text_network()),
    }
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data.encode() if isinstance(data, str) else data)
    return folder


def large(made: bytes) -> bytes:
    model = onnx.load_from_string(made)
    model.doc_string = "x" * 300_000
    data: bytes = model.SerializeToString()
    return data


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serve_hub({REPOSITORY: write_clip(tmp_path / "clip")}) as served:
        use_hub(monkeypatch, served.endpoint, tmp_path / "home")
        yield served


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def stored() -> list[dict[str, Any]]:
    """The pulled models that the store has, newest first."""
    return [model for model in call("models", "list", "--json").json if model["origin"] == "store"]


def test_without_a_name_it_lists_the_known_models_and_asks_nobody(hub: Hub) -> None:
    answer = call("models", "pull")
    assert (answer.code, answer.err) == (0, "")
    lines = answer.out.splitlines()
    assert [line.split()[0] for line in lines] == ["model", *KNOWN]
    for line, model in zip(lines[1:], KNOWN.values(), strict=True):
        assert model.repository in line
        assert model.licence in line
    listed = call("models", "pull", "--json").json
    assert [model["name"] for model in listed] == list(KNOWN)
    assert hub.asked == []


def test_it_shows_the_offer_and_what_the_model_is(hub: Hub) -> None:
    answer = call(*PULL, "--yes")
    assert answer.code == 0, answer.err
    shown = {p.relative_to(hub.repositories[REPOSITORY]).as_posix(): p.stat().st_size
             for p in files(hub.repositories[REPOSITORY])}  # fmt: skip
    for said in (
        f"clip-vit-b32: {REPOSITORY}",
        f"revision    main, commit {hub.commit(REPOSITORY)}",
        "licence     mit",
        f"trained on  {KNOWN['clip-vit-b32'].trained_on}",
        "words       yes",
        f"{sum(shown.values()) / 1e6:,.1f} MB in 7 files",
        *(f"{name}  {size:,} bytes" for name, size in shown.items()),
        "next: cbir index FOLDER --into INDEX --descriptor clip-vit-b32",
    ):
        assert said in answer.err
    first, *rest = answer.out.splitlines()
    assert first.startswith("clip-vit-b32@") and f": {DIM} dimensions, " in first
    assert "images/s on one core" in first
    assert "words can be searched" in rest[0]
    assert "embedding: output 'image_embeds' (6)" in answer.out


def test_a_pulled_model_describes_pictures_by_default_and_words(hub: Hub, tmp_path: Path) -> None:
    made = call(*PULL, "--yes", "--json").json
    assert (made["name"], made["dim"], made["has_text"]) == ("clip-vit-b32", DIM, True)
    assert (made["licence"], made["images_per_second"] > 0) == ("mit", True)
    card = json.loads((Path(made["place"]) / "model.json").read_text())
    assert card["training"]["source"] == f"hf:{REPOSITORY}@{hub.commit(REPOSITORY)}"
    assert card["training"]["source"] in call("models", "show", made["name"]).out
    photos, place = write_photos(tmp_path / "photos", per_colour=1), tmp_path / "photos.cbir"
    cbir.index_images([photos], place)
    info = call("info", place, "--json").json
    assert info["descriptor"]["fingerprint"] == made["fingerprint"]
    (found,) = call("search", "--text", "dog beach", "--in", place, "--json").json
    assert len(found["hits"]) == 3
    row = describe_texts(load_descriptor("clip-vit-b32"), ["dog beach"])
    assert row == pytest.approx(unit_rows(table()[[2, 3]].mean(0, keepdims=True)), abs=1e-6)


def test_the_same_commit_is_kept_once_and_not_tried_again(hub: Hub, tmp_path: Path) -> None:
    made = call(*PULL, "--yes", "--json").json
    hub.forget()
    with patch("cbir.descriptors.onnx.OnnxDescriptor.describe", side_effect=AssertionError):
        answer = call(*PULL)
        again = call(*PULL, "--json").json
    assert answer.code == 0, answer.err
    assert (
        f"clip-vit-b32 is in the model store already, at commit {hub.commit(REPOSITORY)}"
        in answer.err
    )
    assert answer.out.startswith("clip-vit-b32@") and "words can be searched" in answer.out
    assert again == {**made, "images_per_second": None, "assumptions": []}
    assert len(hub.asked) == 2 and not hub.sent
    assert [model["fingerprint"] for model in stored()] == [made["fingerprint"]]


def test_the_model_that_was_pulled_last_is_the_newest(hub: Hub, tmp_path: Path) -> None:
    hub.repositories["me/other"] = write_clip(tmp_path / "other")
    for name in ("clip-vit-b32", "hf:me/other", "clip-vit-b32"):
        pulled = call("models", "pull", name, "--yes", "--json").json
        assert stored()[0]["name"] == pulled["name"]
    assert len(stored()) == 2


def test_a_newer_commit_is_a_second_version(hub: Hub) -> None:
    old = call(*PULL, "--yes", "--json").json
    (hub.repositories[REPOSITORY] / "preprocessor_config.json").write_text(
        json.dumps({**PROCESSOR, "size": {"shortest_edge": 20}})
    )
    new = call(*PULL, "--yes", "--json").json
    assert [model["fingerprint"] for model in stored()] == [new["fingerprint"], old["fingerprint"]]
    assert load_descriptor("clip-vit-b32").spec.fingerprint == new["fingerprint"]
    for version in (old, new):
        name = f"clip-vit-b32@{version['fingerprint'][:8]}"
        assert load_descriptor(name).spec.fingerprint == version["fingerprint"]


def test_a_damaged_model_is_whole_again(hub: Hub) -> None:
    made = call(*PULL, "--yes", "--json").json
    (Path(made["place"]) / "text.onnx").unlink()
    assert stored() == []
    assert call(*PULL, "--yes", "--json").json["place"] == made["place"]
    assert [model["fingerprint"] for model in stored()] == [made["fingerprint"]]
    assert len(describe_texts(load_descriptor("clip-vit-b32"), ["dog"])) == 1


def test_nothing_is_fetched_without_a_terminal_and_without_yes(hub: Hub, tmp_path: Path) -> None:
    answer = call(*PULL)
    assert answer.code == 1
    assert answer.err.splitlines()[-2:] == [
        "error: this needs a yes",
        "  hint: cbir models pull clip-vit-b32 --yes",
    ]
    assert len(hub.asked) == 1
    assert files(tmp_path / "home") == []


@pytest.mark.skipif(os.name != "posix", reason="terminals are POSIX")
@pytest.mark.parametrize(("said", "code"), [(b"y\n", 0), (b"n\n", 1), (b"\n", 1)])
def test_on_a_terminal_it_asks(said: bytes, code: int, hub: Hub, tmp_path: Path) -> None:
    terminal, keyboard = os.openpty()
    os.write(terminal, said)
    answer = run(*PULL, "--json", stdin=keyboard)
    os.close(terminal)
    os.close(keyboard)
    assert (answer.code, "Traceback" in answer.err) == (code, False)
    assert "Fetch it? [y/N]" in answer.err
    if code:
        assert answer.out == ""
        assert answer.err.endswith("nothing was fetched\n")
        assert files(tmp_path / "home") == []
    else:
        assert json.loads(answer.out)["name"] == "clip-vit-b32"


def test_failures_are_one_line_and_leave_the_store_alone(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cbir.descriptors.hub.fetching.WAITS", (0.0,))
    hub.faults.other_bytes = {IMAGES}
    answer = call(*PULL, "--yes")
    assert answer.code == 1
    assert answer.err.splitlines()[-2].startswith(f"error: {IMAGES} is damaged")
    assert answer.err.splitlines()[-1].startswith("  hint: try again")
    hub.faults.dead_at = 100_000
    answer = call(*PULL, "--yes")
    assert answer.err.splitlines()[-2].startswith(f"error: {IMAGES} is incomplete")
    assert answer.err.splitlines()[-1].endswith("it continues where it stopped")
    with monkeypatch.context() as full:
        full.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=0))
        answer = call(*PULL, "--yes")
        assert "MB and has 0 MB free" in answer.err.splitlines()[-2]
        assert "HF_HOME" in answer.err.splitlines()[-1]
    assert not (tmp_path / "home" / "cbir" / "models").exists()
    assert stored() == []
    for name in ("dinov2-smal", "hf:me/gone", f"hf:{REPOSITORY}@v9"):
        message, hint = call("models", "pull", name, "--yes").error
        assert message
        assert hint
    hub.faults.other_bytes, hub.faults.dead_at = set(), None
    hub.forget()
    assert call(*PULL, "--yes").code == 0
    assert 0 < hub.sent[IMAGES] < 300_000
    assert len(stored()) == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [("HF_ENDPOINT", "http://[bad"), ("HF_ENDPOINT", "http://host:port"),
     ("HF_HUB_ETAG_TIMEOUT", "soon")],
)  # fmt: skip
def test_an_environment_that_cannot_be_read(name: str, value: str) -> None:
    message, hint = run(*PULL, env={**os.environ, name: value}).error
    assert message.startswith("huggingface_hub does not accept its settings: ")
    assert hint.startswith("correct or unset the variable in question: ") and name in hint


def test_a_model_that_cannot_be_used_is_not_kept(hub: Hub) -> None:
    folder = hub.repositories[REPOSITORY]
    (folder / IMAGES).write_bytes(b"no network" * 30_000)
    answer = call(*PULL, "--yes")
    assert answer.code == 1
    assert answer.err.splitlines()[-2].startswith("error: vision_model.onnx cannot be loaded")
    (folder / IMAGES).write_bytes(network(("image_embeds",), shape=("n", 3, 8, 8)))
    (folder / "preprocessor_config.json").unlink()
    (folder / "config.json").unlink()
    answer = call(*PULL, "--yes")
    assert (answer.code, answer.out) == (1, "")
    *_, mean, resize, error, hint = answer.err.splitlines()
    assert "--mean" in mean and "--resize" in resize
    assert error == "error: 2 questions about the network stay open"
    assert stored() == []
    command = hint.removeprefix("  hint: cbir ").removesuffix(", with these options").split()
    options = ("--mean", "0", "--std", "1", "--resize", "stretch")
    assert call(*command, *options, "--json").json["name"] == "clip-vit-b32"


def test_offline_a_pulled_model_is_pulled_from_the_cache(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    online = run(*PULL, "--yes", "--json").json
    use_hub(monkeypatch, hub.endpoint, tmp_path / "home", offline=True)
    hub.forget()
    assert run(*PULL, "--json").json["place"] == online["place"]
    call("models", "remove", "clip-vit-b32", "--yes")
    answer = run(*PULL, "--yes", "--json")
    assert answer.json["fingerprint"] == online["fingerprint"]
    assert "from the cache" in answer.err
    message, hint = run("models", "pull", "dinov2-small", "--yes").error
    assert "HF_HUB_OFFLINE is set" in message
    assert "unset HF_HUB_OFFLINE" in hint
    assert hub.asked == []


@needs_signals
def test_ctrl_c_ends_it_in_one_line_and_the_next_call_continues(hub: Hub) -> None:
    hub.faults.pause = 0.05
    child = subprocess.Popen(
        [*COMMAND, *PULL, "--yes"], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        while hub.sent[TEXTS] < 100_000:
            assert child.poll() is None
            time.sleep(0.01)
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=30)
    finally:
        child.kill()
        child.wait()
    assert (child.returncode, out, err.splitlines()[-1]) == (130, "", "interrupted")
    assert stored() == []
    hub.faults.pause = 0.0
    hub.forget()
    assert run(*PULL, "--yes").code == 0
    assert 0 < hub.sent[TEXTS] < 300_000


def test_without_the_extra(hub: Hub) -> None:
    with patch("cbir.registry.installed", lambda *modules: False):
        message, hint = call(*PULL).error
    assert message == "cbir models pull needs the 'hub' extra"
    assert hint == how_to_install("hub")
