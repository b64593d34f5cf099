"""A person's ONNX file or folder becomes a model: what is read, asked, chosen and refused."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cbir.descriptors.about import About
from cbir.descriptors.contract import describe, describe_texts
from cbir.descriptors.fusion import unit_rows
from cbir.descriptors.importing.input_settings import Changes, OpenQuestionsError
from cbir.descriptors.importing.model_import import Imported, import_folder, import_model
from cbir.descriptors.models import load_descriptor, models
from cbir.descriptors.onnx import OnnxDescriptor
from cbir.descriptors.pulled import pulled_default
from cbir.errors import CbirError
from cbir.files import LINKED_BYTES
from cbir.testing import check_descriptor
from cbir.types import Floats
from tests.descriptors.support_networks import (
    DIM,
    FLOAT,
    FLOAT16,
    INT64,
    UINT8,
    WEIGHTS,
    features,
    model,
    network,
    table,
    text_network,
)

onnx = pytest.importorskip("onnx", reason="needs the `photos` extra")

LAST = [0, 2, 3, 1]
ABOUT = About("MIT", "nothing", "net.onnx")
HALF = (0.5, 0.5, 0.5)
SAID: dict[str, Any] = {"size": (16, 16), "resize": "stretch", "mean": HALF, "std": HALF}
IMAGES = list(np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), dtype=np.uint8))
INPUTS = np.stack(IMAGES).transpose(0, 3, 1, 2).astype(np.float32) / 127.5 - 1
MAP = features(INPUTS)
ROWS = MAP.mean(axis=(2, 3))


def written(folder: Path, content: bytes | None = None, name: str = "net.onnx") -> Path:
    """An ONNX file, of a network with an embedding by default."""
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(network() if content is None else content)
    return file


def imported(path: Path, **changes: Any) -> Imported:
    return import_model(path, "own", ABOUT, Changes(**changes))


def vectors(made: Imported) -> Floats:
    stored = load_descriptor(f"own@{made.spec.fingerprint[:16]}")
    assert isinstance(stored, OnnxDescriptor)
    check_descriptor(stored)
    return describe(stored, IMAGES)


def test_all_open_questions_are_asked_at_once_with_their_options(tmp_path: Path) -> None:
    with pytest.raises(OpenQuestionsError) as caught:
        imported(written(tmp_path))
    asked = dict(zip(("--size", "--mean", "--resize"), caught.value.questions, strict=True))
    assert all(option in question for option, question in asked.items())
    assert "--std" in asked["--mean"] and "0.485,0.456,0.406" in asked["--mean"]
    assert not list(models("own"))
    with pytest.raises(OpenQuestionsError, match="--std"):
        imported(written(tmp_path), **{**SAID, "std": None})


def test_answers_make_a_model_that_needs_the_file_no_more(tmp_path: Path) -> None:
    file = written(tmp_path)
    made = imported(file, **SAID)
    file.unlink()
    np.testing.assert_allclose(vectors(made), unit_rows(ROWS), atol=1e-5)
    assert (made.spec.dim, made.spec.licence, made.spec.trained_on) == (DIM, "MIT", "nothing")
    assert made.size == sum(kept.stat().st_size for kept in made.folder.iterdir())
    assert made.images_per_second > 0
    assert any("interpolation" in line for line in made.assumptions)
    assert any("--scale" in line for line in made.assumptions)


def test_files_beside_the_network_answer_and_options_come_first(tmp_path: Path) -> None:
    written(tmp_path / "onnx", name="model.onnx")
    says = {"image_processor_type": "ViTImageProcessor", "size": {"height": 16, "width": 16},
            "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "resample": 2}  # fmt: skip
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(says))
    np.testing.assert_allclose(vectors(imported(tmp_path)), unit_rows(ROWS), atol=1e-5)
    other = vectors(imported(tmp_path, mean=(0.1, 0.2, 0.9)))
    shifted = INPUTS + np.float32([0.8, 0.6, -0.8]).reshape(1, 3, 1, 1)
    np.testing.assert_allclose(other, unit_rows(features(shifted).mean((2, 3))), atol=1e-5)


def test_an_unknown_processor_is_a_question_until_options_answer_all(tmp_path: Path) -> None:
    written(tmp_path)
    says = {"image_processor_type": "OddImageProcessor"}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(says))
    with pytest.raises(OpenQuestionsError, match="OddImageProcessor"):
        imported(tmp_path)
    made = imported(tmp_path, **SAID)
    assert any("OddImageProcessor" in line for line in made.assumptions)
    np.testing.assert_allclose(vectors(made), unit_rows(ROWS), atol=1e-5)


@pytest.mark.parametrize(
    ("outputs", "said", "output", "pooling"),
    [
        (["anything"], {}, "anything", "none"),
        (["last_hidden_state", "image_embeds"], {}, "image_embeds", "none"),
        (["last_hidden_state", "pooler_output"], {}, "pooler_output", "none"),
        (["last_hidden_state"], {}, "last_hidden_state", "cls"),
        (["last_hidden_state"], {"pooling": "mean"}, "last_hidden_state", "mean"),
        (["tokens"], {}, "tokens", "mean"),  # 2 x 2 of them: no CLS token
        (["map", "logits"], {}, "map", "mean"),
        (["map"], {"pooling": "gem"}, "map", "gem"),
        (["embedding", "map"], {"output": "map"}, "map", "mean"),
    ],
)
def test_the_embedding_is_chosen_and_told(
    outputs: list[str], said: dict[str, str], output: str, pooling: str, tmp_path: Path
) -> None:
    made = imported(written(tmp_path, network(outputs)), **SAID, **said)
    assert any(f"output '{output}'" in line for line in made.assumptions)
    tokens = MAP.reshape(len(MAP), DIM, -1).swapaxes(1, 2)
    with_cls = np.concatenate([ROWS[:, None], tokens], axis=1)
    taken = {"tokens": tokens, "last_hidden_state": with_cls, "map": tokens}.get(output)
    expected = {
        "none": lambda: ROWS,
        "cls": lambda: taken[:, 0],
        "mean": lambda: taken.mean(axis=1),
        "gem": lambda: np.cbrt((np.maximum(taken, 1e-6) ** 3).mean(axis=1)),
    }[pooling]()
    np.testing.assert_allclose(vectors(made), unit_rows(expected), atol=1e-5)


def test_the_pooler_of_a_vit_is_not_trusted(tmp_path: Path) -> None:
    written(tmp_path, network(["last_hidden_state", "pooler_output"]))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit"}))
    made = imported(tmp_path, **SAID)
    assert any("'last_hidden_state' (5x6), the first of its tokens" in a for a in made.assumptions)


def test_class_scores_are_warned_about(tmp_path: Path) -> None:
    made = imported(written(tmp_path, network(["logits"])), **SAID)
    assert any("class scores" in line for line in made.assumptions)
    made = imported(written(tmp_path), **SAID)
    assert not any("class scores" in line for line in made.assumptions)


def test_several_outputs_are_a_question(tmp_path: Path) -> None:
    file = written(tmp_path, network(["one", "other"]))
    with pytest.raises(OpenQuestionsError, match="--output") as caught:
        imported(file, **SAID)
    assert "one" in str(caught.value) and "other" in str(caught.value)
    imported(file, **SAID, output="one")


@pytest.mark.parametrize("kind", [FLOAT, UINT8])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_layout_type_and_sides_of_the_input_are_read(
    layout: str, kind: int, tmp_path: Path
) -> None:
    shape = ("n", 3, 16, 16) if layout == "NCHW" else ("n", 16, 16, 3)
    said = {"resize": "stretch"} | ({"mean": HALF, "std": HALF} if kind == FLOAT else {})
    made = imported(written(tmp_path, network(shape=shape, kind=kind, layout=layout)), **said)
    levels = (INPUTS + 1) * 127.5 if kind == UINT8 else INPUTS
    expected = unit_rows(features(levels.astype(np.float32)).mean((2, 3)))
    np.testing.assert_allclose(vectors(made), expected, atol=1e-5)


def test_a_layout_may_be_told_by_the_name_of_a_side(tmp_path: Path) -> None:
    named = {"NCHW": ("n", "num_channels", "h", "w"), "NHWC": ("n", "h", "w", "Channels")}
    for layout, shape in named.items():
        path = written(tmp_path / layout, network(shape=shape, layout=layout))
        made = imported(path, **SAID)
        assert not any("layout" in line for line in made.assumptions)
        np.testing.assert_allclose(vectors(made), unit_rows(ROWS), atol=1e-5)


def test_an_open_layout_is_assumed_or_said(tmp_path: Path) -> None:
    open_ = ("n", "a", "b", "c")
    made = imported(written(tmp_path, network(shape=open_)), **SAID)
    assert any("layout NCHW" in line for line in made.assumptions)
    last = written(tmp_path, network(shape=open_, layout="NHWC"))
    np.testing.assert_allclose(
        vectors(imported(last, **SAID, layout="NHWC")), unit_rows(ROWS), atol=1e-5
    )


def test_a_layout_that_the_network_does_not_have_is_refused(tmp_path: Path) -> None:
    error = refused(written(tmp_path), layout="NHWC")
    assert "is not in the layout NHWC" in error.message and "omit --layout" in error.hint


def test_a_size_that_the_network_does_not_take_is_one_question(tmp_path: Path) -> None:
    file = written(tmp_path, network(shape=("n", 3, 16, 24)))
    with pytest.raises(OpenQuestionsError) as caught:
        imported(file, **{**SAID, "size": (32, 32)})
    assert caught.value.questions == (
        "the network takes images of 24x16 pixels, not 32x32: give --size 24x16",
    )


def test_a_network_of_one_image_at_a_time_describes_many(tmp_path: Path) -> None:
    from onnx import helper

    declared = written(tmp_path, network(shape=(1, 3, 16, 16)))
    made = imported(declared, **{**SAID, "size": None})
    np.testing.assert_allclose(vectors(made), unit_rows(ROWS), atol=1e-5)
    assert any("one image at a time" in line for line in made.assumptions)
    fixed_inside = [
        helper.make_node("Constant", [], ["one"], value_ints=[1, DIM]),
        helper.make_node("Reshape", ["rows", "one"], ["embedding"]),
    ]
    made = imported(written(tmp_path, network(nodes=fixed_inside)), **SAID)
    np.testing.assert_allclose(vectors(made), unit_rows(ROWS), atol=1e-5)
    assert any("one by one" in line for line in made.assumptions)


def test_a_network_that_mixes_its_batch_describes_one_by_one(tmp_path: Path) -> None:
    from onnx import helper

    mixing = [
        helper.make_node("ReduceMax", ["rows"], ["largest"], axes=[0], keepdims=1),
        helper.make_node("Mul", ["rows", "largest"], ["embedding"]),
    ]
    made = imported(written(tmp_path, network(nodes=mixing)), **SAID)
    np.testing.assert_allclose(vectors(made), unit_rows(ROWS * ROWS), atol=1e-5)
    assert any("one by one" in line for line in made.assumptions)


def with_words(folder: Path, text: bytes, tokenizer: bool = True, context: int = 8) -> Path:
    """A folder with an image network, a text network and a tokenizer of three words."""
    tokenizers = pytest.importorskip("tokenizers", reason="needs the `hub` extra")
    written(folder / "onnx", name="vision_model.onnx")
    written(folder / "onnx", text, "text_model.onnx")
    words = {"[PAD]": 0, "[UNK]": 1, "dog": 2, "beach": 3, "flowers": 4}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    if tokenizer:
        made.save(str(folder / "tokenizer.json"))
    said = {"model_max_length": context, "pad_token": "[PAD]"} if context else {}
    (folder / "tokenizer_config.json").write_text(json.dumps(said))
    return folder


def test_words_are_described_by_the_text_network(tmp_path: Path) -> None:
    made = imported(with_words(tmp_path / "x", text_network()), **SAID)
    assert made.has_text
    shutil.rmtree(tmp_path / "x")
    own = describe_texts(load_descriptor("own"), ["dog beach", "a dog"])
    rows = table()
    expected = unit_rows(np.stack([rows[[2, 3]].mean(0), rows[[1, 2]].mean(0)]))
    np.testing.assert_allclose(own, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("text", "rest", "said"),
    [
        ({}, {"tokenizer": False}, "no tokenizer.json"),
        ({}, {"context": 0}, "how many tokens"),
        ({"output": "last_hidden_state"}, {}, "none of text_embeds"),
    ],
)
def test_words_that_cannot_be_searched_are_told(
    text: dict[str, Any], rest: dict[str, Any], said: str, tmp_path: Path
) -> None:
    made = imported(with_words(tmp_path, text_network(**text), **rest), **SAID)
    assert not made.has_text
    (line,) = [line for line in made.assumptions if line.startswith("words cannot be searched")]
    assert said in line
    assert {file.name for file in made.folder.iterdir()} == {"model.onnx", "model.json"}


def test_a_text_network_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    error = refused(with_words(tmp_path, text_network(dim=DIM + 1)))
    assert "text_embeds" in error.message


def refused(path: Path, **changes: Any) -> CbirError:
    """The error of an import, which leaves nothing behind and fits into one line."""
    with pytest.raises(CbirError) as caught:
        imported(path, **{**SAID, **changes})
    error = caught.value
    assert "\n" not in str(error) and "import-" not in str(error)
    assert error.hint and not list(models("own"))
    return error


@pytest.mark.parametrize(
    ("content", "message", "hint"),
    [
        (b"", "is empty", "export it again"),
        (b"no network at all, but text\n" * 99, "cannot be loaded", "not an ONNX file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "LFS", "git lfs pull"),
        (network()[:400], "cannot be loaded", "not an ONNX file"),
        (network(shape=("n", 3, 16)), "cannot be loaded", "export the network again"),
    ],
)
def test_what_is_no_network_is_refused(
    content: bytes, message: str, hint: str, tmp_path: Path
) -> None:
    error = refused(written(tmp_path, content))
    assert message in error.message and hint in error.hint


@pytest.mark.parametrize(
    ("shape", "kind", "said"),
    [
        (("n", 1, 16, 16), FLOAT, "no three channels"),
        (("n", 16, 16, 1), FLOAT, "no three channels"),
        (("n", 4, 16, 16), FLOAT, "no three channels"),
        (("n", 48), FLOAT, "takes no images"),
        (("n",), FLOAT, "takes no images"),
        (("n", 3, 4, 16, 16), FLOAT, "takes no images"),
        (("n", 3, 16, 16), FLOAT16, "tensor(float16)"),
        (("n", 3, 16, 16), INT64, "tensor(int64)"),
        ((4, 3, 16, 16), FLOAT, "exactly 4 images"),
    ],
)
def test_an_input_of_no_images_is_refused(
    shape: tuple[Any, ...], kind: int, said: str, tmp_path: Path
) -> None:
    from onnx import helper

    content = model(
        [helper.make_node("Cast", ["x"], ["y"], to=FLOAT)],
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", FLOAT, None)],
    )
    assert said in refused(written(tmp_path, content)).message


def test_two_inputs_are_refused(tmp_path: Path) -> None:
    from onnx import helper

    content = model(
        [helper.make_node("Add", ["pixel_values", "input_ids"], ["y"])],
        [
            helper.make_tensor_value_info(name, FLOAT, ("n", 3, 16, 16))
            for name in ("pixel_values", "input_ids")
        ],
        [helper.make_tensor_value_info("y", FLOAT, None)],
    )
    error = refused(written(tmp_path, content))
    assert "2 inputs (pixel_values, input_ids)" in error.message
    assert "vision_model.onnx" in error.hint


@pytest.mark.parametrize("domain", ["", "com.example"])
def test_an_operator_that_is_not_there_is_named(domain: str, tmp_path: Path) -> None:
    from onnx import helper

    odd = [helper.make_node("Oddity", ["rows"], ["embedding"], domain=domain)]
    error = refused(written(tmp_path, network(nodes=odd)))
    assert "Oddity" in error.message and "standard operators" in error.hint


def test_outputs_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    from onnx import helper

    node = helper.make_node
    file = written(tmp_path, network(["embedding", "map"]))
    assert "has no output 'embeding'" in refused(file, output="embeding").message
    assert "'embedding'?" in refused(file, output="embeding").hint
    assert "nothing to pool" in refused(file, output="embedding", pooling="cls").message
    assert "does not fit" in refused(file, output="map", pooling="cls").message
    for case, (nodes, said) in enumerate(
        [
            ([node("Log", ["negative"], ["embedding"])], "NaN"),
            ([node("ReduceSum", ["rows"], ["embedding"], keepdims=0)], "makes no vector"),
            ([node("Sub", ["rows", "rows"], ["embedding"])], "the same vector"),
            ([node("RandomNormalLike", ["rows"], ["embedding"])], "different vectors each time"),
            (
                [node("Transpose", ["chosen_map"], ["embedding"], perm=[0, 2, 3, 1])],
                "channels last",
            ),
        ]
    ):
        minus = [node("Abs", ["rows"], ["sizes"]), node("Neg", ["sizes"], ["negative"])]
        content = network(nodes=[*minus, *nodes])
        assert said in refused(written(tmp_path, content, f"{case}.onnx")).message


def test_an_output_of_whole_numbers_is_refused(tmp_path: Path) -> None:
    from onnx import helper

    whole = [helper.make_node("Cast", ["rows"], ["embedding"], to=INT64)]
    content = network(nodes=whole, declared=INT64)
    assert "no output of type float32" in refused(written(tmp_path, content)).message


def test_a_file_that_is_written_again_does_not_change_the_model(tmp_path: Path) -> None:
    file = written(tmp_path, network(weights_in="large.bin"))
    large = tmp_path / "large.bin"
    large.write_bytes(WEIGHTS.tobytes() + bytes(LINKED_BYTES))
    made = imported(file, **SAID)
    with large.open("r+b") as opened:
        opened.write(bytes(WEIGHTS.nbytes))
    np.testing.assert_allclose(vectors(made), unit_rows(ROWS), atol=1e-5)


def test_sizes_that_do_not_fit_are_asked_for_anew(tmp_path: Path) -> None:
    file = written(tmp_path, network(shape=("n", 3, 16, 16)))
    assert "--size 16" in str(refused(file, size=(32, 32)))
    assert "--side" in str(refused(file, resize="shortest", side=8))
    assert "--scale 1" in str(refused(file, mean=(123.0, 117.0, 104.0)))
    assert "known: stretch" in str(refused(file, resize="squash"))
    failing = written(tmp_path, network(), "any.onnx")
    assert "fails" in refused(failing, size=(4, 4)).message  # smaller than the first kernel


def test_weights_beside_the_network_keep_their_names(tmp_path: Path) -> None:
    file = written(tmp_path, network(weights_in="./net.weights-1.bin"), "net.onnx")
    (tmp_path / "net.weights-1.bin").write_bytes(WEIGHTS.tobytes())
    made = imported(file, **SAID)
    shutil.rmtree(tmp_path)
    names = {kept.name for kept in made.folder.iterdir()}
    assert names == {"model.onnx", "model.json", "net.weights-1.bin"}
    np.testing.assert_allclose(vectors(made), unit_rows(ROWS), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("gone.bin", "lacks gone.bin"),
        ("../secret.bin", "'../secret.bin', which cannot be a file beside it"),
        ("sub/secret.bin", "cannot be a file beside it"),
        ("/etc/passwd", "cannot be a file beside it"),
        ("model.json", "cannot be a file beside it"),
        ("projection.npz", "cannot be a file beside it"),
        ("link.bin", "is a link to"),
    ],
)
def test_weights_that_are_missing_or_elsewhere_are_refused(
    name: str, said: str, tmp_path: Path
) -> None:
    (tmp_path / "secret.bin").write_bytes(WEIGHTS.tobytes())
    file = written(tmp_path / "model", network(weights_in=name))
    (tmp_path / "model" / "link.bin").symlink_to(tmp_path / "secret.bin")
    assert said in refused(file).message


def test_links_out_of_the_folder_are_refused_but_those_of_the_cache_of_the_hub(
    tmp_path: Path,
) -> None:
    blobs, folder = tmp_path / "models--a--b" / "blobs", tmp_path / "models--a--b/snapshots/c0/onnx"
    file, weights = written(blobs, network(weights_in="model.onnx_data"), "1"), blobs / "2"
    weights.write_bytes(WEIGHTS.tobytes())
    folder.mkdir(parents=True)
    (folder / "model.onnx").symlink_to("../../../blobs/1")
    (folder / "model.onnx_data").symlink_to("../../../blobs/2")
    np.testing.assert_allclose(vectors(imported(folder.parent, **SAID)), unit_rows(ROWS), atol=1e-5)
    for model_of in models("own"):
        shutil.rmtree(model_of.place)
    strange = tmp_path / "strange"
    strange.mkdir()
    (strange / "model.onnx").symlink_to(file)
    assert "is a link to" in refused(strange).message
    written(strange / "x", name="model.onnx")
    (strange / "x" / "config.json").symlink_to(tmp_path)
    assert "is a link to" in refused(strange / "x").message


def test_nothing_in_a_folder_is_run_and_only_the_model_is_kept(tmp_path: Path) -> None:
    written(tmp_path, name="model.onnx")
    bomb = f"open({str(tmp_path / 'ran')!r}, 'w')"
    for name in ("model.py", "modeling_own.py", "sitecustomize.py", "setup.py", "conftest.py"):
        (tmp_path / name).write_text(bomb)
    pickled = b"cbuiltins\nexec\n(V" + bomb.encode() + b"\ntR."
    for name in ("pytorch_model.bin", "model.pth", "model.npz", "projection.npz"):
        (tmp_path / name).write_bytes(pickled)
    auto = {"auto_map": {"AutoModel": "modeling_own.Own"}, "model_type": "own"}
    (tmp_path / "config.json").write_text(json.dumps(auto))
    made = imported(tmp_path, **SAID)
    vectors(made)
    assert not (tmp_path / "ran").exists()
    assert {file.name for file in made.folder.iterdir()} == {"model.onnx", "model.json"}


def test_garbage_beside_the_network_is_one_line(tmp_path: Path) -> None:
    written(tmp_path, name="model.onnx")
    config = tmp_path / "preprocessor_config.json"
    for content in (b"{", b"[]", b'{"image_processor_type": 7}', b"\xff\xfe", b"[" * 99_999):
        config.write_bytes(content)
        assert config.name in refused(tmp_path).message
    with config.open("wb") as file:
        file.truncate(100 * 2**20)
    assert "larger than" in refused(tmp_path).message


def test_a_folder_without_one_clear_network_is_refused(tmp_path: Path) -> None:
    assert "no file or folder" in refused(tmp_path / "gone").message
    assert "has no ONNX file" in refused(tmp_path).message
    written(tmp_path, name="one.onnx")
    written(tmp_path, name="other.onnx")
    assert "has 2 ONNX files: one.onnx, other.onnx" in refused(tmp_path).message
    written(tmp_path / "onnx", name="model.onnx")
    imported(tmp_path, **SAID)


@pytest.mark.parametrize("name", ["classic", "efficientnet-lite0", "a b", "", "../x", "x" * 101])
def test_a_name_that_is_taken_or_no_name_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(CbirError, match=r"one of cbir's own models|is not a valid name"):
        import_model(written(tmp_path), name, ABOUT, Changes(**SAID))


def test_a_store_that_cannot_be_written_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = written(tmp_path)

    def full(source: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(target))

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "copyfile", full)
        error = refused(file)
    assert "No space left on device" in error.message and "CBIR_HOME" in error.hint
    (tmp_path / "home").write_text("")
    monkeypatch.setenv("CBIR_HOME", str(tmp_path / "home"))
    with pytest.raises(CbirError, match="cannot be kept"):
        imported(file, **SAID)


def test_a_folder_that_is_a_model_is_kept_as_it_is(tmp_path: Path) -> None:
    made = imported(written(tmp_path), **SAID)
    folder = shutil.copytree(made.folder, tmp_path / "copy")
    shutil.rmtree(made.folder)
    again = import_folder(folder, "renamed")
    assert (again.spec.name, again.spec.fingerprint) == ("renamed", made.spec.fingerprint)
    assert import_folder(folder, None).folder == made.folder
    card = json.loads((folder / "model.json").read_text())
    card["training"]["source"] = "hf:some/model@0"
    (folder / "model.json").write_text(json.dumps(card))
    import_folder(folder, "claims")
    assert pulled_default() is None
    for name in ("classic", "a/b"):
        with pytest.raises(CbirError, match=r"one of cbir's own models|is not a valid name"):
            import_folder(folder, name)
    (folder / "model.json").write_text(json.dumps({"kind": "onnx"}))
    with pytest.raises(CbirError, match="is not a model card"):
        import_folder(folder, None)
    with (folder / "model.json").open("wb") as file:
        file.truncate(100 * 2**20)
    with pytest.raises(CbirError, match=r"model\.json is larger than"):
        import_folder(folder, None)


def test_a_composition_is_not_added_but_its_parts_are(tmp_path: Path) -> None:
    card = {"kind": "composed", "name": "a+b:0.5", "parts": []}
    (tmp_path / "model.json").write_text(json.dumps(card))
    with pytest.raises(CbirError, match="is a composition"):
        import_folder(tmp_path, None)
