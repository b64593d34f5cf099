"""Errors that a person can act on: what is wrong, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping


class CbirError(Exception):
    """Something a user can put right.

    `message` names the thing and what is wrong with it, in one line; `hint` says what to do.
    The command line prints both and exits with 1; HTTP answers carry both.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}. {self.hint}" if self.hint else self.message


class ImageError(CbirError):
    """An image that cannot be read or decoded, or that exceeds a limit."""


class IndexStateError(CbirError):
    """An index that is missing, damaged, locked, of another spec or of a newer format."""


class RecordsRefusedError(CbirError):
    """Some records of a batch that the engine would not take; all others of it are kept.

    `reasons`: id -> why.
    """

    def __init__(self, reasons: Mapping[str, str]) -> None:
        first, why = next(iter(reasons.items()))
        super().__init__(f"{len(reasons)} records were refused, '{first}' because: {why}")
        self.reasons = dict(reasons)


class QueryError(CbirError):
    """A question that cannot be answered as asked: unknown id, bad filter, bad k."""


class RecordGoneError(QueryError):
    """An id that the index does not hold: never indexed, or removed since it was found."""

    def __init__(self, record_id: str) -> None:
        super().__init__(f"no record '{record_id}' in the index", "ids look like SOURCE/path/in/it")
        self.record_id = record_id


class MissingExtraError(CbirError):
    """A feature whose optional packages are not installed."""

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(f"{feature} needs the '{extra}' extra", f"pip install 'cbir[{extra}]'")
