"""Reads how the text networks of transformers, open_clip and sentence-transformers are fed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cbir.descriptors.configs import Config, OpenQuestionError, Read, read_config
from cbir.descriptors.text import CLEANINGS, MAX_CONTEXT, SIDES, TextTower
from cbir.errors import CbirError

TOKENIZER_FILE = "tokenizer.json"
MAX_TOKENIZER = 128 * 2**20
"""Bytes; SigLIP 2's has 34 million."""

FOLDERS = ("", "textual")
"""Where the files of a text tower lie in a model's folder."""

CONTEXTS: Mapping[str, int] = {
    "clip": 77,
    "clip_text_model": 77,
    "siglip": 64,
    "siglip2": 64,
    "siglip2_text_model": 64,
    "siglip_text_model": 64,
}
"""Tokens by `model_type` where `config.json` leaves out the default of transformers."""

OPEN_CLIP_CONTEXT = 77


@dataclass(frozen=True)
class _Files:
    """The JSON files of a text tower; empty objects for those that are not there."""

    tokenizer: Config
    settings: Config  # tokenizer_config.json
    network: Config  # config.json
    special: Config  # special_tokens_map.json
    sentences: Config  # sentence_bert_config.json
    open_clip: Config | None  # the `text_cfg` of a model of open_clip

    @property
    def model_type(self) -> str:
        text = self.network.section("text_config")
        return self.network.text("model_type") or text.text("model_type") or ""

    @property
    def is_siglip(self) -> bool:
        return self.model_type.startswith("siglip")


def tokenizer_file(folder: Path) -> Path | None:
    """The `tokenizer.json` of the model in `folder`; None if there is none."""
    paths = (folder / inner / TOKENIZER_FILE for inner in FOLDERS)
    return next((path for path in paths if path.is_file()), None)


def read_text_tower(
    folder: Path, output: str = "text_embeds", pooling: str = "none"
) -> Read[TextTower]:
    """How the text network in `folder` is fed, by its configuration files.

    `output` and `pooling` say which output makes the row. Nothing is guessed: what the files leave
    out is an assumption, or a question if nothing follows from the model's type. Raises
    `CbirError` for values that mean nothing.
    """
    files = _files(folder)
    if files is None:
        return Read(None, (), (f"no {TOKENIZER_FILE}: words cannot become tokens",))
    assumed: list[str] = []
    try:
        if files.settings.text("truncation_side") == "left":
            raise OpenQuestionError("texts are cut off on the left, which is not supported")
        context = _context(files, assumed)
        clean = _cleaning(files, assumed)
        padding, pad = _padding(files, assumed)
    except OpenQuestionError as question:
        return Read(None, tuple(assumed), (str(question),))
    _check_end(files, assumed)
    tower = TextTower(
        context=context,
        padding=padding,
        pad=pad,
        side=files.settings.choice("padding_side", SIDES, "right"),
        lower=_lower(files, assumed),
        clean=clean,
        output=output,
        pooling=pooling,
    )
    return Read(tower, tuple(assumed))


def _files(folder: Path) -> _Files | None:
    path = tokenizer_file(folder)
    tokenizer = read_config(path, MAX_TOKENIZER) if path else None
    if tokenizer is None:
        return None

    def read(name: str) -> Config:
        found = (read_config(folder / inner / name) for inner in FOLDERS)
        return next((config for config in found if config), Config(name, {}))

    network, open_clip = read("config.json"), read("open_clip_config.json")
    both = (open_clip.section("model_cfg").section("text_cfg"), network.section("text_cfg"))
    return _Files(
        tokenizer,
        read("tokenizer_config.json"),
        network,
        read("special_tokens_map.json"),
        read("sentence_bert_config.json"),
        next((config for config in both if config.values), None),
    )


def _context(files: _Files, assumed: list[str]) -> int:
    """The smallest of the limits that the files name."""
    if files.open_clip:
        context = files.open_clip.whole("context_length")
        if context is None:
            assumed.append(f"a context of {OPEN_CLIP_CONTEXT} tokens, open_clip's default")
        return OPEN_CLIP_CONTEXT if context is None else context
    text = files.network.section("text_config")
    positions = text.whole("max_position_embeddings")
    if positions is None:
        positions = files.network.whole("max_position_embeddings")
    limits = [
        files.settings.number("model_max_length"),
        files.sentences.number("max_seq_length"),
        files.tokenizer.section("truncation").number("max_length"),
        positions,
    ]
    usual = CONTEXTS.get(files.model_type)
    if positions is None and usual:
        limits.append(usual)
    sane = [int(limit) for limit in limits if limit is not None and 0 < limit <= MAX_CONTEXT]
    if not sane:
        raise OpenQuestionError("no file says how many tokens a text may have")
    if sane == [usual]:
        assumed.append(f"a context of {usual} tokens, as for models of type '{files.model_type}'")
    return min(sane)


def _cleaning(files: _Files, assumed: list[str]) -> str:
    """What open_clip does to a text before the tokenizer; "none" for models of others."""
    if not files.open_clip:
        return "none"
    options = files.open_clip.section("tokenizer_kwargs")
    if options.flag("strip_sep_token", False) or files.open_clip.text("tokenizer_mode"):
        raise OpenQuestionError("open_clip's tokenizer has options that are not supported")
    assumed.append("broken characters are not repaired, which open_clip does with ftfy")
    usual = "whitespace" if files.open_clip.text("hf_tokenizer_name") else "lower"
    return options.choice("clean", CLEANINGS[1:], usual)


def _lower(files: _Files, assumed: list[str]) -> bool:
    """Whether the tokenizer lower-cases without saying so in its own file."""
    said = [some.flag("do_lower_case", False) for some in (files.sentences, files.settings)]
    if files.open_clip or _lowers(files.tokenizer):
        return False
    if files.is_siglip and not any(said):
        assumed.append("texts are lower-cased, as SigLIP was trained")
    return files.is_siglip or any(said)


def _padding(files: _Files, assumed: list[str]) -> tuple[str, int]:
    """How texts are padded, and the padding token's id."""
    if files.open_clip and not files.open_clip.text("hf_tokenizer_name"):
        return "context", 0  # open_clip's own tokenizer pads with zeros
    own = files.tokenizer.section("padding")
    name = _token(files.settings, "pad_token") or _token(files.special, "pad_token")
    pad = own.whole("pad_id") if name is None else _id(files.tokenizer, name)
    whole = files.open_clip is not None or files.is_siglip
    if pad is None and whole:
        raise OpenQuestionError("no file names the padding token")
    if pad is None:
        assumed.append("no file names a padding token: texts are described one at a time")
        return "none", 0
    if whole:
        return "context", pad
    if files.model_type not in CONTEXTS:
        assumed.append("texts are padded to the longest of a batch, and the network masks them")
    return "longest", pad


def _token(config: Config, key: str) -> str | None:
    """A special token, which is a string or an object with its content."""
    value = config.values.get(key)
    return config.section(key).text("content") if isinstance(value, dict) else config.text(key)


def _id(tokenizer: Config, token: str) -> int:
    """The id of `token` in a `tokenizer.json`."""
    added = tokenizer.values.get("added_tokens") or []
    vocabulary = tokenizer.section("model").values.get("vocab")
    for entry in added if isinstance(added, list) else []:
        if isinstance(entry, dict) and entry.get("content") == token:
            return Config(TOKENIZER_FILE, entry).whole("id") or 0
    if isinstance(vocabulary, dict):
        found = vocabulary.get(token)
    else:  # of a unigram model: pairs of token and score
        pairs = vocabulary if isinstance(vocabulary, list) else []
        places = (i for i, pair in enumerate(pairs) if isinstance(pair, list) and token in pair[:1])
        found = next(places, None)
    if type(found) is not int:
        raise CbirError(f"{TOKENIZER_FILE} has no token {token[:40]!r}", "export the model again")
    return found


def _lowers(tokenizer: Config) -> bool:
    """Whether the normalizer of a `tokenizer.json` lower-cases."""
    steps = [tokenizer.values.get("normalizer")]
    while steps:
        step = steps.pop()
        if not isinstance(step, dict):
            continue
        kind, inner = step.get("type"), step.get("normalizers")
        if kind == "Lowercase" or (kind == "BertNormalizer" and step.get("lowercase") is True):
            return True
        steps += inner if isinstance(inner, list) else []
    return False


def _check_end(files: _Files, assumed: list[str]) -> None:
    """Say so if the network expects an end token that the tokenizer does not add."""
    end = _token(files.settings, "eos_token") or _token(files.special, "eos_token")
    wanted = files.is_siglip or files.settings.flag("add_eos_token", False)
    added = json.dumps(files.tokenizer.values.get("post_processor"), ensure_ascii=False)
    if end and wanted and json.dumps(end, ensure_ascii=False) not in added:
        assumed.append(f"{TOKENIZER_FILE} does not end texts with {end[:40]!r}")
