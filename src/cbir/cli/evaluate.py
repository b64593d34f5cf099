"""`cbir evaluate`: measures the quality of search results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cbir.cli.options import descriptor_option, expand_option, metadata_option

_WITH_RECALL = frozenset(
    ("recall_at", "indexes", "queries", "sample", "label_from_folder", "as_json", "descriptor")
)
_WITH_QRELS = frozenset(
    ("qrels", "runs", "measures", "label_from_folder", "per_query", "report", "as_json")
)


@click.command(short_help="Measure the quality of search results.")
@click.argument("runs", metavar="RUN...", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--qrels",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Judge the RUN files by this file.",
)
@click.option(
    "--in",
    "indexes",
    multiple=True,
    metavar="INDEX",
    help="Search this index; may repeat to compare indexes.",
)
@click.option("--queries", metavar="SOURCE", help="Labelled images to use as queries.")
@click.option(
    "-m", "--measure", "measures", multiple=True, metavar="NAME", help="AP@100, nDCG@10 ..."
)
@click.option(
    "--sample", type=click.IntRange(1), metavar="N", help="Use N queries, chosen at random."
)
@expand_option
@metadata_option("the labels of queries")
@click.option(
    "--protocol",
    type=click.Choice(["usual", "unseen", "both"]),
    default="both",
    show_default=True,
    help="Search the index (usual), or the queries among each other (unseen: leave-one-out).",
)
@click.option(
    "--hamming",
    "bits",
    type=click.IntRange(1),
    metavar="BITS",
    help="Also measure binary codes of this length.",
)
@click.option(
    "--shuffle-ids",
    "shuffle",
    type=click.IntRange(0),
    metavar="SEED",
    help="Break ties at random by this seed, not by id.",
)
@click.option(
    "--without-near-duplicates",
    is_flag=True,
    help="Leave out queries that have a near-duplicate in the index.",
)
@click.option(
    "--recall",
    "recall_at",
    type=click.IntRange(1),
    metavar="K",
    help="Measure recall at K of the index's own search instead; needs no labels.",
)
@click.option("--label-from-folder", is_flag=True, help="Label each query with its folder's name.")
@click.option(
    "--per-query",
    type=click.Path(path_type=Path),
    metavar="FILE.csv",
    help="Write the values of every query to this file.",
)
@click.option(
    "--report",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Write a report into this folder.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
@descriptor_option
@click.pass_context
def command(
    context: click.Context,
    /,
    runs: tuple[Path, ...],
    qrels: Path | None,
    indexes: tuple[str, ...],
    queries: str | None,
    measures: tuple[str, ...],
    recall_at: int | None,
    **asked: Any,
) -> None:
    """Evaluate run files (--qrels Q RUN...), or an index with labelled queries (--in, --queries).

    nAP@100 divides by min(100, relevant images); AP@100 is trec_eval's map_cut_100, divided by all
    relevant images; AP reads the whole ranking. Search is exact. The usual protocol searches the
    index; leave-one-out searches the queries among each other. Several run files or indexes are
    compared by a paired randomisation test, bootstrap intervals, wins and losses, and by class.
    """
    if recall_at is not None:
        _refuse_others(context, "--recall", _WITH_RECALL)
        if len(indexes) != 1 or queries is None:
            raise click.UsageError("--recall needs one --in INDEX and --queries SOURCE")
        from cbir.cli.evaluate_indexes import evaluate_recall

        evaluate_recall(indexes[0], queries, recall_at, **_only(asked, _WITH_RECALL))
    elif qrels is not None and runs:
        _refuse_others(context, "--qrels", _WITH_QRELS)
        from cbir.cli.evaluate_runs import evaluate_runs

        evaluate_runs(qrels, runs, measures, **_only(asked, _WITH_QRELS))
    elif indexes and queries is not None and not runs and qrels is None:
        from cbir.cli.evaluate_indexes import evaluate_indexes

        evaluate_indexes(indexes, queries, measures, **asked)
    else:
        raise click.UsageError("give --qrels Q RUN..., or --in INDEX --queries SOURCE")


def _only(asked: dict[str, Any], allowed: frozenset[str]) -> dict[str, Any]:
    return {name: value for name, value in asked.items() if name in allowed}


def _refuse_others(context: click.Context, mode: str, allowed: frozenset[str]) -> None:
    """Refuse options that do not apply to `mode`."""
    for parameter in context.command.params:
        name = parameter.name or ""
        given = context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
        if given and name not in allowed:
            shown = "RUN" if isinstance(parameter, click.Argument) else parameter.opts[0]
            raise click.UsageError(f"{shown} cannot be used with {mode}")
