"""Opens and creates embedded indexes; creation is atomic."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

from cbir.errors import CbirError, IndexStateError, write_hint
from cbir.files import is_model_file, sha256_of, write_files
from cbir.home import cbir_home
from cbir.index.embedded import folder as files
from cbir.index.embedded import schema, thumbnail_rows
from cbir.index.embedded.index import CHECKS, EmbeddedIndex
from cbir.index.embedded.repair import mend_opening
from cbir.index.embedded.salvage import is_sound, salvage
from cbir.index.embedded.sqlite import Database
from cbir.types import DescriptorSpec, ModelFile
from cbir.wording import shell_word


def open_index(url: str, *, write: bool) -> EmbeddedIndex:
    """Open the index in the folder `url`; raises `IndexStateError` if there is none."""
    folder = _folder(url)
    with _readable(url):
        if not (folder / files.RECORDS).is_file():
            raise _absence(url, folder)
    return EmbeddedIndex(url, folder, write=write)


def mend(url: str) -> list[str]:
    """Mend what keeps the index in the folder `url` from opening; one line for each thing.

    Unreadable pages: what can be read is read into a new file, and the old one stays beside it.
    """
    folder = _folder(url)
    if not (folder / files.RECORDS).is_file():
        raise _absence(url, folder)
    lock = files.lock_for_writing(folder, url)
    try:
        present = [folder / name for name in (files.RECORDS, files.THUMBNAILS)]
        damaged = [path for path in present if path.exists() and not is_sound(path)]
        told = [line for path in damaged for line in salvage(path, url)]
        database = Database(folder / files.RECORDS, url, CHECKS[files.RECORDS], write=True)
        with closing(database), database.write() as connection:
            return told + mend_opening(connection)
    finally:
        files.unlock(lock, folder)


def create_index(
    url: str,
    spec: DescriptorSpec,
    model_files: Mapping[str, ModelFile],
    *,
    rebuild: bool,
    fast_load: bool,
) -> EmbeddedIndex:
    """Open the index in the folder `url` for writing; create it if it is missing.

    Raises `IndexStateError` if `url` is a file or an unrelated folder.
    """
    if rebuild or fast_load:
        raise CbirError(
            f"{url}: only Elasticsearch indexes support --rebuild and --fast-load",
            "index into a new folder",
        )
    folder = _folder(url)
    if not index_exists(url):
        check_place(url)
        _create(url, folder, spec, model_files)
    return EmbeddedIndex(url, folder, write=True)


def index_exists(url: str) -> bool:
    """Whether an index was ever completed in the folder `url`, even if it is now damaged."""
    folder = _folder(url)
    with _readable(url):
        return (folder / files.RECORDS).is_file() and not _is_unfinished(url, folder)


def check_place(url: str) -> None:
    """Raise `IndexStateError` if `url` is a file or an unrelated folder."""
    folder = _folder(url)
    with _readable(url):
        if folder.exists() and not (folder.is_dir() and files.holds_only_own_files(folder)):
            raise _obstacle(url, folder)


def same_place(one: str, other: str) -> bool:
    """Whether both are the same folder."""
    mine, theirs = _folder(one), _folder(other)
    if mine.resolve() == theirs.resolve():
        return True
    return mine.exists() and theirs.exists() and mine.samefile(theirs)


def _create(
    url: str, folder: Path, spec: DescriptorSpec, model_files: Mapping[str, ModelFile]
) -> None:
    """Create the index, unless another process has just done so.

    The index exists once its tables are committed, which is the last step. Overwrites files left
    by an interrupted creation.
    """
    meta = schema.Meta(schema.FORMAT, uuid.uuid4().hex, spec, _digests(model_files))
    with _writable(url):
        folder.mkdir(parents=True, exist_ok=True)
    lock = files.lock_for_writing(folder, url)
    try:
        if not (folder / files.RECORDS).exists() or _is_unfinished(url, folder):
            with _writable(url):
                _write_files(folder, model_files)
            _write_tables(url, folder, meta)
    finally:
        files.unlock(lock, folder)


def _write_files(folder: Path, model_files: Mapping[str, ModelFile]) -> None:
    for name in (files.THUMBNAILS, files.RECORDS):
        files.remove_database(folder / name)
    (folder / files.CACHE).unlink(missing_ok=True)
    shutil.rmtree(folder / files.MODEL, ignore_errors=True)
    (folder / files.MODEL).mkdir()
    write_files(model_files, folder / files.MODEL, shared=cbir_home())


def _write_tables(url: str, folder: Path, meta: schema.Meta) -> None:
    for name in (files.THUMBNAILS, files.RECORDS):
        database = Database(folder / name, url, CHECKS[name], write=True)
        with closing(database), database.write() as connection:
            if name == files.THUMBNAILS:
                thumbnail_rows.create_thumbnails(connection)
            else:
                schema.create(connection, meta)


def _is_unfinished(url: str, folder: Path) -> bool:
    """Whether the records file holds no index yet; a damaged file counts as complete."""
    try:
        database = Database(folder / files.RECORDS, url, CHECKS[files.RECORDS])
        with closing(database), database.read() as connection:
            return schema.read_meta(connection, url) is None
    except IndexStateError:
        return False


def _digests(model_files: Mapping[str, ModelFile]) -> dict[str, str]:
    for name in model_files:
        if not is_model_file(name):
            raise CbirError(f"{name!r} is not a valid model file name", "use a plain file name")
    return {name: sha256_of(file) for name, file in model_files.items()}


def _folder(url: str) -> Path:
    if not url:
        raise CbirError("the index name is empty", "give a folder, such as photos.cbir")
    return Path(url)


def _absence(url: str, folder: Path) -> IndexStateError:
    cure = f"cbir index FOLDER --into {shell_word(url)}"
    if not folder.exists():
        return IndexStateError(f"no index at {url}", cure)
    if not folder.is_dir():
        return IndexStateError(f"no index at {url}: it is a file", "give an index folder")
    if any(folder.iterdir()):
        if files.holds_only_own_files(folder):
            return files.unfinished(url)
        # Most likely a folder of images, so suggest another place for the index.
        cure = f"cbir index {url} --into {folder.resolve().name or 'photos'}.cbir"
    return IndexStateError(f"no index at {url}: the folder contains none", cure)


def _obstacle(url: str, folder: Path) -> IndexStateError:
    if folder.is_dir():
        what, name = "a folder with other files", Path(url) / "photos.cbir"
    else:
        what, name = "a file", Path(url).with_suffix(".cbir")
    return IndexStateError(f"{url} is {what}", f"give a new name, such as {name}")


@contextmanager
def _explained(url: str, failure: str, hint: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise IndexStateError(
            f"{url} cannot be {failure}: {error.strerror}", write_hint(error, hint)
        ) from error


def _readable(url: str) -> AbstractContextManager[None]:
    return _explained(url, "read", "check the name and the permissions")


def _writable(url: str) -> AbstractContextManager[None]:
    return _explained(url, "created", "free some space, or choose another folder")
