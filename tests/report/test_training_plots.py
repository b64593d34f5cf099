"""Charts of a training run: what they show is what the card says."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from cbir.descriptors.bovw import BovwDescriptor
from cbir.descriptors.cards import ModelCard
from cbir.images.decode import decode
from cbir.report.content import Plot, Report, Section, Table
from cbir.report.markdown import markdown
from cbir.report.model import model_sections
from cbir.report.page import page
from cbir.report.training_plots import training_blocks, training_pictures
from tests.descriptors import support_bovw

pytest.importorskip("matplotlib", reason="needs the `evaluation` extra")

CLASSES = ("bird", "cat", "dog", "unseen")
COUNTS = [[6, 1, 1, 0], [0, 5, 0, 0], [2, 1, 3, 1], [0, 0, 0, 0]]
LOG = [
    {"epoch": n, "loss": 2 / n, "train_accuracy": 1 - 1 / n, "held_out_accuracy": 1 - 1.5 / (n + 1)}
    for n in (1, 2, 3)
]


def card(classes: Sequence[str], counts: Sequence[Sequence[int]], **facts: Any) -> ModelCard:
    """The card of a model with this confusion matrix; scores by definition, F1 from counts."""
    matrix = np.array(counts)
    scores = {
        label: {
            "precision": matrix[n, n] / max(1, matrix[:, n].sum()),
            "recall": matrix[n, n] / matrix[n].sum(),
            "f1": 2 * matrix[n, n] / (matrix[n].sum() + matrix[:, n].sum()),
            "support": int(matrix[n].sum()),
        }
        for n, label in enumerate(classes)
        if matrix[n].any()
    }
    confusion = {
        label: {c: int(n) for c, n in zip(classes, row, strict=True) if n}
        for label, row in zip(classes, counts, strict=True)
        if any(row)
    }
    facts["classification"] = {"confusion": confusion, "by_class": scores}
    return with_training(tuple(classes), **facts)


def with_training(classes: tuple[str, ...] = (), **facts: Any) -> ModelCard:
    made = support_bovw.card(support_bovw.BLOCKS["hog"])
    return replace(made, classes=classes, training={"images": "x/", **facts})


def charts(made: ModelCard) -> dict[str, Plot]:
    return {block.name: block for block in training_blocks(made) if isinstance(block, Plot)}


def texts(plot: Plot) -> list[str]:
    return [text.get_text() for text in plot.figure.axes[0].texts]


def test_curves_are_those_of_the_log() -> None:
    plot = charts(with_training(log=LOG))["training-curves"]
    accuracy, loss = plot.figure.axes
    lines = {line.get_label(): line for line in accuracy.lines}
    for name, key in (("training images", "train_accuracy"), ("held-out", "held_out_accuracy")):
        [line] = [line for label, line in lines.items() if str(label).startswith(name)]
        assert list(line.get_xdata()) == [1, 2, 3]
        assert list(line.get_ydata()) == [row[key] for row in LOG]
    assert list(loss.lines[0].get_ydata()) == [row["loss"] for row in LOG]
    assert "0.667" in plot.caption and "0.625" in plot.caption


def test_one_epoch_is_visible() -> None:
    [plot] = charts(with_training(log=LOG[:1])).values()
    assert all(line.get_marker() == "o" for axes in plot.figure.axes for line in axes.lines)


def test_cells_are_percent_of_their_row_and_classes_without_images_have_no_row() -> None:
    plot = charts(card(CLASSES, COUNTS))["training-confusion"]
    axes = plot.figure.axes[0]
    shown = {
        (round(text.get_position()[1]), round(text.get_position()[0])): text.get_text()
        for text in axes.texts
    }
    assert shown == {
        (0, 0): "75",
        (0, 1): "12",
        (0, 2): "12",
        (1, 1): "100",
        (2, 0): "29",
        (2, 1): "14",
        (2, 2): "43",
        (2, 3): "14",
    }
    assert [label.get_text() for label in axes.get_yticklabels()] == ["bird", "cat", "dog"]
    assert [label.get_text() for label in axes.get_xticklabels()] == list(CLASSES)
    assert "20 held-out images" in plot.title
    assert "dog mistaken for bird (28.6% of its images)" in plot.caption


def test_bars_are_precision_recall_and_f1_best_first() -> None:
    plot = charts(card(CLASSES, COUNTS))["training-classes"]
    drawn = {
        axes.get_title(loc="left"): [bar.get_width() for bar in axes.patches]
        for axes in plot.figure.axes
    }
    # cat, bird, dog: true positives over predicted, over true, and their harmonic mean.
    assert drawn["precision"] == pytest.approx([5 / 7, 6 / 8, 3 / 4], abs=1e-5)
    assert drawn["recall"] == pytest.approx([5 / 5, 6 / 8, 3 / 7], abs=1e-5)
    assert drawn["F1"] == pytest.approx([10 / 12, 12 / 16, 6 / 11], abs=1e-5)
    rows = [label.get_text() for label in plot.figure.axes[0].get_yticklabels()]
    assert rows == ["cat (5)", "bird (8)", "dog (7)"]


def test_tables_have_the_figures_of_the_charts() -> None:
    blocks = training_blocks(card(CLASSES, COUNTS))
    confused, report = (block for block in blocks if isinstance(block, Table))
    assert confused.rows[:2] == [["dog", "bird", "28.6%"], ["dog", "cat", "14.3%"]]
    assert report.rows[0] == ["cat", "0.714", "1.000", "0.833", "5"]


def test_a_page_shows_a_selection_of_many_classes_and_a_file_all_of_them() -> None:
    names = [f"class {n:02d}" for n in range(40)]
    counts = (np.eye(40, dtype=int) * 9).tolist()
    counts[7][31], counts[22][3] = 5, 4
    made = card(names, counts, log=LOG)
    plots = charts(made)
    matrix = plots["training-confusion"].figure.axes[0]
    shown = [label.get_text() for label in matrix.get_yticklabels()]
    assert shown == ["class 03", "class 07", "class 22", "class 31"]
    assert "the 4 classes most often confused, of 40" in plots["training-confusion"].title
    assert len(plots["training-classes"].figure.axes[0].patches) == 24
    [whole] = [b for b in training_blocks(made, 50) if isinstance(b, Plot) and "conf" in b.name]
    assert len(whole.figure.axes[0].get_yticks()) == 40
    heights = {name: decode(data).shape[0] for name, data in training_pictures(made).items()}
    assert heights["classes.png"] > 40 * 30 and heights["confusion.png"] > 40 * 20


@pytest.mark.parametrize("count", [2, 30, 150])
def test_a_model_that_is_always_right_has_a_diagonal(count: int) -> None:
    names = [f"class {n:03d}" for n in range(count)]
    plots = charts(card(names, (np.eye(count, dtype=int) * 3).tolist()))
    matrix = plots["training-confusion"]
    assert texts(matrix) and set(texts(matrix)) == {"100"}
    assert "All predictions are right" in matrix.caption


def test_pictures_are_png_files_with_ink_and_only_of_what_the_card_knows() -> None:
    assert training_pictures(with_training()) == {}
    assert list(training_pictures(with_training(log=LOG))) == ["curves.png"]
    pictures = training_pictures(card(CLASSES, COUNTS, log=LOG))
    assert list(pictures) == ["curves.png", "confusion.png", "classes.png"]
    for data in pictures.values():
        assert data.startswith(b"\x89PNG")
        assert (decode(data) < 128).any(axis=2).sum() > 500


def test_the_table_of_facts_leaves_out_what_the_charts_show_and_keeps_each_on_a_line() -> None:
    files = support_bovw.small_model(head=True)
    stored = json.loads(files["model.json"])
    stored["training"] = {
        "images": "x/",
        "log": LOG,
        "settings": {"rate": 0.5, "teacher": ["a", "b"]},
        "vectors": {"form": "centred", "tried": {"PCA 8": 0.25}, "weights": "", "p": None},
        "classification": {
            "confusion": {"cat": {"dog": 1}},
            "by_class": {"cat": {"precision": 0, "recall": 0, "f1": 0, "support": 1}},
        },
    }
    model = BovwDescriptor({**files, "model.json": json.dumps(stored).encode()})
    [section] = model_sections(model, None, "")
    facts = next(b for b in section.blocks if isinstance(b, Table) and b.title == "Model card")
    rows = dict(facts.rows)
    assert rows["settings"] == "rate 0.5, teacher a, b"
    assert rows["vectors"] == "form centred, tried (PCA 8 0.25)"
    assert not {"log", "classification"} & set(rows)
    assert [b.name for b in section.blocks if isinstance(b, Plot)] == [
        *("training-curves", "training-confusion", "training-classes")
    ]


def test_html_and_markdown_show_them() -> None:
    blocks = training_blocks(
        card(("<b>", "_x_", "$1$"), [[3, 1, 0], [0, 4, 0], [1, 0, 2]], log=LOG)
    )
    report = Report("r", "", [Section("training", "Training", blocks)])
    html = page(report)
    assert html.count('<svg class="plot"') == 3
    assert "Confusion matrix of 11 held-out images" in html and "<b>" not in html
    text, files = markdown(report)
    names = {f"plots/training-{name}.png" for name in ("curves", "confusion", "classes")}
    assert set(files) == names and all(f"({name})" in text for name in names)
