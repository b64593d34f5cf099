"""Which members of a folder or archive are left out, by patterns in gitignore syntax."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Literal
from unicodedata import normalize

from cbir.errors import CbirError, ImageError
from cbir.files import read_regular
from cbir.images.ids import decode_path, encode_path
from cbir.images.items import ImageSource, SourceItem
from cbir.types import RgbImage

IGNORE_FILE = ".cbirignore"
"""A file with patterns for the folder that it lies in, and the folders below."""

DEFAULT_PATTERNS = (
    ".*",  # hidden: .trash, .Trash-1000, .thumbnails, .AppleDouble, ._photo.jpg
    *("@eaDir/", r"\#recycle/", r"\#snapshot/", "@Recycle/", "@__thumb/"),  # Synology, QNAP
    *("$RECYCLE.BIN/", "$Recycle.Bin/", "System Volume Information/", "Thumbs.db"),
    *("__MACOSX/", "iPod Photo Cache/", "*.lrdata/", "**/CaptureOne/Cache/"),
    *("**/*.photoslibrary/resources/", "**/*.photolibrary/Thumbnails/"),
)
"""Hidden files, recycle bins, snapshots, and the thumbnails of other programs."""

Reason = Literal["default", "chosen"]
"""Why a member is left out: by a default pattern, or by one that a person chose."""

_Origin = int | Literal["given", "default"]
"""Whose pattern decides: the run's, a default one, or that of the `.cbirignore` of the folder whose
path has this length."""

_ANY_NAME = re.compile(r"(!?)((?:.*/)?)(\*\*?)(/?)")


class Patterns:
    """Patterns in gitignore syntax. The last one that matches a path decides.

    As in git, a pattern matches a file or folder by its own path; what lies in an excluded folder
    is never looked at. Raises `ValueError` for a line that is no pattern.
    """

    def __init__(self, lines: Iterable[str]) -> None:
        from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

        self._used: set[str] = set()
        self._rules: list[tuple[str, re.Pattern[str], bool]] = []
        for line in lines:
            pattern = GitIgnoreSpecPattern(_with_last_name(normalize("NFC", line)))
            if pattern.regex is not None:
                self._rules.insert(0, (line, pattern.regex, bool(pattern.include)))
        # Most paths match no pattern, and one expression is several times as fast as one for each.
        expressions = (re.sub(r"\(\?P<\w+>", "(?:", rule[1].pattern) for rule in self._rules)
        self._any = re.compile("|".join(expressions))

    def __len__(self) -> int:
        return len(self._rules)

    def unused(self) -> list[str]:
        """The patterns that have decided nothing so far, in their order."""
        return [line for line, _, _ in reversed(self._rules) if line not in self._used]

    def verdict(self, path: str) -> tuple[str, bool] | None:
        """The pattern that decides about `path`, and whether it excludes it; None if none matches.

        A folder's path ends in "/".
        """
        if self._rules and self._any.fullmatch(path):
            for line, expression, excluded in self._rules:
                if expression.fullmatch(path):
                    self._used.add(line)
                    return line, excluded
        return None


@dataclass(frozen=True, slots=True)
class Exclusion:
    """What leaves out a file, or a folder above it.

    `path`: the file or folder, that of a folder with a "/" at the end. `file`: the `.cbirignore`
    that has the `pattern`, None for a default pattern. Both are encoded paths in the source.
    """

    path: str
    pattern: str
    file: str | None


@dataclass(frozen=True)
class Excludes:
    """The patterns of a run, of the `.cbirignore` files above a path, and the default ones.

    This is their precedence; of several `.cbirignore` files, that of the deepest folder comes
    first. Paths are relative to the source; the path of a folder ends in "/". `start`: where the
    part of a path begins that the run's patterns are relative to.
    """

    given: Patterns
    defaults: Patterns
    files: tuple[tuple[int, Patterns], ...] = ()
    start: int = 0

    def reason(self, path: str) -> Reason | None:
        """Why a member is left out, None if it is not; nothing above it is."""
        decided = self._verdict(_comparable(path))
        if decided is None or not decided[2]:
            return None
        return "default" if decided[0] == "default" else "chosen"

    def exclusion(self, path: str) -> Exclusion | None:
        """What leaves a member out, if it is no pattern of the run."""
        path = _comparable(path)
        origin, pattern, excluded = self._verdict(path) or ("default", "", False)
        if not excluded or origin == "given":
            return None
        file = None if origin == "default" else encode_path(path[:origin] + IGNORE_FILE)
        return Exclusion(encode_path(path), pattern, file)

    def _verdict(self, path: str) -> tuple[_Origin, str, bool] | None:
        if verdict := self.given.verdict(path[self.start :]):
            return "given", *verdict
        for start, patterns in self.files:
            if verdict := patterns.verdict(path[start:]):
                return start, *verdict
        verdict = self.defaults.verdict(path)
        return ("default", *verdict) if verdict else None

    def part_of(self, path: str) -> Excludes:
        """The same for a source around this one, in which this one is the folder `path`."""
        return replace(self, start=self.start + len(_comparable(path)))

    def inside(self, folder: str, path: str) -> Excludes:
        """The patterns for the members of `folder`, which has a `.cbirignore`.

        Raises `ImageError` if that cannot be read, or has a line that is no pattern: it may hide
        what nobody is to see.
        """
        try:
            data = read_regular(Path(folder, IGNORE_FILE))
            lines = os.fsdecode(data.removeprefix(b"\xef\xbb\xbf")).split("\n")
            own = len(_comparable(path)), Patterns(lines)
        except OSError as error:
            raise ImageError(f"{IGNORE_FILE} cannot be read: {error.strerror or error}") from error
        except ValueError as error:
            raise ImageError(f"{IGNORE_FILE} cannot be read: {error}") from error
        return replace(self, files=(own, *self.files))


def excludes(patterns: Sequence[str] = (), defaults: bool = True) -> Excludes:
    """The `patterns` of a run in gitignore syntax, and the default ones unless switched off.

    Raises `CbirError` for text that is no pattern.
    """
    if isinstance(patterns, str):
        raise CbirError("exclude is a single pattern", f'give a list: ["{patterns}"]')
    # A line that begins with # is a comment in a file, which makes no sense here.
    literal = [f"\\{pattern}" if pattern.startswith("#") else pattern for pattern in patterns]
    for pattern in literal:
        if not _is_pattern(pattern):
            raise CbirError(
                f"'{pattern}' is not a pattern in gitignore syntax",
                "patterns look like '*.png', 'drafts/' or '/2019/raw'",
            )
    return Excludes(Patterns(literal), _default_patterns() if defaults else Patterns(()))


class LeftOut:
    """What the last walk of a source left out.

    `paths`: encoded paths, those of folders with a "/" at the end, and the reason of each.
    """

    def __init__(self) -> None:
        self.paths: dict[str, Reason] = {}

    def covers(self, key: str) -> bool:
        """Whether the file `key`, or a folder above it, was left out."""
        return any(path in self.paths for path in steps(key))


@dataclass
class ArchiveMembers:
    """The images of an archive that `rules` do not exclude.

    A `.cbirignore` in the archive is not read: a tar may have it after the files that it excludes.
    """

    archive: ImageSource
    rules: Excludes
    ignored: Counter[str] = field(default_factory=Counter, init=False)
    left_out: LeftOut = field(default_factory=LeftOut, init=False)

    def __post_init__(self) -> None:
        archive = self.archive
        self.name, self.uri, self.scope = archive.name, archive.uri, archive.scope
        self.descriptor = archive.descriptor
        self._reason = cache(self._reason_of)

    @property
    def count(self) -> int | None:
        """The number of items, None for an archive that has no table of contents."""
        return None if self.archive.count is None else sum(1 for _ in self.items())

    def items(self) -> Iterator[SourceItem]:
        self.left_out = LeftOut()
        for item in self.archive.items():
            if not self.leaves_out(item.key):
                yield item
        self.ignored = self.archive.ignored

    def open(self, location: str) -> bytes | RgbImage:
        return self.archive.open(location)

    def leaves_out(self, key: str) -> bool:
        """Whether the member `key`, or a folder above it, is excluded."""
        for path in steps(key):
            if reason := self._reason(path) if path.endswith("/") else self._reason_of(path):
                self.left_out.paths[path] = reason
                return True
        return False

    def excluded_by(self, key: str) -> Exclusion | None:
        """What leaves out the member `key`, or a folder above it."""
        steps_to = (os.fsdecode(decode_path(path)) for path in steps(key))
        return next(filter(None, map(self.rules.exclusion, steps_to)), None)

    def may_leave_out(self) -> bool:
        """Whether there are patterns at all."""
        return bool(self.rules.given or self.rules.defaults)

    def _reason_of(self, path: str) -> Reason | None:
        return self.rules.reason(os.fsdecode(decode_path(path)))


def steps(key: str) -> Iterator[str]:
    """The folders above `key`, outermost first, and `key`: `a/`, `a/b/`, `a/b/c.jpg`."""
    end = key.find("/") + 1
    while end:
        yield key[:end]
        end = key.find("/", end) + 1
    yield key


@cache
def _default_patterns() -> Patterns:
    return Patterns(DEFAULT_PATTERNS)


def _is_pattern(line: str) -> bool:
    try:
        return len(Patterns([line])) == 1
    except ValueError:
        return False


def _with_last_name(line: str) -> str:
    """`line` with a last name that has to match: `*` and `**` become `?*` and `**/?*`.

    pathspec reads `*`, `**` and `folder/**` as the start of a path, which is faster where whole
    paths are matched. Here the whole expression has to match a path.
    """
    found = _ANY_NAME.fullmatch(line.rstrip())
    if found is None:
        return line
    negation, above, stars, end = found.groups()
    return f"{negation}{above}{'**/' if above and stars == '**' else ''}?*{end}"


def _comparable(path: str) -> str:
    """`path` in NFC, which is how most people's editors write; no line break, as `.` needs."""
    path = path if path.isascii() else normalize("NFC", path)
    return path.replace("\n", "\0") if "\n" in path else path
