"""A card's text tower, its tokenizer, and what the files of a model say about both."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.reference.texts import write
from cbir.descriptors.configs import Read
from cbir.descriptors.text import TextTokenizer, TextTower, cleaned
from cbir.descriptors.text_towers import read_text_tower, tokenizer_file
from cbir.errors import CbirError, MissingExtraError, QueryError

tokenizers = pytest.importorskip("tokenizers", reason="needs the extra 'hub'")

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "dog", "on", "the", "beach", "Dog"]
PAD, UNKNOWN, START, END, A, DOG, ON, THE, BEACH, CAPITAL = range(len(VOCABULARY))


def tokenizer(**changes: Any) -> dict[str, Any]:
    """A `tokenizer.json` of whole words, which ends texts and has padding of its own."""
    model = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({word: n for n, word in enumerate(VOCABULARY)}, "[UNK]")
    )
    model.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    model.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", START), ("[SEP]", END)]
    )
    model.add_special_tokens(VOCABULARY[:4])
    model.enable_padding(length=40, pad_id=BEACH, pad_token="beach")
    stored: dict[str, Any] = json.loads(model.to_str())
    return stored | changes


def encoder(stored: Any = None, **tower: Any) -> TextTokenizer:
    values: dict[str, Any] = {"context": 6, "padding": "longest"} | tower
    data = json.dumps(tokenizer() if stored is None else stored).encode()
    return TextTokenizer(data, TextTower(**values))


def ids(own: TextTokenizer, *texts: str) -> list[list[int]]:
    made: list[list[int]] = own.encode(texts)["input_ids"].tolist()
    return made


def test_the_end_stays_when_a_text_is_cut_off() -> None:
    long = "a dog on the beach " * 50
    assert ids(encoder(), long) == [[START, A, DOG, ON, THE, END]]
    assert ids(encoder(context=3), long) == [[START, A, END]]


def test_texts_are_padded_as_the_card_says() -> None:
    texts = ("a dog", "")
    assert ids(encoder(), *texts) == [[START, A, DOG, END], [START, END, PAD, PAD]]
    assert ids(encoder(padding="context", pad=9), *texts)[1] == [START, END, 9, 9, 9, 9]
    assert ids(encoder(side="left"), *texts)[1] == [PAD, PAD, START, END]
    alone = encoder(padding="none")
    assert ids(alone, "a dog", "on the") == [[START, A, DOG, END], [START, ON, THE, END]]
    with pytest.raises(ValueError, match="different lengths"):
        alone.encode(texts)


def test_networks_get_the_inputs_that_they_name() -> None:
    own = encoder(padding="context", side="left")
    names = ["input_ids", "attention_mask", "token_type_ids", "position_ids", "text"]
    made = own.encode(["a dog", ""], names)
    assert list(made) == names
    assert {(values.dtype.name, values.shape) for values in made.values()} == {("int64", (2, 6))}
    assert made["attention_mask"].tolist() == [[0, 0, 1, 1, 1, 1], [0, 0, 0, 0, 1, 1]]
    assert made["position_ids"].tolist() == [[0, 1, 2, 3, 4, 5]] * 2
    np.testing.assert_array_equal(made["text"], made["input_ids"])
    with pytest.raises(CbirError, match="input 'pixel_values'"):
        own.encode(["a"], ["input_ids", "pixel_values"])
    assert own.encode([])["input_ids"].shape == (0, 6)


def test_lower_and_clean() -> None:
    assert ids(encoder(), "Dog") == [[START, CAPITAL, END]]
    assert ids(encoder(lower=True), "Dog DOG") == [[START, DOG, DOG, END]]
    assert ids(encoder(clean="canonicalize"), "The: DOG!") == [[START, THE, DOG, END]]
    assert cleaned("A_b,  C &amp; d", "canonicalize") == "a b c d"
    assert cleaned(" A_b,  C &amp; d", "whitespace") == "A_b, C & d"


def test_a_tokenizer_without_special_tokens_has_one_token_for_no_text() -> None:
    assert ids(encoder(tokenizer(post_processor=None), pad=7), "", "a") == [[7], [A]]


def test_threads_get_the_same_ids() -> None:
    own = encoder()
    texts = [" ".join(VOCABULARY[4 : 4 + n % 6]) for n in range(200)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda text: ids(own, text), texts)) == [ids(own, t) for t in texts]


def test_long_and_broken_texts() -> None:
    assert ids(encoder(), "dog " * 25_000) == [[START, *[DOG] * 4, END]]
    with pytest.raises(QueryError, match="Unicode"):
        ids(encoder(), "a \ud800")


@pytest.mark.parametrize(
    "stored",
    [
        b"",
        b"{}",
        b"[" * 10_000,
        b"\xff",
        json.dumps(tokenizer()).encode()[:200],
        tokenizer(normalizer={"type": "Replace", "pattern": {"Regex": "("}, "content": ""}),
        tokenizer(normalizer={"type": "Precompiled", "precompiled_charsmap": "AAAA"}),  # a panic
        tokenizer(model={"type": "WordLevel", "vocab": {}, "unk_token": "[UNK]"}),
    ],
)
def test_a_broken_tokenizer_is_one_line(stored: Any) -> None:
    data = stored if isinstance(stored, bytes) else json.dumps(stored).encode()
    with pytest.raises(CbirError, match="tokenizer cannot be used") as raised:
        TextTokenizer(data, TextTower(context=6, padding="none"))
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 300


def test_a_context_must_have_room_for_words() -> None:
    with pytest.raises(CbirError, match="no room"):
        encoder(context=2)


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cbir.registry.installed", lambda *modules: False)
    with pytest.raises(MissingExtraError, match="hub"):
        encoder()


def test_a_tower_survives_json() -> None:
    own = TextTower(context=64, padding="context", pad=1, lower=True, output="pooler_output")
    assert TextTower.parse(json.loads(json.dumps(own.to_json()))) == own


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        [],
        {"context": 64},
        {"context": "64", "padding": "none"},
        {"context": True, "padding": "none"},
        {"context": 10**9, "padding": "none"},
        {"context": 64, "padding": "left"},
        {"context": 64, "padding": ["none"]},
        {"context": 64, "padding": "none", "pad": -1},
        {"context": 64, "padding": "none", "side": "top"},
        {"context": 64, "padding": "none", "lower": 1},
        {"context": 64, "padding": "none", "clean": "scrub"},
        {"context": 64, "padding": "none", "output": ""},
        {"context": 64, "padding": "none", "pooling": "max"},
        {"context": 64, "padding": "none", "more": 1},
        {"context": 64, "padding": "none", "side": "x" * 10_000},
    ],
)
def test_a_card_with_another_tower_is_refused(wrong: Any) -> None:
    with pytest.raises(CbirError, match="text tower") as raised:
        TextTower.parse(wrong)
    assert len(str(raised.value)) < 200


def tower(folder: Path, **files: Any) -> Read[TextTower]:
    return read_text_tower(write(folder, **{"tokenizer": tokenizer(), **files}))


BERT = {"pad_token": "[PAD]", "model_max_length": 1000000000000000019884624838656}


def test_the_context_is_the_smallest_limit(tmp_path: Path) -> None:
    network = {"model_type": "bert", "max_position_embeddings": 512}
    found = tower(tmp_path, tokenizer_config=BERT, config=network)
    assert found.value == TextTower(context=512, padding="longest", pad=PAD)
    found = tower(tmp_path, sentence_bert_config={"max_seq_length": 128})
    assert found.value and found.value.context == 128
    cut = {"max_length": 100, "stride": 0, "strategy": "LongestFirst", "direction": "Right"}
    found = tower(tmp_path, tokenizer=tokenizer(truncation=cut))
    assert found.value and found.value.context == 100


def test_siglip_pads_to_its_context_and_lower_cases(tmp_path: Path) -> None:
    found = tower(tmp_path, tokenizer_config=BERT, config={"model_type": "siglip"})
    assert found.value == TextTower(context=64, padding="context", pad=PAD, lower=True)
    assert any("64 tokens" in line for line in found.assumptions)
    assert any("lower-cased" in line for line in found.assumptions)
    lowers = tokenizer(normalizer={"type": "Sequence", "normalizers": [{"type": "Lowercase"}]})
    found = tower(tmp_path, tokenizer=lowers)
    assert found.value and not found.value.lower


def test_an_end_that_the_tokenizer_does_not_add_is_named(tmp_path: Path) -> None:
    settings = BERT | {"eos_token": {"content": "[SEP]"}}
    network = {"model_type": "siglip"}
    found = tower(tmp_path, tokenizer_config=settings, config=network)
    assert not [line for line in found.assumptions if "end texts" in line]
    found = tower(tmp_path, tokenizer=tokenizer(post_processor=None))
    assert f"tokenizer.json does not end texts with {'[SEP]'!r}" in found.assumptions


def test_the_padding_token_is_found(tmp_path: Path) -> None:
    network = {"model_type": "clip"}
    for number, (name, settings) in enumerate(
        [("dog", {"pad_token": "dog"}), ("[SEP]", {"pad_token": {"content": "[SEP]"}})]
    ):
        found = tower(tmp_path / str(number), tokenizer_config=settings, config=network)
        assert found.value and found.value.pad == VOCABULARY.index(name)
    found = tower(tmp_path / "map", special_tokens_map={"pad_token": "on"}, config=network)
    assert found.value and found.value.pad == ON
    found = tower(tmp_path / "file", config=network)
    assert found.value and found.value.pad == BEACH
    unigram = {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["</s>", -1.0]]}
    found = tower(
        tmp_path / "unigram",
        tokenizer=tokenizer(model=unigram, added_tokens=[]),
        tokenizer_config={"pad_token": "</s>"},
        config=network,
    )
    assert found.value and found.value.pad == 1
    found = tower(tmp_path / "none", tokenizer=tokenizer(padding=None), config=network)
    assert found.value and found.value.padding == "none"
    assert "one at a time" in found.assumptions[-1]
    with pytest.raises(CbirError, match="has no token 'cat'"):
        tower(tmp_path / "unknown", tokenizer_config={"pad_token": "cat"}, config=network)


def test_open_clips_rules(tmp_path: Path) -> None:
    text: dict[str, Any] = {"context_length": 32}
    found = tower(tmp_path, open_clip_config={"model_cfg": {"text_cfg": text}})
    assert found.value == TextTower(context=32, padding="context", pad=0, clean="lower")
    text |= {"hf_tokenizer_name": "a/b", "tokenizer_kwargs": {"clean": "canonicalize"}}
    found = tower(
        tmp_path, open_clip_config={"model_cfg": {"text_cfg": text}}, tokenizer_config=BERT
    )
    assert found.value == TextTower(context=32, padding="context", pad=PAD, clean="canonicalize")


def test_the_folder_textual_is_looked_into(tmp_path: Path) -> None:
    write(tmp_path / "textual", tokenizer=tokenizer(), tokenizer_config=BERT)
    write(tmp_path, config={"embed_dim": 8, "text_cfg": {"context_length": 77}})
    assert tokenizer_file(tmp_path) == tmp_path / "textual" / "tokenizer.json"
    found = read_text_tower(tmp_path, "embedding", "mean")
    assert found.value == TextTower(context=77, padding="context", clean="lower",
                                    output="embedding", pooling="mean")  # fmt: skip


@pytest.mark.parametrize(
    ("files", "question"),
    [
        ({"tokenizer_config": BERT}, "how many tokens"),
        ({"tokenizer": tokenizer(padding=None), "config": {"model_type": "siglip"}}, "padding"),
        ({"tokenizer_config": BERT | {"truncation_side": "left"}}, "left"),
        ({"config": {"text_cfg": {"tokenizer_mode": "clips"}}}, "options"),
    ],
)
def test_what_stays_open_is_a_question(
    files: dict[str, Any], question: str, tmp_path: Path
) -> None:
    found = tower(tmp_path, **files)
    assert found.value is None and question in found.questions[0]


def test_without_a_tokenizer_there_is_no_tower(tmp_path: Path) -> None:
    found = read_text_tower(write(tmp_path, tokenizer_config=BERT))
    assert found.value is None and "tokenizer.json" in found.questions[0]


@pytest.mark.parametrize(
    "files",
    [
        {"tokenizer": "[]"},
        {"tokenizer": "{"},
        {"tokenizer_config": {"pad_token": 3}, "config": {"model_type": "clip"}},
        {"tokenizer_config": {"padding_side": "top"}, "config": {"model_type": "clip"}},
        {"tokenizer_config": {"do_lower_case": "yes"}, "config": {"model_type": "clip"}},
        {"tokenizer_config": {"model_max_length": "77"}},
        {"config": {"model_type": 1}},
        {"config": {"text_cfg": {"context_length": 0}}},
        {"config": {"text_cfg": {"context_length": 77, "tokenizer_kwargs": {"clean": "scrub"}}}},
        {"sentence_bert_config": "[1]"},
    ],
)
def test_values_that_mean_nothing_are_one_line(files: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(CbirError) as raised:
        tower(tmp_path, **files)
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 250
