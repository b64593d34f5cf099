"""The style of charts, and charts as PNG files and pixels; `page` turns them into SVG."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from cbir.errors import MissingExtraError
from cbir.types import RgbImage

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, SOFT, LINE, SHEET = "#1b1d1c", "#5a605d", "#d5d9d4", "#fefefe"
SERIES = ("#0072b2", "#c4520a", "#00805c", "#9b4f96", "#7a6a00", "#5b6770")
"""Colour-blind-safe colours of series (after Okabe and Ito, darkened)."""

RIGHT, WRONG = SERIES[0], SERIES[1]
DASHES = ("-", "--", "-.", ":", (0, (6, 1.5, 1, 1.5, 1, 1.5)), (0, (1, 1)))

_SETTINGS = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # labels may contain dollars
    "font.size": 9.0,
    "axes.titlesize": 9.0,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": SOFT,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.7,
    "text.color": INK,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
}
PNG_DPI = 150


def require_matplotlib(what: str = "a report", extra: str = "evaluation") -> None:
    """Raise `MissingExtraError` for `what` if matplotlib is missing."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(what, extra) from error


@contextmanager
def styled() -> Iterator[None]:
    """The style of reports, for a block or a decorated function."""
    import matplotlib as mpl

    with mpl.rc_context(_SETTINGS), warnings.catch_warnings():
        # The page uses the reader's fonts; only PNG files may lack the letters of a script.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from font")
        yield


def figure(width: float = 5.0, height: float = 3.1, columns: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure of `width` x `height` inches with `columns` axes side by side."""
    from matplotlib.figure import Figure

    made = Figure(figsize=(width, height), layout="constrained")
    return made, list(made.subplots(1, columns, squeeze=False)[0])


@styled()
def png(drawn: Figure) -> bytes:
    """`drawn` as a PNG file, on white."""
    stream = io.BytesIO()
    drawn.savefig(stream, format="png", dpi=PNG_DPI, facecolor="white", metadata={"Software": None})
    return stream.getvalue()


def pixels(drawn: Figure) -> RgbImage:
    """`drawn` as an RGB image, on white."""
    with Image.open(io.BytesIO(png(drawn))) as image:
        return np.asarray(image.convert("RGB"))
