"""`cbir tune`: searches the settings that train the best network on labelled images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cbir.cli.trained import label_options, label_words, labelled_sources

if TYPE_CHECKING:
    from cbir.training.tuning.journal import TrialRecord


@click.command(short_help="Search the best settings for training.")
@click.argument("source", metavar="SOURCE")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    metavar="DIR",
    help="The folder of this run, for best.json and trials.json.",
)
@click.option(
    "--trials", type=click.IntRange(1), default=20, show_default=True, help="Settings to try."
)
@click.option(
    "--epochs", type=click.IntRange(1), default=8, show_default=True, help="Epochs of a trial."
)
@click.option(
    "--space",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="The search space as TOML, instead of the default one.",
)
@click.option("--backbone", metavar="NAME", help="The backbone of all trials.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Take N random images.")
@label_options
@click.option("--seed", default=0, show_default=True, help="Seed of all random choices.")
@click.option(
    "--cpus",
    type=click.IntRange(1),
    metavar="N",
    help="Cores for each trial; by default all trials share them.",
)
@click.option(
    "--gpus",
    type=click.FloatRange(0),
    metavar="N",
    help="GPUs for each trial, such as 0.5; by default one, if there is any.",
)
@click.option("--ray", metavar="HOST:PORT", help="Use this Ray cluster instead of this machine.")
@click.option("--json", "as_json", is_flag=True, help="Print the best and all trials as JSON.")
def command(
    source: str,
    out: Path,
    trials: int,
    epochs: int,
    space: Path | None,
    backbone: str | None,
    limit: int | None,
    label_from_folder: bool,
    metadata: tuple[Path, ...],
    seed: int,
    cpus: int | None,
    gpus: float | None,
    ray: str | None,
    as_json: bool,
) -> None:
    """Search the settings that train the best network on a labelled SOURCE.

    Ray Tune trains networks with different settings, and ASHA ends bad ones early. A tenth of the
    images is held out to compare them. After an interruption, the same command resumes.
    """
    import shlex
    import sys
    from dataclasses import asdict

    from cbir.cli.output import print_json, print_table, progress_stages, say
    from cbir.registry import require_extra
    from cbir.wording import shell_words

    opened, _ = labelled_sources(source, None, label_from_folder, metadata)
    require_extra("cbir tune", "train", "ray", "torch")
    from cbir.training.tuning.search_space import read_space
    from cbir.training.tuning.tune import BEST_FILE, JOURNAL_FILE, tune

    try:
        with progress_stages() as on_stage:
            best, ranked = tune(
                opened,
                out,
                read_space(space) if space else None,
                trials=trials,
                epochs=epochs,
                seed=seed,
                backbone=backbone,
                limit=limit,
                cpus=cpus,
                gpus=gpus,
                address=ray,
                command=shlex.join(["cbir", *sys.argv[1:]]),
                say=say,
                on_stage=on_stage,
            )
    except KeyboardInterrupt:
        if (out / JOURNAL_FILE).exists():
            say("complete epochs are kept; the same command resumes")
        raise
    if as_json:
        print_json({"best": best, "trials": [asdict(record) for record in ranked]})
    else:
        print_table(_HEADER, [_row(record) for record in ranked])
    say(f"best settings: {out / BEST_FILE}")
    again = ["cbir", "train", "cnn", source, "--from", str(out / BEST_FILE), "--name", "NAME"]
    say(f"next: {shell_words([*again, *label_words(label_from_folder, metadata)])}")


_HEADER = ("trial", "state", "epochs", "held-out nAP@100", "accuracy", "seconds", "settings")


def _row(record: TrialRecord) -> tuple[str, ...]:
    from cbir.training.tuning.tune import changed

    return (
        str(record.trial),
        record.state,
        str(len(record.epochs)),
        "" if record.quality is None else f"{record.quality:.4f}",
        f"{record.accuracy:.4f}" if record.epochs else "",
        f"{record.seconds:.0f}",
        record.reason or changed(record),
    )
