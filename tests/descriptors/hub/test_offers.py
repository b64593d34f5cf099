"""What the hub offers: names, the files that a model needs, licence, and every refusal."""

from __future__ import annotations

import hashlib
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cbir.descriptors.about import NOT_STATED, About
from cbir.descriptors.hub.fetching import fetch
from cbir.descriptors.hub.known import KNOWN, hub_model
from cbir.descriptors.hub.offers import Offer, offer
from cbir.errors import CbirError, MissingExtraError, how_to_install
from tests.descriptors.support_hub import use_hub, write_repository
from tools.hub_server import Hub, git_hash, serve_hub

DINO = KNOWN["dinov2-small"].repository
CLIP = KNOWN["clip-vit-b32"].repository
IMAGE_ONLY = ("config.json", "preprocessor_config.json", "onnx/model.onnx")
TWO_TOWERS = (
    *("config.json", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json"),
    *("special_tokens_map.json", "README.md", "onnx/vision_model.onnx", "onnx/text_model.onnx"),
)
DECOYS = (
    *("onnx/model_quantized.onnx", "onnx/vision_model_fp16.onnx", "pytorch_model.bin"),
    *("vocab.json", "onnx/decoder_model.onnx_data", "onnx/vision_model_fp16.onnx_data"),
)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    folders = {
        DINO: write_repository(tmp_path / "dino", *IMAGE_ONLY, *DECOYS),
        CLIP: write_repository(tmp_path / "clip", *TWO_TOWERS, "onnx/model.onnx", *DECOYS),
    }
    with serve_hub(folders) as served:
        use_hub(monkeypatch, served.endpoint, tmp_path / "home")
        yield served


def names(offered: Offer) -> list[str]:
    return [file.name for file in offered.files]


def refused(name: str) -> tuple[str, str]:
    with pytest.raises(CbirError) as raised:
        offer(name)
    assert "\n" not in raised.value.message + raised.value.hint
    return raised.value.message, raised.value.hint


def test_a_known_name_is_offered_at_a_commit_with_sizes_and_hashes(hub: Hub) -> None:
    offered = offer("dinov2-small")
    assert (offered.model, offered.revision) == (KNOWN["dinov2-small"], "main")
    assert offered.commit == hub.commit(DINO)
    assert sorted(names(offered)) == sorted(IMAGE_ONLY)
    folder = hub.repositories[DINO]
    for file in offered.files:
        data = (folder / file.name).read_bytes()
        large = file.name.endswith(".onnx")
        expected = hashlib.sha256(data).hexdigest() if large else git_hash(folder / file.name)
        assert (file.size, file.digest) == (len(data), expected)
    assert offered.size == sum((folder / name).stat().st_size for name in IMAGE_ONLY)
    assert not offered.has_text
    assert offered.about == About(
        "Apache-2.0",
        "LVD-142M: 142M images without labels",
        f"hf:{DINO}@{offered.commit}",
    )


def test_the_servers_hashes_are_gits(tmp_path: Path) -> None:
    """The object name of these bytes is in git's own book."""
    (tmp_path / "content").write_bytes(b"test content\n")
    assert git_hash(tmp_path / "content") == "d670460b4b4aece5915caf5c68d12f560a9fe3e4"


def test_an_offer_is_one_request_and_fetches_nothing(hub: Hub, tmp_path: Path) -> None:
    offer("clip-vit-b32")
    assert hub.asked == [f"GET /api/models/{CLIP}/revision/main"]
    assert not (tmp_path / "home").exists()


def test_two_towers_are_offered_with_their_tokenizer_and_the_image_tower_last(hub: Hub) -> None:
    offered = offer("clip-vit-b32")
    assert sorted(names(offered)) == sorted(TWO_TOWERS)
    assert names(offered)[-1] == "onnx/vision_model.onnx"
    assert offered.has_text


def test_a_text_tower_without_a_tokenizer_is_left_out(hub: Hub) -> None:
    (hub.repositories[CLIP] / "tokenizer.json").unlink()
    offered = offer("clip-vit-b32")
    assert not offered.has_text
    assert not any("token" in name or "text" in name for name in names(offered))


def test_external_data_of_the_towers_comes_with_them(hub: Hub) -> None:
    data = [
        *("onnx/vision_model.onnx_data", "onnx/vision_model.onnx_data_1"),
        *("onnx/text_model.onnx.data",),
    ]
    write_repository(hub.repositories[CLIP], *data)
    assert set(names(offer("clip-vit-b32"))) == {*TWO_TOWERS, *data}


@pytest.mark.parametrize(
    ("there", "taken"),
    [
        (["onnx/vision_model.onnx", "onnx/model.onnx"], "onnx/vision_model.onnx"),
        (["vision_model.onnx", "onnx/model.onnx"], "vision_model.onnx"),
        (["model.onnx", "onnx/model.onnx"], "onnx/model.onnx"),
        (["model.onnx"], "model.onnx"),
    ],
)
def test_the_image_tower_is_found_at_the_root_too(
    there: list[str], taken: str, hub: Hub, tmp_path: Path
) -> None:
    hub.repositories["me/mine"] = write_repository(tmp_path / "mine", *there)
    assert names(offer("hf:me/mine")) == [taken]


def test_a_repository_without_such_a_network_says_what_it_has(hub: Hub, tmp_path: Path) -> None:
    folder = write_repository(tmp_path / "mine", "config.json", "onnx/model_int8.onnx")
    hub.repositories["me/mine"] = folder
    message, hint = refused("hf:me/mine")
    assert message.startswith("me/mine has no float32 ONNX network of images: none of onnx/vision")
    assert hint == "it has onnx/model_int8.onnx"
    (folder / "onnx" / "model_int8.onnx").unlink()
    assert refused("hf:me/mine")[1] == "look for an ONNX export of the model"


def test_the_licence_is_what_the_repository_states(hub: Hub, tmp_path: Path) -> None:
    folder = write_repository(tmp_path / "mine", "model.onnx")
    hub.repositories["me/mine"] = folder
    assert offer("hf:me/mine").licence == NOT_STATED
    (folder / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n# Mine\n")
    assert offer("hf:me/mine").about.licence == "cc-by-nc-4.0"
    (folder / "README.md").write_text("---\nlicense: \x1b[2Jmit\n---\n")
    assert offer("hf:me/mine").licence == "[2Jmit"


def test_names_of_repositories(hub: Hub) -> None:
    assert hub_model(f"hf:{DINO}") == (KNOWN["dinov2-small"], "main")
    assert hub_model(f"hf:{DINO.upper()}@v1") == (KNOWN["dinov2-small"], "v1")
    model, revision = hub_model("hf:me/My.Model-1_2@refs/pr/1")
    assert (model.name, model.repository) == ("My.Model-1_2", "me/My.Model-1_2")
    assert (model.licence, model.trained_on) == (NOT_STATED, NOT_STATED)
    assert revision == "refs/pr/1"
    for revision in ("v1", hub.commit(DINO)):
        offered = offer(f"hf:{DINO}@{revision}")
        assert (offered.revision, offered.commit) == (revision, hub.commit(DINO))


def test_known_models_say_what_their_files_do_not() -> None:
    assert all(model.licence != NOT_STATED for model in KNOWN.values())
    assert all(name == model.name for name, model in KNOWN.items())


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("dinov2-smal", "did you mean 'dinov2-small'?"),
        ("resnet", "known: dinov2-small"),
        ("", "known: dinov2-small"),
        ("onnx-community/dinov2-small", "for the repository: hf:onnx-community/dinov2-small"),
        ("hf:", "names of repositories have the form hf:OWNER/NAME[@REVISION]"),
        ("hf:dinov2-small", "names of repositories have the form"),
        ("hf:a/b/c", "names of repositories have the form"),
        ("hf:a/b@", "names of repositories have the form"),
        ("hf:a/b@../x", "names of repositories have the form"),
        ("hf:../b", "names of repositories have the form"),
        ("hf:a/b c", "names of repositories have the form"),
        ("hf:ä/b", "names of repositories have the form"),
        ("hf:a/b--c", "Cannot have -- or .. in repo_id"),
        ("hf:a/" + "b" * 200, "Repo id must use alphanumeric chars"),
    ],
)
def test_a_wrong_name_is_refused_without_a_request(name: str, hint: str, hub: Hub) -> None:
    message, said = refused(name)
    assert message == f"'{name}' is no model of the hub"
    assert said.startswith(hint)
    assert hub.asked == []


@pytest.mark.parametrize(
    ("failure", "message", "hint"),
    [
        ("404 RepoNotFound", f"has no repository {DINO}", "name it hf:OWNER/NAME"),
        ("404", f"has no repository {DINO}", "name it hf:OWNER/NAME"),
        ("401 RepoNotFound", f"refuses {DINO} (HTTP 401)", "HF_TOKEN"),
        ("401", f"refuses {DINO} (HTTP 401)", "/settings/tokens"),
        ("403", f"refuses {DINO} (HTTP 403)", "HF_TOKEN"),
        ("403 GatedRepo", f"{DINO} is gated", "accept its terms on"),
        ("401 GatedRepo", f"{DINO} is gated", "HF_TOKEN"),
        ("404 RevisionNotFound", f"{DINO} has no revision 'main'", "/tree/main"),
        ("429", "refuses more requests for now", "try again in a few minutes"),
        ("500", "failed (HTTP 500)", "try again later"),
        ("503", "failed (HTTP 503)", "try again later"),
        ("418", "failed (HTTP 418)", "try again later"),
    ],
)
def test_every_refusal_of_the_hub_is_one_line_with_a_cure(
    failure: str, message: str, hint: str, hub: Hub
) -> None:
    hub.faults.status["/api/models/"] = failure
    said, cure = refused("dinov2-small")
    assert message in said
    assert hint in cure


def test_a_misspelt_repository_names_the_known_one(hub: Hub) -> None:
    for status in ("404 RepoNotFound", "401 RepoNotFound"):
        hub.faults.status["/api/models/"] = status
        _, hint = refused("hf:onnx-comunity/dinov2-small")
        assert hint == f"did you mean 'hf:{DINO}'?"


def test_a_revision_that_is_not_there(hub: Hub) -> None:
    message, hint = refused(f"hf:{DINO}@v9")
    assert message == f"{DINO} has no revision 'v9'"
    assert hint == f"look at {hub.endpoint}/{DINO}/tree/main"


def test_a_private_repository_needs_a_token_and_storage_never_sees_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_repository(tmp_path / "mine", "model.onnx")
    with serve_hub({"me/mine": folder}, private=frozenset({"me/mine"})) as hub:
        use_hub(monkeypatch, hub.endpoint, tmp_path / "home")
        message, hint = refused("hf:me/mine")
        assert "refuses me/mine (HTTP 401)" in message
        assert "HF_TOKEN" in hint
        use_hub(monkeypatch, hub.endpoint, tmp_path / "home", token="hf_secret")
        hub.tokens["hub"].clear()
        fetched = fetch(offer("hf:me/mine"), lambda done, total: None)
        assert (fetched / "model.onnx").read_bytes() == (folder / "model.onnx").read_bytes()
        assert hub.tokens == {"hub": {"Bearer hf_secret"}, "storage": {None}}


def test_a_hub_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    use_hub(monkeypatch, f"http://127.0.0.1:{port}", tmp_path)
    message, hint = refused("dinov2-small")
    assert message.startswith(f"cannot reach 127.0.0.1:{port}: ")
    assert "HF_ENDPOINT" in hint


def test_a_hub_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        port = silent.getsockname()[1]
        use_hub(monkeypatch, f"http://127.0.0.1:{port}", tmp_path)
        assert refused("dinov2-small")[0] == f"127.0.0.1:{port} does not answer"


@pytest.mark.parametrize("address", ["nonsense", "http://", "ftp://127.0.0.1"])
def test_an_endpoint_that_is_no_address(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_hub(monkeypatch, address, tmp_path)
    message, hint = refused("dinov2-small")
    assert message.startswith("cannot reach")
    assert "HF_ENDPOINT" in hint


@pytest.mark.parametrize(
    "answer",
    [
        "<html>Welcome to the hotel's network</html>",
        "[]",
        "{}",
        '{"id": "a/b", "sha": "../../etc", "siblings": [{"rfilename": "model.onnx"}]}',
        '{"id": "a/b", "sha": null, "siblings": null}',
        '{"id": "a/b", "sha": "%s", "siblings": [{"rfilename": "model.onnx"}]}' % ("a" * 40),
        '{"id": "a/b", "sha": "%s", "siblings": [{"rfilename": "model.onnx", "size": 1, '
        '"lfs": {"size": 1, "sha256": "../../x", "pointerSize": 1}}]}' % ("a" * 40),
    ],
)
def test_an_answer_that_is_not_the_hubs(
    answer: str, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.faults.answer = answer
    message, hint = refused("dinov2-small")
    assert "does not answer as the Hugging Face hub does" in message or "has no float32" in message
    assert hint


def test_without_the_extra(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cbir.registry.installed", lambda *modules: False)
    with pytest.raises(MissingExtraError) as raised:
        offer("dinov2-small")
    assert raised.value.hint == how_to_install("hub")


def test_nothing_of_the_hub_is_imported_before_it_is_asked() -> None:
    import subprocess

    code = (
        "import sys, cbir.descriptors.hub.fetching\n"
        "assert not {'huggingface_hub', 'httpx2', 'tokenizers', 'onnxruntime'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
