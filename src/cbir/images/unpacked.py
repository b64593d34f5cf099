"""What unpacking an archive leaves: later members replace earlier ones, and links lead to files."""

from __future__ import annotations

from typing import Generic, TypeVar

from cbir.images.ids import encode_path

_MOST_LINKS = 40
"""As many links as Linux follows in one path."""

T = TypeVar("T")


class Unpacked(Generic[T]):
    """Files, folders and links of an archive by key; `T` says where the content of a file is.

    Members are put in archive order. Nothing outside the archive is looked at: a link that leads
    out of it leads to nothing.
    """

    def __init__(self) -> None:
        self._files: dict[str, T] = {}
        self._links: dict[str, str] = {}
        self._folders: set[str] = set()

    def put_folder(self, key: str) -> None:
        while key and key not in self._folders:
            self._folders.add(key)
            key = key.rpartition("/")[0]

    def put_file(self, key: str, content: T) -> None:
        self._links.pop(key, None)
        self._files[key] = content
        self.put_folder(key.rpartition("/")[0])

    def put_symlink(self, key: str, target: str) -> None:
        """`target` is relative to the link's folder, as in the archive."""
        self._files.pop(key, None)
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

    def target(self, key: str) -> str:
        """The target of the link at `key`, as in the archive."""
        return self._links[key]

    def _follow(self, key: str) -> str | None:
        waiting = key.split("/")[::-1]
        place: list[str] = []
        links = 0
        while waiting:
            part = waiting.pop()
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
