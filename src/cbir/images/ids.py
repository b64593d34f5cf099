"""Ids and locations: paths, percent-encoded so that they contain no white space."""

from __future__ import annotations

import hashlib
import re
from urllib.parse import unquote_to_bytes

MAX_ID_BYTES = 512
KEPT_BYTES = 400

# Unicode white space, control characters, `%`, and bytes that are not UTF-8 (lone surrogates in
# Python's file names).
_UNSAFE = re.compile("[%\\s\x00-\x1f\x7f-\x9f\udc80-\udcff]")
_CUT_ESCAPE = re.compile("%[0-9A-F]?$")


def encode_path(path: bytes | str) -> str:
    """`path` as UTF-8 text with `%`, white space, control and non-UTF-8 bytes as `%XX`.

    Reversible (`decode_path`), so different paths stay distinct. A `str` may be a file name from
    `os.fsdecode`.
    """
    text = path.decode("utf-8", "surrogateescape") if isinstance(path, bytes) else path
    return _UNSAFE.sub(_escape, text)


def decode_path(text: str) -> bytes:
    """The bytes that `encode_path` encoded."""
    return unquote_to_bytes(text)


def make_id(source_name: str, key: str) -> str:
    """`SOURCE/key`; beyond 512 bytes, its first 400, `~` and the sha256 (hex) of the whole.

    The cut never splits a character or a `%XX`.
    """
    whole = f"{source_name}/{key}"
    if len(whole) * 4 <= MAX_ID_BYTES:
        return whole
    data = whole.encode()
    if len(data) <= MAX_ID_BYTES:
        return whole
    head = _CUT_ESCAPE.sub("", data[:KEPT_BYTES].decode("utf-8", "ignore"))
    return f"{head}~{hashlib.sha256(data).hexdigest()}"


def _escape(match: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in match[0].encode("utf-8", "surrogateescape"))
