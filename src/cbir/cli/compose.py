"""`cbir compose`: join indexes of the same images without describing them again."""

from __future__ import annotations

import click

from cbir.cli.options import INDEX


@click.command(short_help="Join indexes of the same images into one, by weight.")
@click.argument("sources", metavar="INDEX...", nargs=-1, required=True)
@click.option(
    "--into", required=True, type=INDEX, metavar="INDEX", help="The index to add to or create."
)
@click.option(
    "--weights",
    metavar="W,W,...",
    help="One weight per INDEX; they add up to 1. [default: equal weights]",
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def command(sources: tuple[str, ...], into: str, weights: str | None, as_json: bool) -> None:
    """Join indexes of the same images into one, as if indexed with the composed descriptor.

    Its score is the weighted sum of their scores. Nothing is described again. An image is left out
    unless every INDEX has it, with the same content. Labels and metadata come from the first INDEX
    that has them. Images that the new index already has are not written again.
    """
    from dataclasses import asdict

    from cbir.cli.output import print_json, progress_bar, say, show
    from cbir.ingest.compose import compose_indexes
    from cbir.wording import counted

    shares = None if weights is None else _numbers(weights)
    try:
        with progress_bar("composing") as update:
            report = compose_indexes(sources, into, shares, on_done=update)
    except KeyboardInterrupt:
        say("composed images are kept; the same command resumes")
        raise
    if as_json:
        print_json(asdict(report))
        return
    show(
        f"{into}: {counted(report.added, 'image')} added, {report.unchanged:,} already there, "
        f"in {report.seconds:.1f} s ({report.descriptor})"
    )
    for reason, count in report.left_out.items():
        example = report.left_out_examples[reason]
        show(f"{counted(count, 'image')} left out, {reason}: for example {example!r}")
    if report.conflicts:
        show(
            f"{counted(report.conflicts, 'conflict')}; the first index with a value counts: "
            f"for example the {report.conflict_example}"
        )


def _numbers(text: str) -> list[float]:
    try:
        return [float(word) for word in text.split(",")]
    except ValueError:
        raise click.BadParameter(
            f"'{text}' is not a list of numbers, such as 0.7,0.3", param_hint="--weights"
        ) from None
