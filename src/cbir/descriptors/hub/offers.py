"""What the hub, or without a connection its cache, offers of a model: files, sizes, licence."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cbir.descriptors.about import About
from cbir.descriptors.hub.known import PREFIX, HubModel, hub_model
from cbir.descriptors.hub.refusals import passing, refusal
from cbir.errors import CbirError
from cbir.registry import require_extra
from cbir.wording import listed

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo, RepoSibling

FOLDERS = ("onnx/", "")
IMAGE_TOWERS = ("vision_model.onnx", "model.onnx")
TEXT_TOWER = "text_model.onnx"
TOKENIZER = "tokenizer.json"
CONFIGS = (
    *("config.json", "preprocessor_config.json", "processor_config.json"),
    *("open_clip_config.json", "preprocess_cfg.json"),
)
TOKENIZER_FILES = (TOKENIZER, "tokenizer_config.json", "special_tokens_map.json")
README = "README.md"
"""Fetched for its licence, which nothing else in the cache states."""

_COMMIT = re.compile(r"[0-9a-f]{40}")
_DIGEST = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


@dataclass(frozen=True)
class HubFile:
    """A file of a repository: its path in it, and its size in bytes.

    `digest` is the hub's hash in hex: sha256 of a large file, git's blob sha1 of a small one. None
    if a cache without symbolic links does not tell it.
    """

    name: str
    size: int
    digest: str | None


@dataclass(frozen=True)
class Offer:
    """The files of a model at one commit.

    `revision` is as asked for. `licence` is what the repository states, else the model's own.
    `files` are in the order in which they are fetched: the image tower comes last, because a
    folder without it is taken for no model. `cached`: the cache offers it, not the hub.
    """

    model: HubModel
    revision: str
    commit: str
    licence: str
    files: tuple[HubFile, ...]
    cached: bool = field(default=False, compare=False)

    @property
    def size(self) -> int:
        """The size of all files in bytes."""
        return sum(file.size for file in self.files)

    @property
    def has_text(self) -> bool:
        """Whether there is a text tower, so that words can be searched for."""
        return any(Path(file.name).name == TEXT_TOWER for file in self.files)

    @property
    def about(self) -> About:
        """What the model's card says of it."""
        source = f"{PREFIX}{self.model.repository}@{self.commit}"
        return About(self.licence, self.model.trained_on, source)


def offer(name: str) -> Offer:
    """Ask the hub, in one request, what it offers of `name` (see `hub_model`).

    If the hub cannot be reached, the cache of huggingface_hub answers if it holds the revision.
    Raises `CbirError` if neither does, and if the repository has no ONNX network of images.
    """
    require_extra("cbir models pull", "hub", "huggingface_hub")
    from httpx2 import HTTPError, InvalidURL

    _check_environment()
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HFValidationError, OfflineModeIsEnabled

    model, revision = hub_model(name)
    try:
        info = HfApi().model_info(
            model.repository,
            revision=revision,
            files_metadata=True,
            timeout=constants.HF_HUB_ETAG_TIMEOUT,
        )
        return _offered(model, revision, info)
    except HFValidationError as error:
        raise CbirError(f"'{name}' is no model of the hub", str(error)) from error
    except (HTTPError, OfflineModeIsEnabled) as error:
        offline = isinstance(error, OfflineModeIsEnabled) or passing(error)
        cached = _cached(model, revision) if offline else None
        if cached is None:
            raise refusal(error, model.repository, revision) from error
        return cached
    except (InvalidURL, ValueError, TypeError, KeyError, AttributeError) as error:
        raise refusal(error, model.repository, revision) from error


def _check_environment() -> None:
    """Raise `CbirError` if huggingface_hub, which reads the environment at import, refuses it."""
    try:
        import huggingface_hub.hf_api  # noqa: F401
    except ValueError as error:
        ours = "HF_HUB_DISABLE_TELEMETRY"
        variables = sorted(n for n in os.environ if n.startswith("HF_") and n != ours)
        raise CbirError(
            f"huggingface_hub does not accept its settings: {error}",
            f"correct or unset the variable in question: {listed(variables)}",
        ) from error


def _offered(model: HubModel, revision: str, info: ModelInfo) -> Offer:
    siblings = {sibling.rfilename: sibling for sibling in info.siblings or ()}
    card: Any = info.card_data or {}
    stated = card.get("license")
    return Offer(
        model,
        revision,
        _matching(_COMMIT, info.sha),
        _licence(card.get("license_name", stated) if stated == "other" else stated, model),
        tuple(_hub_file(siblings[name]) for name in _wanted(siblings, model.repository)),
    )


def _hub_file(sibling: RepoSibling) -> HubFile:
    size = sibling.lfs.size if sibling.lfs else sibling.size
    digest = sibling.lfs.sha256 if sibling.lfs else sibling.blob_id
    if not isinstance(size, int):
        raise TypeError("a file without a size")
    return HubFile(sibling.rfilename, size, _matching(_DIGEST, digest))


def _cached(model: HubModel, revision: str) -> Offer | None:
    from huggingface_hub import try_to_load_from_cache

    for name in _image_towers():
        tower = try_to_load_from_cache(model.repository, name, revision=revision)
        if isinstance(tower, str):
            folder = Path(tower).parents[name.count("/")]
            files = (path for path in folder.rglob("*") if path.is_file())
            names = _wanted([path.relative_to(folder).as_posix() for path in files], folder.name)
            return Offer(
                model,
                revision,
                folder.name,
                _licence(_stated_in(folder / README), model),
                tuple(HubFile(n, (folder / n).stat().st_size, _name(folder / n)) for n in names),
                cached=True,
            )
    return None


def _wanted(names: Collection[str], repository: str) -> list[str]:
    """The `names` that a model needs, in the order in which to fetch them."""
    image = next((name for name in _image_towers() if name in names), None)
    if image is None:
        found = sorted(name for name in names if name.endswith(".onnx"))
        raise CbirError(
            f"{repository} has no float32 ONNX network of images: none of "
            f"{', '.join(_image_towers())}",
            f"it has {listed(found)}" if found else "look for an ONNX export of the model",
        )
    text = f"{image.rpartition('/')[0]}/{TEXT_TOWER}".removeprefix("/")
    towers = [text, image] if {text, TOKENIZER} <= set(names) else [image]
    small = [*CONFIGS, *(TOKENIZER_FILES if text in towers else ()), README]
    return [
        *(name for name in small if name in names),
        *(name for tower in towers for name in [*_data_files(tower, names), tower]),
    ]


def _image_towers() -> list[str]:
    return [f"{folder}{tower}" for tower in IMAGE_TOWERS for folder in FOLDERS]


def _data_files(tower: str, names: Collection[str]) -> list[str]:
    """The files of weights beside an ONNX file (external data), as exporters name them."""
    pattern = re.compile(re.escape(tower) + r"[._]data(_\d+)?")
    return sorted(name for name in names if pattern.fullmatch(name))


def _licence(stated: Any, model: HubModel) -> str:
    """The licence as the repository states it, for the terminal; else the model's own."""
    words = ", ".join(map(str, stated)) if isinstance(stated, list) else str(stated or "")
    return "".join(filter(str.isprintable, words))[:80] or model.licence


def _stated_in(readme: Path) -> str | None:
    """The licence in the YAML header of a README."""
    text = readme.read_text(encoding="utf-8", errors="replace") if readme.is_file() else ""
    header = text.split("\n---", 1)[0] if text.startswith("---") else ""
    fields = dict(re.findall(r"^(license(?:_name)?):[ '\"]*([\w.+-]+)", header, re.MULTILINE))
    stated = fields.get("license")
    return fields.get("license_name", stated) if stated == "other" else stated


def _name(path: Path) -> str | None:
    """The hash of a file in the cache: the name of the blob that its link points to."""
    name = path.readlink().name if path.is_symlink() else ""
    return name if _DIGEST.fullmatch(name) else None


def _matching(pattern: re.Pattern[str], value: str | None) -> str:
    """`value`, which becomes part of a path, if it is what it should be."""
    if value is None or not pattern.fullmatch(value):
        raise ValueError(f"{value!r} is no hash")
    return value
