"""Texts in five scripts, and small tokenizers of the kinds that text towers have.

Each tokenizer is trained here and written as the hub's models are: `tokenizer.json` and the
configuration files beside it, with the keys of the real ones.
"""

from __future__ import annotations

import json
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

WORDS = {
    "latin": "A dog On the beach, größer ÉTÉ naïve coffee don't It's photos 2024 of İstanbul ñandú",
    "cyrillic": "Собака на ПЛЯЖЕ, чёрная кошка спит рядом с окном и ещё Две птицы летят над морем",
    "greek": "Ένας ΣΚΥΛΟΣ στην παραλία, η γάτα κοιμάται και Τα πουλιά ΠΕΤΟΥΝ πάνω από τη θάλασσα",
    "arabic": "كلب على الشاطئ القطة تنام بجانب النافذة و الطيور تطير فوق البحر في الصباح الباكر",
    "han": "海滩上的狗 一只黑猫 睡在窗边 两只鸟 飞过大海 清晨 山上的 雪 城市夜景 红色汽车 湖 树",
}
ODD = [
    "",
    " ",
    "  two  spaces\tand a tab\nand a line ",
    "1234567890 3.14 €5 100%",
    "UPPER lower MiXeD_case under_score",
    "...!?! (brackets) [and] {more} #tag @name",
    "e\u0301te\u0301 decomposed, \u00e9t\u00e9 composed",
    "\U0001f415 on the \U0001f3d6 beach \U0001f469\u200d\U0001f469\u200d\U0001f467",
    "x" * 300,
    " ".join(["a very long text about dogs and Cats,"] * 60),
]


def _texts() -> list[str]:
    """100 texts: 18 a script, from one to many words, and ten odd ones."""
    made = []
    for words in (sentence.split() for sentence in WORDS.values()):
        parts = [words[start:] + words[:start] for start in range(len(words))]
        made += [" ".join(parts[n % len(parts)][: 1 + n % 9]) for n in range(16)]
        made += [" ".join(words * 2), " ".join(words * 30)]
    return made + ODD


TEXTS = _texts()
CORPUS = list(WORDS.values()) * 20


def write(folder: Path, **files: Any) -> Path:
    """JSON files by name without `.json`, in a new `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, values in files.items():
        text = values if isinstance(values, str) else json.dumps(values)
        (folder / f"{name}.json").write_text(text, encoding="utf-8")
    return folder


def clip(folder: Path) -> Any:
    """Byte-level BPE with `</w>`, lower-casing, as CLIP has it; the reference tokenizer."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import CLIPTokenizer

    model = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token="<|endoftext|>"))
    shape = CLIPTokenizer()._tokenizer
    model.normalizer, model.pre_tokenizer = shape.normalizer, shape.pre_tokenizer
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<|startoftext|>", "<|endoftext|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=900, show_progress=False, initial_alphabet=alphabet, end_of_word_suffix="</w>",
        special_tokens=[*special, *(f"{letter}</w>" for letter in alphabet)],
    )  # fmt: skip
    model.train_from_iterator(CORPUS, trainer)
    trained = json.loads(model.to_str())["model"]
    merges = [tuple(pair) for pair in trained["merges"]]
    return clip_from(folder, trained["vocab"], merges)


def clip_from(folder: Path, vocab: dict[str, int], merges: list[tuple[str, str]]) -> Any:
    """CLIP's files for a vocabulary; the reference tokenizer."""
    from transformers import CLIPTokenizer

    reference = CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=77)
    token = {"content": "<|endoftext|>", "lstrip": False, "normalized": True, "rstrip": False,
             "single_word": False}  # fmt: skip
    write(
        folder,
        tokenizer=reference.backend_tokenizer.to_str(),
        tokenizer_config={
            "add_prefix_space": False, "bos_token": token | {"content": "<|startoftext|>"},
            "do_lower_case": True, "eos_token": token, "errors": "replace", "model_max_length": 77,
            "pad_token": "<|endoftext|>", "tokenizer_class": "CLIPTokenizer", "unk_token": token,
        },
        config={"model_type": "clip", "projection_dim": 512,
                "text_config": {"model_type": "clip_text_model"}},
    )  # fmt: skip
    return reference


def clip_of_open_clip(folder: Path, tokenizer: Any) -> Any:
    """CLIP's files for its real vocabulary, which comes with open_clip's `tokenizer`."""
    special = ["<|startoftext|>", "<|endoftext|>"]
    words = [*list(tokenizer.encoder)[:-2], *special]
    vocab = dict(zip(words, tokenizer.encoder.values(), strict=True))
    return clip_from(folder, vocab, list(tokenizer.bpe_ranks))


def siglip(folder: Path) -> Any:
    """SentencePiece's Unigram without punctuation, as SigLIP has it; the reference tokenizer."""
    return _unigram(folder, CORPUS, fallback=False)


def siglip_multilingual(folder: Path) -> Any:
    """The same with byte fallback, and without Han in its vocabulary."""
    return _unigram(folder, [line for line in CORPUS if not line.startswith("海")], fallback=True)


def _unigram(folder: Path, corpus: list[str], *, fallback: bool) -> Any:
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
    from tokenizers.trainers import UnigramTrainer
    from transformers import PreTrainedTokenizerFast

    model = Tokenizer(models.Unigram())
    punctuation = "".join(f"\\{mark}" for mark in string.punctuation)
    model.normalizer = normalizers.Sequence([
        normalizers.Lowercase(), normalizers.Replace(Regex(f"[{punctuation}]"), ""),
        normalizers.NFKC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip(),
    ])  # fmt: skip
    model.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<pad>", "</s>", "<unk>"]
    trainer = UnigramTrainer(
        vocab_size=400, show_progress=False, special_tokens=special, unk_token="<unk>"
    )
    model.train_from_iterator(corpus, trainer)
    model.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    if fallback:
        stored = json.loads(model.to_str())
        pieces = stored["model"]["vocab"]
        pieces[3:3] = [[f"<0x{byte:02X}>", 0.0] for byte in range(256)]
        stored["model"]["byte_fallback"] = True
        model = Tokenizer.from_str(json.dumps(stored))
    tokens = {"eos_token": "</s>", "pad_token": "</s>", "unk_token": "<unk>"}
    write(
        folder,
        tokenizer=model.to_str(),
        tokenizer_config={
            **tokens, "additional_special_tokens": [], "clean_up_tokenization_spaces": True,
            "do_lower_case": True, "model_input_names": ["input_ids"], "model_max_length": 64,
            "processor_class": "SiglipProcessor", "tokenizer_class": "SiglipTokenizer",
        },
        config={"model_type": "siglip", "text_config": {"model_type": "siglip_text_model"}},
    )  # fmt: skip
    return PreTrainedTokenizerFast(tokenizer_object=model, model_max_length=64, **tokens)


def siglip2(folder: Path) -> Any:
    """BPE with byte fallback, as Gemma has it; the reference tokenizer, which lower-cases.

    The file does not, as those on the hub, and its configuration names no length.
    """
    from tokenizers import Tokenizer, models, processors, trainers
    from transformers import Siglip2Tokenizer

    trained = Tokenizer(models.BPE())
    corpus = [line.lower().replace(" ", "▁") for line in CORPUS if not line.startswith("海")]
    trained.train_from_iterator(corpus, trainers.BpeTrainer(vocab_size=500, show_progress=False))
    model = json.loads(trained.to_str())["model"]
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    pieces = [*special, *(f"<0x{byte:02X}>" for byte in range(256)), *model["vocab"]]
    reference = Siglip2Tokenizer(
        vocab={piece: number for number, piece in enumerate(pieces)},
        merges=[tuple(pair) for pair in model["merges"]],
        padding_side="right",
    )
    backend = reference.backend_tokenizer
    backend.post_processor = processors.TemplateProcessing(
        single="$A <eos>", pair="$A <eos> $B <eos>", special_tokens=[("<eos>", 1)]
    )
    stored = json.loads(backend.to_str())
    (stored["normalizer"],) = [
        step for step in stored["normalizer"]["normalizers"] if step["type"] == "Replace"
    ]
    write(
        folder,
        tokenizer=stored,
        tokenizer_config={
            "add_bos_token": False, "add_eos_token": True, "bos_token": "<bos>",
            "eos_token": "<eos>", "model_max_length": 1000000000000000019884624838656,
            "pad_token": "<pad>", "padding_side": "right", "processor_class": "SiglipProcessor",
            "tokenizer_class": "GemmaTokenizer", "unk_token": "<unk>",
        },
        special_tokens_map={"pad_token": {"content": "<pad>"}, "eos_token": {"content": "<eos>"}},
        config={"model_type": "siglip", "text_config": {"model_type": "siglip_text_model",
                "vocab_size": 256000}, "vision_config": {"image_size": 256}},
    )  # fmt: skip
    return reference


def bert(folder: Path) -> Any:
    """Cased WordPiece of multilingual sentence-transformers; the reference tokenizer."""
    from tokenizers import BertWordPieceTokenizer
    from transformers import BertTokenizer

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trained = BertWordPieceTokenizer(lowercase=False, strip_accents=False)
    trained.train_from_iterator(CORPUS, vocab_size=500, show_progress=False, special_tokens=special)
    reference = BertTokenizer(vocab=trained.get_vocab(), do_lower_case=False, model_max_length=128)
    write(
        folder,
        tokenizer=reference.backend_tokenizer.to_str(),
        tokenizer_config={
            "cls_token": "[CLS]", "do_lower_case": False, "mask_token": "[MASK]", "max_len": 512,
            "model_max_length": 512, "pad_token": "[PAD]", "sep_token": "[SEP]",
            "strip_accents": None, "tokenizer_class": "DistilBertTokenizer", "unk_token": "[UNK]",
        },
        sentence_bert_config={"max_seq_length": 128, "do_lower_case": False},
        config={"model_type": "distilbert", "max_position_embeddings": 512},
    )  # fmt: skip
    return reference


FAMILIES: dict[str, Callable[[Path], Any]] = {
    "clip": clip,
    "siglip": siglip,
    "siglip_multilingual": siglip_multilingual,
    "siglip2": siglip2,
    "bert": bert,
}
