"""The charts of reports: arrays in, matplotlib figures out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cbir.report.plot_style import (
    DASHES,
    INK,
    LINE,
    PNG_DPI,
    RIGHT,
    SERIES,
    SHEET,
    SOFT,
    WRONG,
    figure,
    styled,
)
from cbir.report.statistics import RECALL_LEVELS, Floats, Scores

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ROW_HEIGHT = 0.235
_NAME_LENGTH = 22
_DARK_FROM = 0.55
_SMALLEST_CELL = 0.15
_MOST_WITH_ZEROS = 24
_POINTS, _PIXEL = 72, 72 / PNG_DPI
"""An inch and a pixel of a PNG, in points."""

_MARKS = ("o", "D", "s", "^", "v", "P")


@styled()
def precision_plot(curves: Mapping[str, Floats], by_chance: Mapping[str, float]) -> Figure:
    """Mean precision at ranks 1 ... k, a line per curve."""
    drawn, (axes,) = figure()
    for number, (name, values) in enumerate(curves.items()):
        ranks = np.arange(1, len(values) + 1)
        axes.plot(ranks, values, **_mark(len(values)), **_line(number), label=_plain(name))
    _finish_curves(axes, "number of hits (k)", "precision", by_chance)
    longest = max(len(values) for values in curves.values())
    axes.set_xlim(1 if longest > 1 else 0.5, max(longest, 1.5))
    return drawn


@styled()
def recall_precision_plot(curves: Mapping[str, Floats], by_chance: Mapping[str, float]) -> Figure:
    """Interpolated precision over recall, a line per curve."""
    drawn, (axes,) = figure()
    recall = np.linspace(0, 1, RECALL_LEVELS)
    for number, (name, values) in enumerate(curves.items()):
        axes.plot(recall, values, **_line(number), label=_plain(name))
    _finish_curves(axes, "recall", "precision", by_chance)
    axes.set_xlim(0, 1)
    return drawn


@styled()
def class_plot(
    names: Sequence[str], values: Mapping[str, Floats], measure: str, *, bars: bool
) -> Figure:
    """A row per class, in the order given, with a mark for each of the `values`.

    With `bars`, the first is shown as a bar and a number.
    """
    drawn, (axes,) = figure(height=1.0 + _ROW_HEIGHT * len(names))
    places, every = np.arange(len(names)), np.array(list(values.values()))
    for number, (name, of_classes) in enumerate(values.items()):
        if bars and not number:
            axes.barh(places, of_classes, height=0.68, color=SERIES[0], label=_plain(name))
            continue
        axes.plot(
            of_classes,
            places,
            linestyle="none",
            marker=_MARKS[number % len(_MARKS)],
            clip_on=False,
            markersize=6,
            color=SERIES[number % len(SERIES)],
            markeredgecolor=SHEET,
            label=_plain(name),
        )
    if bars:
        figures = axes.secondary_yaxis("right")
        figures.set_yticks(places, [f"{value:.3f}" for value in every[0]], color=INK)
        figures.tick_params(length=0)
        figures.spines[:].set_visible(False)
        axes.grid(visible=False, axis="y")
    else:
        axes.hlines(places, every.min(axis=0), every.max(axis=0), color=LINE, linewidth=4)
    if len(values) > 1:
        drawn.legend(loc="outside upper right", handletextpad=0.3, ncols=min(3, len(values)))
    axes.set_yticks(places, [_short(name) for name in names], color=INK)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlim(0, max(1.0, float(np.nanmax(every, initial=0))))
    axes.set_xlabel(measure)
    axes.tick_params(axis="y", length=0)
    return drawn


@styled()
def matrix_plot(
    rows: Sequence[str], columns: Sequence[str], shares: Floats, titles: tuple[str, str]
) -> Figure:
    """A cell for each row and column, in percent; larger shares are darker.

    `titles`: of the rows and of the columns. In large matrices, cells of zero are blank.
    """
    side = max(len(rows), len(columns))
    size = max(min(7.4, max(4.2, 1.5 + 0.42 * side)), 1.5 + _SMALLEST_CELL * side)
    height = 1.2 + (size - 1.2) * len(rows) / max(1, len(columns))
    drawn, (axes,) = figure(size, height)
    small = 8.0 if side <= 12 else 6.5 if side <= _MOST_WITH_ZEROS else 5.5
    lowest = 0 if side <= _MOST_WITH_ZEROS else 1e-9
    for y, x in np.argwhere(shares >= lowest).tolist():  # a row of NaN has no cells
        strength = 0.07 + 0.93 * float(shares[y, x]) ** 0.6
        field = ([x - 0.47, x + 0.47, x + 0.47, x - 0.47], [y - 0.47, y - 0.47, y + 0.47, y + 0.47])
        colour = RIGHT if rows[y] == columns[x] else WRONG
        axes.fill(*field, color=colour, alpha=strength, linewidth=0)
        if round(100 * shares[y, x]) >= 1:
            text, ink = f"{100 * shares[y, x]:.0f}", SHEET if strength > _DARK_FROM else INK
            axes.text(x, y, text, ha="center", va="center", fontsize=small, color=ink)
    axes.set_xticks(range(len(columns)), [_short(c) for c in columns], rotation=50, ha="left")
    axes.set_yticks(range(len(rows)), [_short(r) for r in rows])
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.set_ylabel(titles[0])
    axes.set_xlabel(titles[1])
    axes.tick_params(length=0, labelsize=small + 0.5, labelcolor=INK, pad=2)
    axes.set_xlim(-0.5, len(columns) - 0.5)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    if side > _MOST_WITH_ZEROS:  # far from the names, lines lead to them
        axes.grid(visible=True, linewidth=0.4)
        axes.tick_params(labelright=True)
    else:
        axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    return drawn


@styled()
def scores_plot(
    names: Sequence[str], images: Sequence[int], scores: Mapping[str, Floats]
) -> Figure:
    """A row per class, in the order given, with a bar (0..1) and a number for each of `scores`.

    `images`: how many each class has, in brackets after its name.
    """
    labels = [f"{_short(name)} ({count:,})" for name, count in zip(names, images, strict=True)]
    drawn, panels = figure(7.8, 0.8 + _ROW_HEIGHT * len(names), columns=len(scores))
    places = np.arange(len(names))
    for number, (axes, (title, values)) in enumerate(zip(panels, scores.items(), strict=True)):
        bars = axes.barh(places, values, height=0.68, color=SERIES[number % len(SERIES)])
        axes.bar_label(bars, fmt="%.3f", padding=3, color=INK, fontsize=8)
        axes.set_title(title, loc="left", color=SOFT)
        axes.set_xlim(0, 1.25)
        axes.set_xticks([0, 0.5, 1])
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.set_yticks(places, [] if number else labels, color=INK)
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False, axis="y")
    return drawn


@styled()
def score_plot(right: Scores, wrong: Scores, lowest: float) -> Figure:
    """The distributions of the scores of right and wrong hits; each sums to one.

    Scores below `lowest` are counted as `lowest`.
    """
    drawn, (axes,) = figure()
    both = np.concatenate([right, wrong])
    edges = np.histogram_bin_edges(both, bins=50, range=(lowest, float(both.max())))
    kinds = ((right, RIGHT, "-", "right"), (wrong, WRONG, "--", "wrong"))
    for scores, colour, dash, name in kinds:
        if len(scores):
            counts, _ = np.histogram(np.maximum(scores, lowest), edges)
            shares, told = counts / len(scores), f"{name}: {len(scores):,} hits"
            axes.stairs(shares, edges, fill=True, color=colour, alpha=0.22)
            axes.stairs(shares, edges, color=colour, linestyle=dash, linewidth=1.6, label=told)
    axes.set_xlabel("score (cosine)")
    axes.set_ylabel("share of these hits")
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g}%")
    axes.set_ylim(bottom=0)
    _legend(axes)
    return drawn


@styled()
def spread_plot(values: Mapping[str, Floats], measure: str) -> Figure:
    """The cumulative distribution of queries by value, a line for each of `values`."""
    drawn, (axes,) = figure()
    for number, (name, of_queries) in enumerate(values.items()):
        ordered = np.sort(of_queries)
        shares = np.arange(1, len(ordered) + 1) / len(ordered)
        axes.step(
            np.concatenate([[0.0], ordered, [1.0]]),
            np.concatenate([[0.0], shares, [1.0]]),
            where="post",
            **_line(number),
            label=_plain(name),
        )
    axes.set_xlabel(f"{measure} of a query")
    axes.set_ylabel("share of queries at or below")
    axes.set_xlim(0, max(1.0, *(float(v.max(initial=0)) for v in values.values())))
    axes.set_ylim(0, 1)
    if len(values) > 1:
        _legend(axes)
    return drawn


@styled()
def training_plot(epochs: Sequence[float], losses: Floats, shares: Mapping[str, Floats]) -> Figure:
    """Accuracies and the loss after each epoch, side by side."""
    from matplotlib.ticker import MaxNLocator

    drawn, (left, right) = figure(width=7.8, height=2.8, columns=2)
    mark = _mark(len(epochs))
    for number, (name, values) in enumerate(shares.items()):
        left.plot(epochs, values, **mark, **_line(number), label=name)
    left.set_ylabel("accuracy")
    _legend(left)
    right.plot(epochs, losses, **mark, **_line(2))
    right.set_ylabel("loss")
    for axes in (left, right):
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    return drawn


@styled()
def sweep_plot(words: Sequence[int], index: Sequence[float], title: str = "") -> Figure:
    """The Davies-Bouldin index over vocabulary sizes, rising, with the lowest marked."""
    drawn, (axes,) = figure()
    axes.plot(words, index, marker="o", markersize=4, **_line(0))
    best = int(np.argmin(index))
    told = f"{words[best]:,} words: {index[best]:.3f}"
    axes.plot(words[best], index[best], "o", markersize=9, color=WRONG, label=told)
    axes.set_xlabel("words in the vocabulary")
    axes.set_ylabel("Davies-Bouldin index (lower is better)")
    axes.set_title(title)
    _legend(axes)
    return drawn


@styled()
def bars_plot(
    values: Floats, title: str, colour: str, *, named: Sequence[int] = (), percent: bool = False
) -> Figure:
    """A bar for each of the non-negative `values` (k,); bars `named` carry their number.

    Even the smallest positive value is visible. If labels would overlap, the first of `named` win.
    """
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    width = min(26.0, max(7.0, len(values) / 100))
    drawn, (axes,) = figure(width, 1.7)
    highest = float(values.max(initial=0)) or 1.0
    shown = np.flatnonzero(values > 0)
    thick = max(_PIXEL, 0.75 * _POINTS * width / len(values))
    heights = np.maximum(values[shown], highest / 50)
    bars = axes.vlines(shown, 0, heights, colors=colour, linewidth=thick, antialiased=False)
    bars.set_capstyle("butt")
    room, placed = 1 + len(values) / 28, list[int]()
    for number in named:
        if all(abs(number - other) >= room for other in placed):
            placed.append(number)
            axes.text(number, values[number], str(number), ha="center", va="bottom", fontsize=7)
    axes.set_xlim(-1 - len(values) / 100, len(values) * 1.01)
    axes.set_ylim(0, 1.15 * highest)
    axes.set_title(title, loc="left", color=SOFT)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(visible=False, axis="x")
    if percent:
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    return drawn


def _line(number: int) -> dict[str, Any]:
    return {"color": SERIES[number % len(SERIES)], "linestyle": DASHES[number % len(DASHES)]}


def _mark(points: int) -> dict[str, Any]:
    """Markers for short curves: without one, a single point is invisible."""
    return {"marker": "o" if points <= 12 else "none", "markersize": 4}


def _finish_curves(axes: Axes, x_title: str, y_title: str, by_chance: Mapping[str, float]) -> None:
    one = len({round(value, 3) for value in by_chance.values()}) == 1
    for number, (name, value) in enumerate(list(by_chance.items())[: 1 if one else None]):
        axes.axhline(
            value,
            color=SOFT if one else SERIES[number],
            linewidth=1,
            linestyle=(0, (2, 3)),
            label="by chance" if one else f"by chance, {name}",
        )
    axes.set_xlabel(x_title)
    axes.set_ylabel(y_title)
    axes.set_ylim(0, 1)
    _legend(axes)


def _legend(axes: Axes) -> None:
    axes.legend(loc="best", handlelength=2.6, fontsize=8.5)


def _plain(name: str) -> str:
    """`name` for a legend, which ignores names that begin with an underscore."""
    name = _short(name, 40)
    return f"\u200a{name}" if name.startswith("_") else name


def _short(name: str, length: int = _NAME_LENGTH) -> str:
    return name if len(name) <= length else f"{name[: length - 1]}…"
