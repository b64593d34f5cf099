"""Charts of a training run, from the model's card: curves, confusion matrix, scores by class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any

import numpy as np

from cbir.descriptors.cards import ModelCard
from cbir.report.classes import MANY_CLASSES, PAIRS, WIDE_FROM, best_and_worst, shown_classes
from cbir.report.content import Block, Plot, Table
from cbir.report.plot_style import png, styled
from cbir.report.plots import matrix_plot, scores_plot, training_plot
from cbir.report.statistics import Floats
from cbir.training.classification import Classification, classification_of
from cbir.wording import counted, percent

_MOST_IN_A_FILE = 120
_PREFIX = "training-"


@styled()
def training_pictures(card: ModelCard) -> dict[str, bytes]:
    """PNG files of a model's training by name: curves.png, confusion.png and classes.png.

    Leaves out what the card has no data for. Needs matplotlib.
    """
    files = {}
    for block in training_blocks(card, _MOST_IN_A_FILE):
        if isinstance(block, Plot):
            block.figure.suptitle(f"{fill(card.name, 50)}\n{block.title}", fontsize=9)
            files[f"{block.name.removeprefix(_PREFIX)}.png"] = png(block.figure)
    return files


def training_blocks(card: ModelCard, most: int = MANY_CLASSES) -> list[Block]:
    """Charts and tables of a model's training, none if the card has no data for them.

    Charts of more than `most` classes show a selection.
    """
    log, found = card.training.get("log"), classification_of(card)
    blocks: list[Block] = [_curves(log)] if isinstance(log, list) and log else []
    if found is not None:
        matrix = _matrix(found, card.classes, most)
        blocks += [matrix, *_confusions(found, matrix.wide), _scores(found, most), _report(found)]
    return blocks


def _curves(log: Sequence[Mapping[str, Any]]) -> Plot:
    epochs = [float(row["epoch"]) for row in log]
    shares = {
        "training images": _column(log, "train_accuracy"),
        "held-out images": _column(log, "held_out_accuracy"),
    }
    shares = {name: values for name, values in shares.items() if np.isfinite(values).any()}
    last = ", ".join(f"{name} {values[-1]:.3f}" for name, values in shares.items())
    return Plot(
        f"{_PREFIX}curves",
        "Accuracy and loss, epoch by epoch",
        training_plot(epochs, _column(log, "loss"), shares),
        f"Lines over {counted(len(log), 'epoch')}: accuracy and loss. Final accuracy: {last}.",
        f"Final accuracy: {last}. Held-out images were not used for training.",
        wide=True,
    )


def _matrix(found: Classification, classes: Sequence[str], most: int) -> Plot:
    counts = found.counts(classes)
    present = np.flatnonzero(counts.sum(axis=1))
    shares = np.full(counts.shape, np.nan)
    shares[present] = counts[present] / counts[present].sum(axis=1, keepdims=True)
    pairs = found.most_confused(PAIRS)
    numbers = [(classes.index(label), classes.index(predicted)) for label, predicted, _ in pairs]
    rows, columns = shown_classes(shares, present, numbers, most)
    title = f"Confusion matrix of {counted(found.images, 'held-out image')}, in percent"
    if len(rows) < len(present):
        which = "classes most often confused" if pairs else "first classes"
        title += f": the {len(rows)} {which}, of {len(present)}"
    said = "All predictions are right."
    if pairs:
        label, predicted, share = pairs[0]
        said = (
            f"Most frequent confusion: {label} mistaken for {predicted} "
            f"({percent(share)} of its images)."
        )
    return Plot(
        f"{_PREFIX}confusion",
        title,
        matrix_plot(
            [classes[row] for row in rows],
            [classes[column] for column in columns],
            shares[np.ix_(rows, columns)],
            ("true class", "predicted class"),
        ),
        f"Rows are true classes, columns predicted classes. {said}",
        f"Rows: true classes; columns: predicted classes. Blue is right, orange is wrong. {said}",
        wide=len(columns) > WIDE_FROM,
    )


def _confusions(found: Classification, wide: bool) -> list[Table]:
    rows = [
        [label, predicted, percent(share)] for label, predicted, share in found.most_confused(PAIRS)
    ]
    header = ["images of", "predicted as", "share of these images"]
    title = "The most frequent confusions of held-out images"
    return [Table(title, header, rows, numbers=False, wide=wide)] if rows else []


def _scores(found: Classification, most: int) -> Plot:
    best_first = found.best_first()
    drawn, some = best_and_worst(best_first, most)
    scores = [found.by_class[label] for label in drawn]
    figure = scores_plot(
        drawn,
        [one.support for one in scores],
        {
            "precision": np.array([one.precision for one in scores]),
            "recall": np.array([one.recall for one in scores]),
            "F1": np.array([one.f1 for one in scores]),
        },
    )
    said = (
        f"Mean F1 of the classes: {found.mean_f1:.3f}. "
        f"Best: {best_first[0]}. Worst: {best_first[-1]}."
    )
    return Plot(
        f"{_PREFIX}classes",
        f"Scores by class of {counted(found.images, 'held-out image')}{some and f': {some}'}",
        figure,
        f"Three bars for each class. {said}",
        f"In brackets: the number of images. {said}",
        wide=True,
    )


def _report(found: Classification) -> Table:
    scores = [(label, found.by_class[label]) for label in found.best_first()]
    return Table(
        "Classification report of the held-out images",
        ["class", "precision", "recall", "F1", "images"],
        [
            [label, *(f"{v:.3f}" for v in (one.precision, one.recall, one.f1)), f"{one.support:,}"]
            for label, one in scores
        ],
        folded=True,
    )


def _column(log: Sequence[Mapping[str, Any]], name: str) -> Floats:
    return np.array([float(row.get(name, np.nan)) for row in log])
