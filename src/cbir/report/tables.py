"""The tables and sentences of an evaluation, the same for every writer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from cbir.evaluation import ComparedEvaluations, Evaluation
from cbir.evaluation.hamming import Hamming
from cbir.evaluation.judging import JudgedRun
from cbir.evaluation.protocols import OneProtocol
from cbir.evaluation.recall import Recall
from cbir.evaluation.result import notes
from cbir.measures.significance import (
    ClassMeans,
    Comparison,
    Values,
    class_means,
    mean_intervals,
)
from cbir.report.content import Table, Text
from cbir.wording import counted

USUAL, LEAVE_ONE_OUT = "usual protocol", "leave-one-out"
TITLES: Mapping[OneProtocol, str] = {"usual": USUAL, "unseen": LEAVE_ONE_OUT}

AP_NOTE = (
    "AP@k is trec_eval's map_cut_k: divided by all R relevant images, it cannot exceed k / R. "
    "nAP@k divides by min(k, R), so it can reach 1."
)

Words = list[Text | Table]
Means = Mapping[str, float]
_Column = tuple[str, Mapping[str, str]]


def main_measure(names: Iterable[str]) -> str:
    """The measure that a report details: nAP@k if it is among them."""
    known = list(names)
    return next((name for name in known if name.startswith("nAP")), known[0])


# --- the terminal output of each kind of evaluation ---------------------------------------------


def evaluation_words(evaluation: Evaluation) -> Words:
    """One index: measures under each protocol, notes, accuracy and times."""
    memory = _memory([evaluation])
    queries = counted(evaluation.n_queries, "query")
    accuracy = accuracies(evaluation)
    coded, seconds = evaluation.hamming, evaluation.seconds
    return [
        Text(f"{evaluation.descriptor}: {queries}, {evaluation.n_indexed:,} indexed{memory}"),
        measures_table(evaluation),
        *([codes_table(coded)] if coded else []),
        *(Text(note, note=True) for note in notes(evaluation)),
        *([Text(f"accuracy of the model's own classifier: {accuracy}")] if accuracy else []),
        Text(
            f"described in {seconds['describe']:.1f} s, searched in {seconds['search']:.1f} s, "
            f"measured in {seconds['measure']:.1f} s"
        ),
    ]


def compared_words(compared: ComparedEvaluations) -> Words:
    """Several indexes: what they are, measures under each protocol, comparisons and notes."""
    return [
        indexes_table(compared),
        *means_tables(compared),
        *comparisons_of(compared),
        *(Text(note, note=True) for note in notes_of_all(compared)),
    ]


def runs_words(runs: Sequence[JudgedRun], comparisons: Sequence[Comparison]) -> Words:
    """Run files: measures and comparisons, and the classes of a single run."""
    labels = runs[0].labels if len(runs) == 1 else None
    classes = class_means(runs[0].measures.values, labels) if labels else {}
    return [
        runs_table(runs),
        *comparison_words(comparisons),
        *([class_table("Class by class", classes)] if classes else []),
    ]


def recall_words(recall: Recall) -> Words:
    """The recall of an index, and the time of a query."""
    figures = recall.to_json()
    exactly = "" if recall.exact_ms is None else f", exactly {recall.exact_ms:.2f} ms"
    lines = [
        f"recall@{recall.k} {figures['recall']:.4f} against exact search: "
        f"{counted(figures['n_queries'], 'query')} that are not indexed, "
        f"{recall.n_indexed:,} indexed",
        f"all {recall.k} found for {figures['complete']:.1%} of the queries; "
        f"worst query {figures['worst']:.2f}",
        f"a single query takes {recall.own_ms:.2f} ms{exactly} (median, n={recall.timed})",
    ]
    if recall.exact:
        lines.append("search in this index is exact")
    if recall.left_out:
        lines.append(f"left out because they are indexed themselves: {recall.left_out:,}")
    return [Text(line) for line in lines]


# --- tables that report pages share -------------------------------------------------------------


def measures_table(evaluation: Evaluation) -> Table:
    """The mean of every measure under each protocol, with its interval."""
    columns: list[_Column] = []
    for protocol, values in evaluation.values.items():
        columns += [(TITLES[protocol], _figures(evaluation.means[protocol])), _intervals(values)]
    return _by_measure(f"All measures{_memory([evaluation])}", columns, wide=len(columns) > 2)


def codes_table(coded: Hamming) -> Table:
    """Means with binary codes under each protocol."""
    title = f"Codes of {coded.bits} bits (seed {coded.seed}), ranked by Hamming distance"
    return _by_measure(title, [(TITLES[p], _figures(means)) for p, means in coded.means.items()])


def indexes_table(compared: ComparedEvaluations) -> Table:
    """The indexes, with the accuracy of each model's own classifier."""
    parts = {"training_images": "accuracy, training images", "queries": "accuracy, queries"}
    accuracy = [one.accuracy or {} for one in compared.evaluations]
    known = [part for part in parts if any(of.get(part) is not None for of in accuracy)]
    rows = [
        [
            *(name, one.descriptor, f"{one.n_queries:,}"),
            f"{one.n_indexed:,}{' training images' if one.training_images_indexed else ''}",
            *("–" if (share := of.get(part)) is None else f"{share:.4f}" for part in known),
        ]
        for name, one, of in zip(compared.names, compared.evaluations, accuracy, strict=True)
    ]
    header = ["index", "descriptor", "queries", "indexed", *(parts[part] for part in known)]
    return Table("The indexes", header, rows, wide=True)


def means_tables(compared: ComparedEvaluations) -> list[Table]:
    """Means of all indexes under each shared protocol, then means with binary codes."""
    evaluations = compared.evaluations
    tables = []
    for protocol in compared.comparisons:
        memory = _memory(evaluations) if protocol == "usual" else ""
        means = [one.means[protocol] for one in evaluations]
        tables.append(_means_table(f"{TITLES[protocol]}{memory}", compared.names, means))
    coded = [one.hamming for one in evaluations if one.hamming is not None]
    for protocol in coded[0].means if coded else ():
        if all(protocol in one.means for one in coded):
            title = f"{TITLES[protocol]}, codes of {coded[0].bits} bits (seed {coded[0].seed})"
            means = [one.means[protocol] for one in coded]
            tables.append(_means_table(title, compared.names, means))
    return tables


def runs_table(runs: Sequence[JudgedRun]) -> Table:
    """The mean of every measure for each run, with intervals for a single run."""
    columns = [(run.name, _figures(run.measures.means)) for run in runs]
    if len(runs) == 1:
        columns.append(_intervals(runs[0].measures.values))
    return _by_measure("All measures, mean over the queries of the qrels", columns, wide=True)


def comparisons_of(compared: ComparedEvaluations) -> Words:
    """The comparisons under each protocol."""
    found: Words = []
    for protocol, comparisons in compared.comparisons.items():
        found += comparison_words(comparisons, f", {TITLES[protocol]}")
    return found


def comparison_words(comparisons: Sequence[Comparison], under: str = "") -> Words:
    """A sentence on one measure and a table of all measures for each pair; then by class."""
    if not comparisons:
        return []
    main = main_measure(one.measure for one in comparisons)
    of_main = [one for one in comparisons if one.measure == main]
    words: Words = []
    for pair in of_main:
        of_pair = [one for one in comparisons if (one.a, one.b) == (pair.a, pair.b)]
        words += [Text(pair.in_words), _comparison_table(of_pair, under)]
    return [*words, *([_differences_table(of_main, under)] if of_main[0].classes else [])]


def class_table(title: str, classes: Mapping[str, ClassMeans], folded: bool = False) -> Table:
    """A row per class, a column per measure."""
    measures = list(next(iter(classes.values())).measures)
    return Table(
        title,
        ["class", "queries", *measures],
        [
            [label, f"{of.n_queries:,}", *_figures(of.measures).values()]
            for label, of in classes.items()
        ],
        folded=folded,
    )


def accuracies(evaluation: Evaluation) -> str:
    """The accuracies of the model's own classifier, "" if it has none."""
    known = (evaluation.accuracy or {}).items()
    return ", ".join(
        f"{share:.4f} on the {part.replace('_', ' ')}" for part, share in known if share is not None
    )


def notes_of_all(compared: ComparedEvaluations) -> list[str]:
    """The caveats of all evaluations; one that applies to all indexes appears once."""
    evaluations = compared.evaluations
    told = [notes(one) for one in evaluations]
    of_all = [note for note in told[0] if all(note in others for others in told)]
    of_one = [
        f"{name}: {note}"
        for name, own in zip(compared.names, told, strict=True)
        for note in own
        if note not in of_all
    ]
    sizes = {one.n_indexed for one in evaluations}
    differ = "The indexes hold different numbers of images, which by itself changes figures."
    return [*of_all, *of_one, *([differ] if len(sizes) > 1 else [])]


# --- cells --------------------------------------------------------------------------------------


def _memory(evaluations: Sequence[Evaluation]) -> str:
    known = any(one.training_images_indexed and "usual" in one.means for one in evaluations)
    return " (index = training images)" if known else ""


def _figures(means: Means) -> Mapping[str, str]:
    return {name: f"{mean:.4f}" for name, mean in means.items()}


def _intervals(values: Mapping[str, Values]) -> _Column:
    intervals = mean_intervals(values).items()
    return "95% interval", {name: f"{low:.4f} to {high:.4f}" for name, (low, high) in intervals}


def _means_table(title: str, names: Sequence[str], means: Sequence[Means]) -> Table:
    columns = [(name, _figures(of)) for name, of in zip(names, means, strict=True)]
    return _by_measure(f"All measures, {title}", columns, wide=len(names) > 2)


def _by_measure(title: str, columns: Sequence[_Column], wide: bool = False) -> Table:
    return Table(
        title,
        ["measure", *(name for name, _ in columns)],
        [[measure, *(of[measure] for _, of in columns)] for measure in columns[0][1]],
        wide=wide,
    )


def _comparison_table(of_pair: Sequence[Comparison], under: str) -> Table:
    first = of_pair[0]
    corrected = first.pairs > 1
    return Table(
        f"{first.b} (b) against {first.a} (a){under}; * is significant",
        [
            *("measure", "b - a", "95% interval", "p", *(["p corrected"] if corrected else [])),
            *("b wins", "ties", "losses"),
        ],
        [
            [
                one.measure,
                f"{one.difference:+.4f}",
                "{:+.4f} to {:+.4f}".format(*one.interval),
                *([f"{one.p:.4f}"] if corrected else []),
                f"{'* ' if one.significant else ''}{one.p_adjusted:.4f}",
                *(f"{count:,}" for count in (one.wins, one.ties, one.losses)),
            ]
            for one in of_pair
        ],
        wide=True,
    )


def _differences_table(of_main: Sequence[Comparison], under: str) -> Table:
    """One measure by class, with a column for each run; largest differences first."""
    first = of_main[0]
    with_first = [one for one in of_main if one.a == first.a]
    means = {
        label: [of.mean_a, *(one.classes[label].mean_b for one in with_first)]
        for label, of in first.classes.items()
    }
    two = len(with_first) == 1
    return Table(
        f"{first.measure} class by class{under}",
        ["class", "queries", first.a, *(one.b for one in with_first), *(["b - a"] if two else [])],
        [
            [
                label,
                f"{first.classes[label].n_queries:,}",
                *(f"{mean:.4f}" for mean in of),
                *([f"{first.classes[label].difference:+.4f}"] if two else []),
            ]
            for label, of in sorted(means.items(), key=lambda row: min(row[1]) - max(row[1]))
        ],
        folded=True,
    )
