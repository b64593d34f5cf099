"""User-facing errors: what is wrong, and how to fix it."""

from __future__ import annotations

import errno
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HOW_TO_UPDATE = "update cbir: git pull in its clone, or install a newer wheel"


class CbirError(Exception):
    """An error that the user can fix.

    `message` describes the problem in one line; `hint` says what to do. The command line prints
    both and exits with 1; HTTP responses carry both.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}. {self.hint}" if self.hint else self.message


class ImageError(CbirError):
    """The image cannot be read or decoded, or exceeds a limit."""


class SettingsError(CbirError):
    """Training cannot succeed with these settings: the network refuses them, or the loss diverges.

    Whatever else ends a training may be over when it is resumed.
    """


class IndexStateError(CbirError):
    """The index is missing, damaged or locked, or has another spec or a newer format."""


class IndexReplacedError(IndexStateError):
    """The index was replaced, moved or deleted since it was opened; no call answers any more."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"{name} was replaced, moved or deleted while it was open", "open the index again"
        )


class IndexClosedError(IndexStateError):
    """The index, or its searcher, was used after it was closed."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} was closed", "open the index again")


class RecordsRefusedError(CbirError):
    """The engine refused some records of a batch and kept the others.

    `reasons`: id -> reason.
    """

    def __init__(self, reasons: Mapping[str, str]) -> None:
        first, why = next(iter(reasons.items()))
        super().__init__(f"{len(reasons)} records were refused, '{first}' because: {why}")
        self.reasons = dict(reasons)


class QueryError(CbirError):
    """An invalid query: unknown id, bad filter or bad k."""


class FilterQuotesError(QueryError):
    """A filter whose value needs quotes; `cure` is the filter with them."""

    def __init__(self, text: str, cure: str) -> None:
        super().__init__(f"filter '{text}' cannot be read", f"quote the whole value: {cure}")
        self.cure = cure


class RecordGoneError(QueryError):
    """The id is not in the index: never indexed, or removed since a search found it."""

    def __init__(self, record_id: str) -> None:
        super().__init__(f"no record '{record_id}' in the index", "cbir search --ids shows ids")
        self.record_id = record_id


_SIZES = {
    "train": "on Linux 6 GB, most of it for CUDA; without a GPU, first install PyTorch's CPU build "
    "as pytorch.org shows"
}
"""What a person should know before installing an extra."""


class MissingExtraError(CbirError):
    """A feature needs optional packages that are not installed."""

    def __init__(self, feature: str, extra: str) -> None:
        size = f" ({_SIZES[extra]})" if extra in _SIZES else ""
        super().__init__(f"{feature} needs the '{extra}' extra", how_to_install(extra) + size)


def write_hint(error: OSError, otherwise: str) -> str:
    """The hint if something cannot be written: `otherwise`, unless the file system is read-only."""
    if error.errno == errno.EROFS:
        return "mount it for writing, or choose a place on another file system"
    return otherwise


def how_to_install(extra: str = "", options: str = "") -> str:
    """The command that installs cbir with `extra` again, from its clone or its wheel.

    cbir is on no package index. Folders are not named, because visitors of a page see hints.
    """
    extras = f"[{extra}]" if extra else ""
    install = f"pip install {options}".rstrip()
    in_clone = f"'.{extras}' in the clone of cbir"
    clone, programs = Path(__file__).parents[2], Path(sys.executable).parent
    if (clone / "pyproject.toml").is_file():
        # The environment that `make` creates need not be activated.
        own = f"{programs.relative_to(clone)}/" if programs.is_relative_to(clone) else ""
        return f"{own}{install} -e {in_clone}"
    told, version = _installation()
    if "dir_info" in told:
        return f"{install} {in_clone}"
    wheel = str(told.get("url", "")).rpartition("/")[2] or f"cbir-{version}-py3-none-any.whl"
    from_wheel = f"{install} './{wheel}{extras}'"
    return from_wheel if "archive_info" in told else f"{install} {in_clone}, or {from_wheel}"


def _installation() -> tuple[dict[str, Any], str]:
    """What pip installed cbir from (PEP 610; empty if unknown), and the version."""
    import json
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        found = distribution("cbir")
    except PackageNotFoundError:
        return {}, "VERSION"
    return json.loads(found.read_text("direct_url.json") or "{}"), found.version
