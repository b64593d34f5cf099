"""Evaluates run files against qrels, and warns of likely mistakes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from cbir.errors import QueryError
from cbir.images.members import label_of
from cbir.measures.significance import class_means, mean_intervals
from cbir.measures.trec_eval import RunMeasures, cut_short, evaluate_run
from cbir.types import OnDone
from cbir.wording import counted, listed, nearest

_LOOKED_AT = 10_000
"""How many query ids are searched for a similar one."""

Qrels = Mapping[str, dict[str, int]]
Run = Mapping[str, Sequence[tuple[str, float]]]


@dataclass(frozen=True)
class JudgedRun:
    """A run, its `name`, and its measures over the queries of the qrels.

    `labels` (q,): the queries' classes, None if classes were not requested. `notes`: likely
    mistakes that lower the figures.
    """

    name: str
    measures: RunMeasures
    labels: Sequence[str | None] | None
    notes: list[str]

    def to_json(self) -> dict[str, Any]:
        """As in `cbir evaluate --qrels --json`."""
        values = self.measures.values
        figures = {
            "name": self.name,
            "n_queries": len(self.measures.queries),
            "missing_queries": self.measures.missing,
            "unjudged_queries": self.measures.unjudged,
            "measures": self.measures.means,
            "intervals": mean_intervals(values),
        }
        if self.labels:
            classes = class_means(values, self.labels)
            figures["classes"] = {label: asdict(of) for label, of in classes.items()}
        return figures


def judge_run(
    name: str,
    qrels: Qrels,
    run: Run,
    measures: Iterable[str],
    labels: Sequence[str | None] | None = None,
    on_done: OnDone = lambda _done, _total: None,
) -> JudgedRun:
    """Judge `run`, named `name`, by `qrels`; see `evaluate_run`."""
    found = evaluate_run(qrels, run, measures, on_done)
    return JudgedRun(name, found, labels, _notes(name, qrels, run, found))


def require_answers(qrels: Qrels, run: Run, qrels_path: Path, run_path: Path) -> None:
    """Raise `QueryError` if the run answers no query of the qrels, so every figure is 0."""
    if qrels.keys().isdisjoint(run):
        asked, first = next(iter(run)), next(iter(qrels))
        meant = nearest(asked, islice(qrels, _LOOKED_AT)) or first
        raise QueryError(
            f"{run_path} answers none of the queries of {qrels_path}",
            f"the run has '{asked}', the qrels have '{meant}': "
            "write both for the same SOURCE and INDEX",
        )


def folder_labels(qrels: Qrels, qrels_path: Path) -> list[str | None]:
    """The folder in each query id, which `open_source` takes as the label."""
    folders = [
        label_of(key, source) if slash else None
        for source, slash, key in (query.partition("/") for query in qrels)
    ]
    if not any(folders):
        raise QueryError(
            f"no query id of {qrels_path} names a folder, so there are no classes",
            "omit --label-from-folder",
        )
    return folders


def _notes(name: str, qrels: Qrels, run: Run, found: RunMeasures) -> list[str]:
    lines = []
    if found.missing:
        missing = counted(len(found.missing), "query")
        lines.append(f"{name}: {missing} not answered, counted as 0 ({listed(found.missing)}).")
    if found.unjudged:
        unjudged = counted(len(found.unjudged), "query")
        lines.append(
            f"{name}: {unjudged} unknown to the qrels, not counted ({listed(found.unjudged, 3)})."
        )
    answered = [query for query in qrels if run.get(query)]
    if not any(document in qrels[query] for query in answered for document, _ in run[query]):
        ranked, known = run[answered[0]][0][0], next(iter(qrels[answered[0]]))
        lines.append(
            f"{name}: no document is in the qrels; it ranks '{ranked}', they have '{known}'."
        )
    longest, short = cut_short(qrels, run, found.means)
    if short:
        count = "count" if len(short) > 1 else "counts"
        lines.append(
            f"{name}: rankings have {counted(longest, 'rank')} at most; {', '.join(short)} {count} "
            "the missing ranks as wrong."
        )
    return lines
