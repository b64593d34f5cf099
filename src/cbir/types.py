"""The words of the project as plain data: records, specs, hits, reports."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

RgbImage: TypeAlias = NDArray[np.uint8]
"""Height x width x 3, RGB, 0..255, EXIF orientation applied."""

Floats: TypeAlias = NDArray[np.float32]
"""Numbers of any shape."""

Vectors: TypeAlias = NDArray[np.float32]
"""n x dim, rows of unit L2 norm."""

UNIT_TOLERANCE = 1e-4
"""How far the norm of a unit vector may be from 1."""

Box: TypeAlias = tuple[float, float, float, float]
"""Left, top, right, bottom as fractions (0..1) of the picture's width and height."""

WHOLE: Box = (0.0, 0.0, 1.0, 1.0)

OnDone: TypeAlias = Callable[[int, int | None], None]
"""Called during long work with how much is done, and of how much (None: not known)."""

OnStage: TypeAlias = Callable[[str, int, int | None], None]
"""The same for work of several stages; first comes what is being done."""

MetadataValue: TypeAlias = str | int | float


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One indexed image.

    `id` is unique in the index: `SOURCE/relative/path`, percent-encoded. `source` is the
    registered name of where it came from; `location` its percent-encoded path inside that source.
    `content_hash` is the sha256 (hex) of the file's bytes, or of the RGB pixels where there is no
    file. `file_size` (bytes) and `mtime_ns` are those of the file, None where there is none.
    `missing` is set when a later run over the source no longer found the file.
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


@dataclass(frozen=True, slots=True)
class DescriptorSpec:
    """A descriptor's identity. Vectors of two specs with equal fingerprints are comparable.

    `fingerprint` is a sha256 (hex) over everything that changes a vector. `preprocessing` says
    how pixels are prepared (decoder and version among it), `trained_on` and `licence` where the
    model comes from; these three are for people.
    """

    name: str
    dim: int
    fingerprint: str
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    trained_on: str = ""
    licence: str = ""

    @property
    def short(self) -> str:
        """`name@` and the first eight digits of the fingerprint, as messages show it."""
        return f"{self.name}@{self.fingerprint[:8]}"


@dataclass(frozen=True, slots=True)
class Hit:
    """One answer: `rank` from 1, `score` the cosine (-1..1), the record, the part that matched.

    `band` names the score's meaning and is None until the index is calibrated. `box` is the
    matching part of the picture, None where the whole picture matched. `path` is the image's own
    file, None where it has none (inside an archive, or pixels only).

    Of a verified search: `inliers` is how many matched points agree (0: too few to be more than
    chance), None where the original could not be opened; `verified` whether there are any;
    `mirrored` whether they agree with the query's mirror image; `matches` float32 (inliers, 4) the
    points, x and y in the query and x and y in this picture, as fractions (0..1) of width and
    height. `orientation`: which of `cbir.search.orient.ORIENTATIONS` of the query scored best, in
    a search in any orientation. All None where not asked for.
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
        """What `--json` and HTTP answers carry for a hit."""
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
class Failure:
    """An image that could not be added: where it is (`source`, `location`) and why not."""

    source: str
    location: str
    reason: str


@dataclass(slots=True)
class AddReport:
    """What one indexing run did. Counts are images; `seconds` is wall-clock time."""

    added: int = 0
    updated: int = 0
    unchanged: int = 0
    missing: int = 0
    removed: int = 0
    ignored: int = 0
    failures: list[Failure] = field(default_factory=list)
    unused_metadata: list[str] = field(default_factory=list)
    seconds: float = 0.0
    interrupted: bool = False
