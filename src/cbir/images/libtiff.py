"""Collects the error lines of libtiff, which it would print without the name of a file.

Pillow has no setting for these lines, so this calls the libtiff that Pillow has loaded. Warnings
cannot be collected: Pillow switches them off before each picture. Most are about private tags.
"""

from __future__ import annotations

import atexit
import ctypes
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

from cbir.wording import one_line

_LONGEST = 200  # characters of a line
_MOST = 100  # lines of a picture: a damaged fax may have one for each of its rows
_NO_NAME = b"tempfile.tif"  # Pillow's name for any file; libtiff says it instead of a function

_Handler = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p)


class _Thread(threading.local):
    lines: list[str] | None = None


_thread = _Thread()  # libtiff calls its handler in the thread that decodes
_lock = threading.Lock()


@contextmanager
def error_lines() -> Iterator[list[str]]:
    """The list to which libtiff's error lines in this thread are added, until the block ends.

    At most 100 lines of about 200 printable characters. Where libtiff cannot be called (Windows),
    the list stays empty and libtiff prints its lines.
    """
    with _lock:  # else two threads could make a handler, and one would be freed while it is set
        listen = _listener()
    listen()
    lines: list[str] = []
    _thread.lines = lines
    try:
        yield lines
    finally:
        _thread.lines = None


@cache
def _listener() -> Callable[[], object]:
    """A function that sets libtiff's error handler."""
    from PIL import _imaging

    try:
        library = ctypes.CDLL(_imaging.__file__)
        set_handler = library.TIFFSetErrorHandler
    except (OSError, AttributeError):
        return lambda: None
    try:
        # A va_list is passed as a pointer, or is as large as one, wherever Pillow has wheels.
        vsnprintf = library.vsnprintf
        vsnprintf.argtypes = (ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_void_p)

        def add(function: bytes | None, form: bytes, values: int | None) -> None:
            lines = _thread.lines
            if lines is None:
                return
            try:
                if len(lines) >= _MOST:
                    # Each call waits for the interpreter. Pictures that other threads decode at
                    # this moment may miss their line; the next picture sets the handler again.
                    set_handler(None)
                    return
                text = ctypes.create_string_buffer(_LONGEST)
                vsnprintf(text, _LONGEST, form, values)
                lines.append(_shown(function, text.value))
            except Exception:  # noqa: BLE001 - C code cannot receive it, and ctypes would print it
                return

        handler = _Handler(add)
    except (AttributeError, MemoryError):  # a system that forbids code made at run time
        set_handler(None)
        return lambda: None
    # The handler is freed when the interpreter ends, perhaps before the last thread.
    atexit.register(set_handler, None)
    return lambda: set_handler(handler)


def _shown(function: bytes | None, text: bytes) -> str:
    where = f"{function.decode(errors='replace')}: " if function and function != _NO_NAME else ""
    return one_line(f"{where}{text.decode(errors='replace')}".strip())[:_LONGEST]
