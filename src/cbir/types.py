"""Shared data types: records, specs, hits and reports."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cbir.wording import counted

RgbImage: TypeAlias = NDArray[np.uint8]
"""Height x width x 3, RGB, 0..255, EXIF orientation applied."""

Floats: TypeAlias = NDArray[np.float32]
"""An array of any shape."""

Vectors: TypeAlias = NDArray[np.float32]
"""n x dim, rows of unit L2 norm."""

UNIT_TOLERANCE = 1e-4
"""The largest accepted deviation of a unit vector's norm from 1."""

Box: TypeAlias = tuple[float, float, float, float]
"""Left, top, right, bottom as fractions (0..1) of the picture's width and height."""

WHOLE: Box = (0.0, 0.0, 1.0, 1.0)

OnDone: TypeAlias = Callable[[int, int | None], None]
"""Progress callback: the amount done and the total (None if unknown)."""

OnStage: TypeAlias = Callable[[str, int, int | None], None]
"""Progress callback for work in stages: the stage, the amount done and the total."""

ModelFile: TypeAlias = bytes | Path
"""A model's file: its content, or where it lies."""

MetadataValue: TypeAlias = str | int | float

LABEL = "label"
EXIF_FIELDS = ("taken", "camera", "lens", "latitude", "longitude")
"""The metadata fields that are read from pictures."""


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One indexed image.

    `id` is unique in the index: `SOURCE/relative/path`, percent-encoded. `source` is the
    registered name of the source; `location` is the percent-encoded path inside it.
    `content_hash` is the sha256 (hex) of the file's bytes, or of the RGB pixels if there is no
    file. `file_size` (bytes) and `mtime_ns` describe the file; None if there is none. `missing` is
    set when a later indexing run does not find the file. `stamp` is opaque text that differs if the
    file was replaced; None if unknown. `decoder` is the version of the decoding rules under which
    the image was described, 0 before there were versions. `phash` is a perceptual hash, None if
    there is none. `given` names the fields, metadata or "label", that a metadata file gave; the
    others were read from the picture or its folder.
    """

    id: str
    source: str
    location: str
    label: str | None
    content_hash: str
    width: int
    height: int
    file_size: int | None = None
    mtime_ns: int | None = None
    metadata: Mapping[str, MetadataValue] = field(default_factory=dict)
    missing: bool = False
    stamp: str | None = None
    decoder: int = 0
    phash: bytes | None = None
    given: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class DescriptorSpec:
    """A descriptor's identity. Vectors of two specs with equal fingerprints are comparable.

    `fingerprint` is a sha256 (hex) over everything that changes a vector. `preprocessing` (pixel
    preparation, including the decoder and its version), `trained_on` and `licence` are
    informational.
    """

    name: str
    dim: int
    fingerprint: str
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    trained_on: str = ""
    licence: str = ""

    @property
    def short(self) -> str:
        """`name@` and the first eight digits of the fingerprint, for messages."""
        return f"{self.name}@{self.fingerprint[:8]}"


@dataclass(frozen=True, slots=True)
class Hit:
    """One search result: `rank` from 1, `score` (cosine, -1..1), the record and the matching part.

    `band` is the score's meaning, None until the index is calibrated. `box` is the matching part
    of the image, None if the whole image matched. `path` is the image file, None if there is none
    (archive member or pixels only).

    Verified searches set four fields. `inliers`: the number of geometrically consistent matches,
    0 if they could be chance, None if the image was not compared. `verified`: whether there are
    inliers; False with `inliers` None: the original is gone, has changed or is not confirmed; None:
    the image was not reached in time. `mirrored`: whether they match the query's mirror image.
    `matches`: float32 (inliers, 4), x and y in the query and in this image, as fractions (0..1) of
    width and height.
    Searches in any orientation set `orientation`: the best-scoring one of
    `cbir.search.orient.ORIENTATIONS`. Fields that were not requested are None.
    """

    rank: int
    id: str
    score: float
    record: ImageRecord
    band: str | None = None
    box: Box | None = None
    path: str | None = None
    inliers: int | None = None
    verified: bool | None = None
    mirrored: bool | None = None
    orientation: str | None = None
    matches: NDArray[np.float32] | None = field(default=None, compare=False, repr=False)

    def to_json(self) -> dict[str, Any]:
        """The hit as JSON, for `--json` and HTTP responses."""
        return {
            "rank": self.rank,
            "id": self.id,
            "score": self.score,
            "label": self.record.label,
            "path": self.path,
            "location": self.record.location,
            "band": self.band,
            "box": list(self.box) if self.box else None,
            "inliers": self.inliers,
            "verified": self.verified,
            "mirrored": self.mirrored,
            "orientation": self.orientation,
            "width": self.record.width,
            "height": self.record.height,
            "missing": self.record.missing,
            "metadata": dict(self.record.metadata),
        }


@dataclass(frozen=True, slots=True)
class Verification:
    """What a verification did with the first hits.

    `looked_at`: how many there were. `compared`: how many of them were compared. `agreed`: how many
    of those have inliers. `unavailable`: how many could not be compared, because their originals
    are gone, have changed or lie in a source that is not confirmed. `skipped`: how many were not
    reached in time; they are the last ones.
    """

    looked_at: int
    compared: int
    agreed: int
    unavailable: int
    skipped: int

    def sentence(self) -> str:
        """Such as "120 of 200 compared, none agreed; 80 not reached in time"."""
        of_all = "" if self.compared == self.looked_at else f" of {self.looked_at:,}"
        parts = [f"{self.compared:,}{of_all} compared, {self.agreed or 'none'} agreed"]
        if self.unavailable:
            parts.append(f"{counted(self.unavailable, 'original')} gone, changed or not confirmed")
        if self.skipped:
            parts.append(f"{self.skipped:,} not reached in time")
        return "; ".join(parts)

    def to_json(self) -> dict[str, int]:
        """The counts as JSON, for `--json` and HTTP responses."""
        return asdict(self)


OnVerified: TypeAlias = Callable[[Verification], None]
"""Gets the counts of a verification when it ends."""


@dataclass(frozen=True, slots=True)
class Failure:
    """An image that could not be added: its source, location and the reason."""

    source: str
    location: str
    reason: str


@dataclass(frozen=True, slots=True)
class Note:
    """Something unusual about an image that was added all the same."""

    source: str
    location: str
    text: str


@dataclass(slots=True)
class AddReport:
    """The result of an indexing run. Counts are images; `seconds` is wall-clock time.

    `moved`: images whose records have new ids, because their files moved. `copies`: images among
    `added` whose content the index already had. `kept_out`: images that a person removed from the
    index; `returned`: the same, but added, because their files have changed since. `relocated`:
    source -> its new URI, for sources that were found elsewhere. `nested`: path -> name of the
    source that it is part of. `decoded_anew`: unchanged images among `updated` that today's decoder
    reads differently. `skipped_indexes`: the paths of indexes inside the sources. `unopened`: the
    paths of archives whose originals will not be opened, because they expand too far.

    `ignored`: the files that are no images; `ignored_by_extension`: the same by extension (".pdf",
    "" for none). `notes`: about images that were added.

    `passed_over`: names of the folders, with a "/" at the end, and pictures that default patterns
    left out, and how many there are; `excluded`: the same for patterns that a person chose.
    `unused_excludes`: patterns of this run that decided nothing. `dropped`: records removed because
    their images are excluded now.
    """

    added: int = 0
    updated: int = 0
    decoded_anew: int = 0
    unchanged: int = 0
    moved: int = 0
    copies: int = 0
    kept_out: int = 0
    returned: int = 0
    missing: int = 0
    removed: int = 0
    ignored: int = 0
    dropped: int = 0
    ignored_by_extension: dict[str, int] = field(default_factory=dict)
    passed_over: dict[str, int] = field(default_factory=dict)
    excluded: dict[str, int] = field(default_factory=dict)
    unused_excludes: list[str] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    skipped_indexes: list[str] = field(default_factory=list)
    unopened: list[str] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    unused_metadata: list[str] = field(default_factory=list)
    relocated: dict[str, str] = field(default_factory=dict)
    nested: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    interrupted: bool = False

    def count_ignored(self, extensions: Mapping[str, int]) -> None:
        """Add the files that a source passed over."""
        for extension, number in extensions.items():
            counted = self.ignored_by_extension.get(extension, 0)
            self.ignored_by_extension[extension] = counted + number
            self.ignored += number
