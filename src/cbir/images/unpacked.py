"""What unpacking an archive leaves: later members replace earlier ones, and links lead to files."""

from __future__ import annotations

from pathlib import Path
from typing import Generic, NoReturn, TypeVar

from cbir.errors import CbirError, ImageError
from cbir.images.ids import encode_path

_MOST_LINKS = 40
"""As many links as Linux follows in one path."""
_MOST_STEPS = 4096
"""The most folders that are followed for one link."""
_MOST_TEXT = 500_000_000
"""The most characters of names and links that are kept, with `_ENTRY` more for each."""
_ENTRY = 100

T = TypeVar("T")


class Unpacked(Generic[T]):
    """Files, folders and links of an archive by key; `T` says where the content of a file is.

    Members are put in archive order. Nothing outside the archive is looked at: a link that leads
    out of it leads to nothing. Raises `CbirError` if the names take too much memory.
    """

    def __init__(self, archive: Path) -> None:
        self._archive = archive
        self._text = 0
        self._files: dict[str, T] = {}
        self._links: dict[str, str] = {}
        self._folders: set[str] = set()

    def put_folder(self, key: str) -> None:
        while key and key not in self._folders:
            self._hold(key)
            self._folders.add(key)
            key = key.rpartition("/")[0]

    def put_file(self, key: str, content: T) -> None:
        self._links.pop(key, None)
        self._hold(key)
        self._files[key] = content
        self.put_folder(key.rpartition("/")[0])

    def put_symlink(self, key: str, target: str) -> None:
        """`target` is relative to the link's folder, as in the archive."""
        self._files.pop(key, None)
        self._hold(key + target)
        self._links[key] = target
        self.put_folder(key.rpartition("/")[0])

    def put_hard_link(self, key: str, target: str) -> None:
        """The content that `target`, a key, has now, whatever replaces it later."""
        if target in self._files:
            self.put_file(key, self._files[target])
        else:
            self.put_symlink(key, self._links.get(target, f"/{target}"))

    def find(self, key: str) -> T | None:
        """The content of the file at `key`, or at the end of the link there; None if none is."""
        if key in self._files:
            return self._files[key]
        end = self._follow(key)
        return None if end is None else self._files.get(end)

    def is_folder(self, key: str) -> bool:
        """Whether `key` is a folder or a link to one."""
        return self._follow(key) in self._folders

    def refuse_dead_link(self, key: str) -> NoReturn:
        """The `read` of the link at `key`, which leads to no file."""
        raise ImageError(f"a link to {self._links[key]}, which is not in the archive")

    def files(self) -> dict[str, T]:
        """The content of every file, links included, by key."""
        links = {key: found for key in self._links if (found := self.find(key)) is not None}
        return self._files | links

    def _hold(self, text: str) -> None:
        self._text += len(text) + _ENTRY
        if self._text > _MOST_TEXT:
            raise CbirError(
                f"{self._archive}: its names and links take more than {_MOST_TEXT // 10**6} MB",
                "if you trust it, unpack it and index the folder",
            )

    def _follow(self, key: str) -> str | None:
        waiting = key.split("/")[::-1]
        place: list[str] = []
        links = steps = 0
        while waiting:
            part = waiting.pop()
            steps += 1
            if steps > _MOST_STEPS:
                return None
            if part in ("", "."):
                continue
            if part == "..":
                if not place:
                    return None
                place.pop()
                continue
            place.append(part)
            target = self._links.get("/".join(place))
            if target is not None:
                links += 1
                if links > _MOST_LINKS or target.startswith("/"):
                    return None
                place.pop()
                waiting += encode_path(target).split("/")[::-1]
        return "/".join(place)
