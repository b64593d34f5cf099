"""Fetches the files of an offer into the cache of huggingface_hub, each checked by its hash.

The cache keeps its documented layout: `blobs/HASH`, links to them as `snapshots/COMMIT/FILE`, and
`refs/REVISION` with a commit. huggingface_hub does not resume a download of an earlier process
(its issue 4196), so the bytes are received here, with its client, addresses and tokens.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable, Sequence
from http import HTTPStatus
from os.path import relpath
from pathlib import Path

from cbir.descriptors.hub.offers import HubFile, Offer
from cbir.descriptors.hub.refusals import passing, refusal
from cbir.errors import CbirError, write_hint
from cbir.files import alone, put_in_place, write_whole
from cbir.types import OnDone

WAITS = (1.0, 2.0, 4.0)
"""Seconds before each further attempt while attempts bring no byte."""

_SHA256_DIGITS = 64
_LOCK = "cbir.lock"
_SPACE = "free some space, or set HF_HOME to a folder on another disk"

OnBytes = Callable[[int], None]


def fetch(offer: Offer, on_progress: OnDone) -> Path:
    """Fetch the files of `offer` that the cache lacks; returns the folder of all its files.

    Each file has the size and the hash that the hub states; any other is deleted. `on_progress`
    counts bytes. A later call continues an interrupted download. Raises `CbirError` if the hub or
    the connection fails (after four attempts without a byte, `WAITS` apart), if it sends other
    bytes, and if the cache cannot be written.
    """
    cache = _cache_folder(offer.model.repository)
    folder = cache / "snapshots" / offer.commit
    lock = cache.parent / ".locks" / cache.name / _LOCK
    in_use = CbirError(f"another process is fetching {offer.model.repository}", "wait for its end")
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        with alone(lock, in_use):
            missing = [file for file in offer.files if not _is_whole(folder / file.name, file)]
            _require_space(cache, missing)
            done = offer.size - sum(file.size for file in missing)

            def on_bytes(of_this_file: int) -> None:
                on_progress(done + of_this_file, offer.size)

            for file in missing:
                _link(folder / file.name, _blob(offer, file, cache, on_bytes))
                done += file.size
            if offer.revision != offer.commit:
                _remember(cache / "refs" / offer.revision, offer.commit)
    except OSError as error:
        what = error.strerror or str(error)
        raise CbirError(
            f"cannot write {error.filename or cache}: {what}", write_hint(error, _SPACE)
        ) from error
    return folder


def fetched() -> list[Path]:
    """The folders of the cache into which `fetch` has put something: its lock files tell."""
    locks = sorted(_cache().glob(f".locks/*/{_LOCK}"))
    return [_cache() / lock.parent.name for lock in locks]


def _blob(offer: Offer, file: HubFile, cache: Path, on_bytes: OnBytes) -> Path:
    """The bytes of `file` in the cache, downloaded if they are not there, and checked."""
    assert file.digest is not None  # only files that are in the cache may lack it
    blob = cache / "blobs" / file.digest
    if not _is_whole(blob, file):
        draft = blob.with_name(f"{blob.name}.incomplete")
        draft.parent.mkdir(parents=True, exist_ok=True)
        _download(offer, file, draft, on_bytes)
        if not _is_whole(draft, file):
            draft.unlink()
            raise CbirError(
                f"{file.name} is damaged: the hub sent other bytes than its hash says",
                "try again; if it fails again, a proxy or mirror in between is at fault",
            )
        put_in_place(draft, blob)
    return blob


def _download(offer: Offer, file: HubFile, draft: Path, on_bytes: OnBytes) -> None:
    """Append to `draft` until it has the size of `file`; a broken connection is opened again."""
    waits = iter(WAITS)
    while not draft.exists() or draft.stat().st_size < file.size:
        start = _size(draft)
        broken = _attempt(offer, file, draft, on_bytes)
        if _size(draft) > start:
            waits = iter(WAITS)
        elif broken:
            wait = next(waits, None)
            if wait is None:
                raise CbirError(
                    f"{file.name} is incomplete: {broken}",
                    "run the command again: it continues where it stopped",
                )
            time.sleep(wait)


def _attempt(offer: Offer, file: HubFile, draft: Path, on_bytes: OnBytes) -> str:
    """Receive the rest of `file`; returns why it stopped early, if a further attempt may help."""
    from httpx2 import HTTPError
    from huggingface_hub.errors import OfflineModeIsEnabled

    try:
        _receive(offer, file, draft, on_bytes)
    except (HTTPError, OfflineModeIsEnabled) as error:
        refused = refusal(error, offer.model.repository, offer.commit)
        if not passing(error):
            raise refused from error
        return refused.message
    return f"the hub ended after {_size(draft):,} of {file.size:,} bytes"


def _receive(offer: Offer, file: HubFile, draft: Path, on_bytes: OnBytes) -> None:
    from huggingface_hub import constants, get_session, hf_hub_url, hf_raise_for_status
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # public

    done = _size(draft)
    url = hf_hub_url(offer.model.repository, file.name, revision=offer.commit)
    headers = {**build_hf_headers(), "Accept-Encoding": "identity"}
    if done:
        headers["Range"] = f"bytes={done}-"
    timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
    with get_session().stream("GET", url, headers=headers, timeout=timeout) as response:
        hf_raise_for_status(response)
        if response.status_code != HTTPStatus.PARTIAL_CONTENT:
            done = 0  # a server without Range support sends everything again
        with draft.open("ab" if done else "wb") as output:
            for received in response.iter_bytes():
                output.write(received)
                done += len(received)
                on_bytes(min(done, file.size))
                if done > file.size:
                    break


def _link(place: Path, blob: Path) -> None:
    from huggingface_hub import constants

    place.parent.mkdir(parents=True, exist_ok=True)
    place.unlink(missing_ok=True)
    try:
        if constants.HF_HUB_DISABLE_SYMLINKS:
            raise OSError
        place.symlink_to(relpath(blob, place.parent))
    except OSError:
        blob.replace(place)  # as huggingface_hub does where there are no symbolic links


def _remember(ref: Path, commit: str) -> None:
    """Let the name of a revision lead to its commit without a connection."""
    ref.parent.mkdir(parents=True, exist_ok=True)
    write_whole(ref, commit.encode())


def _is_whole(path: Path, file: HubFile) -> bool:
    """Whether there are the bytes of `file` at `path`."""
    if not path.is_file() or path.stat().st_size != file.size:
        return False
    return file.digest is None or _digest(path, len(file.digest)) == file.digest


def _digest(path: Path, digits: int) -> str:
    """The hash of a file as the hub has it: sha256, or git's sha1 of a blob, in hex."""
    with path.open("rb") as data:
        if digits == _SHA256_DIGITS:
            return hashlib.file_digest(data, "sha256").hexdigest()
        header = f"blob {path.stat().st_size}\0".encode()
        blob = hashlib.sha1(header, usedforsecurity=False)
        return hashlib.file_digest(data, lambda: blob).hexdigest()


def _require_space(cache: Path, missing: Sequence[HubFile]) -> None:
    drafts = (cache / "blobs" / f"{file.digest}.incomplete" for file in missing)
    needed = sum(file.size for file in missing) - sum(map(_size, drafts))
    free = shutil.disk_usage(cache.parent).free
    if needed > free:
        raise CbirError(
            f"{cache.parent} needs {needed / 1e6:,.0f} MB and has {free / 1e6:,.0f} MB free",
            _SPACE,
        )


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _cache_folder(repository: str) -> Path:
    from huggingface_hub.file_download import repo_folder_name

    return _cache() / repo_folder_name(repo_id=repository, repo_type="model")


def _cache() -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE).expanduser()
