"""A folder as an image source: walks everything that is not excluded, except indexes."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

from cbir.errors import ImageError
from cbir.files import open_file, special_kind
from cbir.foreign_sqlite import table_names
from cbir.images.camera_raw import RAW_SUFFIXES
from cbir.images.decode import RAW_BYTE_LIMIT, check_size
from cbir.images.excludes import IGNORE_FILE, Excludes, Exclusion, LeftOut, excludes, steps
from cbir.images.ids import decode_path, encode_path, make_id
from cbir.images.items import SourceItem, storable_ns
from cbir.images.members import HEAD_SIZE, extension, has_image_suffix, is_candidate, label_of
from cbir.images.mounts import keeps_inodes

_INDEX_FILE = "index.sqlite"
_INDEX_TABLES = {"meta", "records", "vectors"}


@dataclass
class FolderSource:
    """The images under `root`, ordered by the bytes of their paths.

    `only`: just this file. `below`: just what is in this folder. Both are paths inside `root`.

    Skips indexes (`indexes` has their paths), and what `rules` exclude (`left_out` has it), each as
    of the last walk. Follows symbolic links to files. Follows each linked folder once, and only if
    its target is outside `root`, so loops are impossible, and in none of the folders `others` (path
    -> name), which are other sources of the index; `elsewhere` has those. The `read` of an
    unreadable file raises the reason.

    `elsewhere`: the path of a folder that a link reaches, with a "/" at the end -> how the ids of
    its images begin as part of the other source.
    """

    root: Path
    label_from_folder: bool = False
    only: str | None = None
    below: str | None = None
    descriptor: str | None = None
    rules: Excludes = field(default_factory=excludes)
    others: Mapping[str, str] = field(default_factory=dict, init=False)
    elsewhere: dict[str, str] = field(default_factory=dict, init=False)
    ignored: Counter[str] = field(default_factory=Counter, init=False)
    indexes: list[str] = field(default_factory=list, init=False)
    left_out: LeftOut = field(default_factory=LeftOut, init=False)
    _devices: dict[int, bool] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        self.name = encode_path(self.root.name) or "root"
        self.uri = str(self.root)
        self.scope = encode_path(self.only or "")
        if self.below:
            self.scope = f"{encode_path(self.below)}/"

    @cached_property
    def stamped(self) -> bool:
        """Whether the file system of `root` keeps inodes and change times: its items have stamps.

        Links and mounts lead to items on other file systems, which may differ.
        """
        return keeps_inodes(self.root)

    def part_of(self, root: Path) -> FolderSource:
        """The same images as part of the folder `root`, in which this one lies."""
        inside = self.root.relative_to(root)
        labels = self.label_from_folder
        if self.only:
            return FolderSource(root, labels, only=(inside / self.only).as_posix())
        below = inside.as_posix()
        return FolderSource(root, labels, below=below, rules=self.rules.part_of(f"{below}/"))

    @cached_property
    def count(self) -> int | None:
        """The number of items, counted by a walk that opens only files with unknown extensions.

        May be asked for while `items` are read: it is no walk of theirs.
        """
        walk = self._walk([], LeftOut(), {})
        return sum(isinstance(found, _Found) for found in walk)

    def items(self) -> Iterator[SourceItem]:
        self.ignored, self.indexes, self.left_out, self.elsewhere = Counter(), [], LeftOut(), {}
        for found in self._walk(self.indexes, self.left_out, self.elsewhere):
            if isinstance(found, str):
                self.ignored[found] += 1
            else:
                yield self._item(found)

    def leaves_out(self, key: str) -> bool:
        """Whether the last walk found that the file `key`, or a folder above it, is excluded."""
        return self.left_out.covers(key)

    def excluded_by(self, key: str) -> Exclusion | None:
        """What leaves out the file `key`, or a folder above it, as patterns and files are now.

        Raises `ImageError` if a `.cbirignore` cannot be read.
        """
        rules, above = self.rules, ""
        for path in steps("/".join(self._parts(key))):
            rules = _rules_in(str(self.root), above, rules)
            if found := rules.exclusion(path):
                return found
            above = path
        return None

    def has(self, key: str) -> bool:
        """Whether there is a file `key`, and it is taken for an image."""
        try:
            return bool(self._image(key))
        except ImageError:
            return False

    def may_leave_out(self) -> bool:
        """Whether the last walk found that anything is excluded."""
        return bool(self.left_out.paths)

    def id_elsewhere(self, key: str) -> str | None:
        """The id that the file `key` has as part of another source, if a link there reaches it."""
        for path in steps(key) if self.elsewhere else ():
            if start := self.elsewhere.get(path):
                return make_id(*(start + key[len(path) :]).split("/", 1))
        return None

    def path_of(self, key: str) -> str:
        """The path of the file or folder `key`."""
        return str(self.root / os.fsdecode(decode_path(key)))

    def linked_from_outside(self, location: str) -> SourceItem | None:
        """The file at `location` as it is now, if a symbolic link leads out of `root` to it.

        Raises `ImageError` if that cannot be found out.
        """
        path = self.root.joinpath(*self._parts(location))
        try:
            outside = not _is_inside(os.path.realpath(path), os.path.realpath(self.root))
            return self._item(_Found(str(path), location)) if outside and path.is_file() else None
        except OSError as error:
            raise _unreadable(error) from error

    def open(self, location: str) -> bytes:
        return read_file(self._image(location))

    def _parts(self, location: str) -> list[str]:
        parts = os.fsdecode(decode_path(location)).split("/")
        if any(not _is_plain_name(part) for part in parts):
            raise ImageError(f"'{location}' is not a path inside {self.uri}")
        return parts

    def _image(self, location: str) -> str:
        """The path of an image; raises `ImageError` if there is none."""
        parts = self._parts(location)
        path = self.root.joinpath(*parts)
        try:
            if not path.is_file():
                raise ImageError(f"the original is gone: {location} is not in {self.uri}")
            if not is_candidate(path.name, partial(_head, str(path))):
                raise ImageError(f"'{location}' is not an image")
        except OSError as error:
            raise _unreadable(error) from error
        return str(path)

    def _walk(
        self, indexes: list[str], left_out: LeftOut, elsewhere: dict[str, str]
    ) -> Iterator[_Found | str]:
        if self.only is None:
            root, others = str(self.root), _Others(self.others)
            return _walk(root, self.below, self.rules, left_out, indexes.append, others, elsewhere)
        return iter([_Found(str(self.root / self.only), encode_path(self.only))])

    def _item(self, found: _Found) -> SourceItem:
        size: int | None = None
        mtime_ns: int | None = None
        stamp: str | None = None
        try:
            status = os.stat(found.path)  # noqa: PTH116 - twice as fast as Path
            size, mtime_ns = status.st_size, storable_ns(status.st_mtime_ns)
            if status.st_dev not in self._devices:
                self._devices[status.st_dev] = keeps_inodes(Path(found.path))
            if self._devices[status.st_dev]:
                stamp = f"{status.st_ino}-{status.st_ctime_ns}"
        except OSError:  # reading the file will fail too, and is reported then
            pass
        label = label_of(found.key, self.name) if self.label_from_folder else None
        read = partial(_refuse, found.error) if found.error else partial(read_file, found.path)
        return SourceItem(found.key, found.key, label, size, mtime_ns, read, stamp)


def is_index(folder: str) -> bool:
    """Whether `folder` is an index of ours: other programs call their files `index.sqlite`, too."""
    path = Path(folder, _INDEX_FILE)
    return path.is_file() and table_names(path) >= _INDEX_TABLES


def read_file(path: str) -> bytes:
    """The bytes of a file; raises `ImageError` if it is unreadable or exceeds the limit."""
    try:
        with open_file(path) as file:
            limit = RAW_BYTE_LIMIT if path.lower().endswith(RAW_SUFFIXES) else None
            check_size(os.fstat(file.fileno()).st_size, limit)
            return file.read()
    except OSError as error:
        raise _unreadable(error) from error


@dataclass(frozen=True, slots=True)
class _Found:
    path: str
    key: str
    error: ImageError | None = None


@dataclass(frozen=True, slots=True)
class _Entry:
    """A member of a folder; `order` is the bytes of its name, plus "/" for a folder.

    Sorting each folder by `order` puts whole paths in byte order. `path` is `key` as the system
    writes it, plus "/" for a folder; `rules` are those of the folder that it lies in.
    """

    order: bytes
    key: str
    entry: os.DirEntry[str]
    is_folder: bool
    path: str
    rules: Excludes


class _Others:
    """The folders of other sources: path -> name."""

    def __init__(self, names: Mapping[str, str]) -> None:
        self._names: dict[str, str] = {}
        self._identities: dict[tuple[int, int], str] = {}
        for path, name in names.items():
            with suppress(OSError):  # its drive is not mounted
                status = Path(path).stat()
                self._identities[status.st_dev, status.st_ino] = name
                self._names[os.path.realpath(path)] = name

    def is_one(self, identity: tuple[int, int]) -> str | None:
        """How ids in this folder begin, if it is one of them."""
        name = self._identities.get(identity)
        return name and f"{name}/"

    def around(self, real: str) -> str | None:
        """How ids in the folder at this real path begin, if it is one of them or in one."""
        for root, name in self._names.items():
            if _is_inside(real, root):
                inside = encode_path(os.path.relpath(real, root))
                return f"{name}/" if inside == "." else f"{name}/{inside}/"
        return None


def _walk(
    root: str,
    below: str | None,
    rules: Excludes,
    left_out: LeftOut,
    on_index: Callable[[str], None],
    others: _Others,
    elsewhere: dict[str, str],
) -> Iterator[_Found | str]:
    """All candidates of `root`, or of the folder `below` in it, in byte order of their keys.

    The extension of a skipped file. Calls `on_index` with the path of each index, whose files are
    skipped, and notes in `elsewhere` the folders that are part of `others`.
    """
    real_root = os.path.realpath(root)
    entered: set[tuple[int, int]] = set()
    waiting: list[Iterator[_Entry]] = []

    def enter(folder: str, prefix: str, path: str, rules: Excludes) -> _Found | None:
        try:
            status = Path(folder).stat()
            identity = status.st_dev, status.st_ino
            # A link to a folder above another source leads there, too.
            if waiting and (start := others.is_one(identity)):
                elsewhere[prefix] = start
            elif identity not in entered:
                entered.add(identity)
                members = _list(folder, prefix, path, rules, left_out)
                if members is None:
                    on_index(os.fsencode(folder).decode("utf-8", "replace"))
                else:
                    waiting.append(iter(members))
        except (OSError, ImageError) as error:
            reason = error if isinstance(error, ImageError) else _unreadable(error)
            return _Found(folder, prefix.rstrip("/") or ".", reason)
        return None

    def skips(link: _Entry) -> bool:
        real = os.path.realpath(link.entry.path)
        if start := others.around(real):
            elsewhere[f"{link.key}/"] = start
        return start is not None or _is_inside(real, real_root)

    path = f"{below}/" if below else ""
    try:
        rules = _rules_above(root, path, rules)
    except ImageError as error:
        yield _Found(root, ".", error)
        return
    if unreadable := enter(os.path.join(root, path), encode_path(path), path, rules):  # noqa: PTH118
        yield unreadable
    while waiting:
        member = next(waiting[-1], None)
        if member is None:
            waiting.pop()
        elif not member.is_folder:
            yield _candidate(member)
        elif member.entry.is_symlink() and skips(member):
            continue
        elif unreadable := enter(member.entry.path, f"{member.key}/", member.path, member.rules):
            yield unreadable


def _rules_above(root: str, path: str, rules: Excludes) -> Excludes:
    """`rules` and the `.cbirignore` files of the folders above `path`, which ends in "/"."""
    above = ["", *steps(path)][:-2] if path else []
    for part in above:
        rules = _rules_in(root, part, rules)
    return rules


def _rules_in(root: str, path: str, rules: Excludes) -> Excludes:
    """`rules` and the `.cbirignore` of the folder `path`, if it has one."""
    folder = os.path.join(root, path)  # noqa: PTH118
    has_file = os.path.lexists(os.path.join(folder, IGNORE_FILE))  # noqa: PTH118
    return rules.inside(folder, path) if has_file else rules


def _list(
    folder: str, prefix: str, path: str, rules: Excludes, left_out: LeftOut
) -> list[_Entry] | None:
    """The members of a folder that are not left out, None if it is an index."""
    with os.scandir(folder) as scan:
        entries = list(scan)
    if any(entry.name == _INDEX_FILE for entry in entries) and is_index(folder):
        return None
    if any(entry.name == IGNORE_FILE for entry in entries):
        rules = rules.inside(folder, path)
    members = []
    for entry in entries:
        name, is_folder = encode_path(entry.name), _is(entry.is_dir)
        slash = "/" if is_folder else ""
        order, own = name + slash, path + entry.name + slash
        if reason := rules.reason(own):
            left_out.paths[prefix + order] = reason
        else:
            key = prefix + name
            members.append(_Entry(order.encode(), key, entry, is_folder, own, rules))
    return sorted(members, key=lambda member: member.order)


def _candidate(member: _Entry) -> _Found | str:
    """What to read, or the extension of a file that is no image, or what it is instead of one."""
    entry = member.entry
    # A dangling link is a missing image; a pipe or device is not an image.
    if not _is(entry.is_file) and not (entry.is_symlink() and not Path(entry.path).exists()):
        return special_kind(entry.stat().st_mode) or extension(entry.name)
    if has_image_suffix(entry.name):
        return _Found(entry.path, member.key)
    try:
        is_image = is_candidate(entry.name, partial(_head, entry.path))
    except OSError:  # unreadable, and not an image by its name
        is_image = False
    return _Found(entry.path, member.key) if is_image else extension(entry.name)


def _is(test: Callable[[], bool]) -> bool:
    try:
        return test()
    except OSError:  # a link to itself
        return False


def _is_inside(real: str, real_root: str) -> bool:
    return real == real_root or real.startswith(os.path.join(real_root, ""))  # noqa: PTH118


def _is_plain_name(part: str) -> bool:
    """Whether `part` is a valid name of a folder member on every system."""
    return part not in ("", ".", "..") and "\0" not in part and Path(part).name == part


def _head(path: str) -> bytes:
    with open_file(path) as file:
        return file.read(HEAD_SIZE)


def _refuse(error: ImageError) -> bytes:
    raise error


def _unreadable(error: OSError) -> ImageError:
    return ImageError(f"cannot be read: {error.strerror or error}")
