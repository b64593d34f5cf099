"""Makes an embedded index, in an order that leaves either all of it or nothing that counts."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping
from pathlib import Path

from cbir.errors import CbirError, IndexStateError
from cbir.files import write_whole
from cbir.index.embedded import layout, store, thumbs
from cbir.index.embedded.locking import lock_for_writing, unlock
from cbir.index.embedded.sqlite import Database
from cbir.types import DescriptorSpec


def create(url: str, folder: Path, spec: DescriptorSpec, model_files: Mapping[str, bytes]) -> None:
    """Make a new index in `folder`, unless another process has just made one.

    It exists from the moment its tables are committed, which is the last step; what a creation
    that was broken off left behind is overwritten.
    """
    meta = store.Meta(store.FORMAT, uuid.uuid4().hex, spec, _digests(model_files))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_make(url, error) from error
    lock = lock_for_writing(folder, url)
    try:
        if not (folder / layout.RECORDS).exists() or is_unfinished(url, folder):
            _write_files(url, folder, model_files)
            _write_tables(url, folder, meta)
    finally:
        unlock(lock, folder)


def is_unfinished(url: str, folder: Path) -> bool:
    """Whether the file of records holds no index yet; a damaged one is not unfinished."""
    try:
        database = Database(folder / layout.RECORDS, url)
        try:
            with database.read() as connection:
                return store.read_meta(connection) is None
        finally:
            database.close()
    except IndexStateError:
        return False


def unfinished(url: str) -> tuple[str, str]:
    """What to say of an index whose making was broken off."""
    return f"{url} was never completed: making it was interrupted", (
        f"cbir index FOLDER --into {url}"
    )


def _write_files(url: str, folder: Path, model_files: Mapping[str, bytes]) -> None:
    try:
        for name in (layout.THUMBNAILS, layout.RECORDS):
            layout.remove_database(folder / name)
        (folder / layout.CACHE).unlink(missing_ok=True)
        (folder / layout.MODEL).mkdir(exist_ok=True)
        for name, content in model_files.items():
            write_whole(folder / layout.MODEL / name, content)
    except OSError as error:
        raise _cannot_make(url, error) from error


def _write_tables(url: str, folder: Path, meta: store.Meta) -> None:
    for name in (layout.THUMBNAILS, layout.RECORDS):
        database = Database(folder / name, url, write=True)
        try:
            with database.write() as connection:
                if name == layout.THUMBNAILS:
                    thumbs.create(connection)
                else:
                    store.create(connection, meta)
        finally:
            database.close()


def _cannot_make(url: str, error: OSError) -> IndexStateError:
    return IndexStateError(
        f"{url} cannot be made: {error.strerror}", "free some space, or give another place"
    )


def _digests(model_files: Mapping[str, bytes]) -> dict[str, str]:
    for name in model_files:
        if Path(name).name != name or name in ("", ".", ".."):
            raise CbirError(f"'{name}' is no name for a file of a model", "use a plain file name")
    return {name: hashlib.sha256(content).hexdigest() for name, content in model_files.items()}
