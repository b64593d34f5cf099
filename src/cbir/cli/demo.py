"""`cbir demo`: download CIFAR-10, index it, evaluate a sample, serve the page."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from cbir.cli.options import access_of, serving_options
from cbir.cli.output import own_command, progress_bar, progress_stages, say
from cbir.files import write_whole
from cbir.wording import shell_word

DESCRIPTORS = {"cifar10": "cifar10-cnn", "digits": "classic"}
FORMAT = 3
"""Version of the stored figures; figures of another version are measured again."""

SAMPLE = 1000
HOW_TO_GET = "set CBIR_DATA to a folder with cifar-10-python.tar.gz, or connect to a network"


@click.command(short_help="Run a demonstration on CIFAR-10: index, evaluate, search page.")
@serving_options
@click.option(
    "--into",
    metavar="PLACE",
    help="Folder or server (elasticsearch://HOST:9200) for the index. [default: CBIR_HOME]",
)
def command(host: str, port: int, into: str | None, **who: Any) -> None:
    """Run a demonstration on CIFAR-10: download, index 50,000 images, evaluate, serve the page.

    The download, the index and the figures are kept, so a second run starts immediately. Without
    CIFAR-10 and without a network, the demo uses scikit-learn's digits.
    """
    from cbir.search.searcher import Searcher
    from cbir.web.serve import check_address, serve

    access = access_of(host, **who)
    check_address(host, port)
    try:
        data = _data_set(into)
        place = _place(data, into)
        figures = _finished(data, place) or _measured(data, place)
    except KeyboardInterrupt:
        say("the download and the indexed images are kept; the same command resumes")
        raise
    _show(figures, data, place)
    with closing(Searcher.open(place)) as searcher:
        serve(
            searcher,
            host,
            port,
            ready=lambda url: say(f"The page is at {url} - drop a picture on it. Ctrl-C stops."),
            access=access,
        )


def _data_set(into: str | None) -> str:
    """`cifar10` if it or its finished demo is available or can be downloaded, else `digits`."""
    from cbir.errors import CbirError
    from cbir.images.cifar10 import absence, download_cifar10, find_cifar10

    if find_cifar10():
        return "cifar10"
    if _finished("cifar10", _place("cifar10", into)):
        return "cifar10"
    say(f"{absence()}; downloading it (170 MB)")
    try:
        with progress_bar("downloading", "MB") as update:
            download_cifar10(update)
    except CbirError as error:
        _require_digits(error)
        say(f"{error.message}; using scikit-learn's digits. For CIFAR-10, {HOW_TO_GET}")
        return "digits"
    return "cifar10"


def _require_digits(no_cifar10: Exception) -> None:
    from importlib.util import find_spec

    from cbir.errors import CbirError, how_to_install

    if find_spec("sklearn") is None:
        raise CbirError(
            "no data set: CIFAR-10 cannot be downloaded and scikit-learn is not installed",
            f"{how_to_install('digits')}, or {HOW_TO_GET}",
        ) from no_cifar10


def _place(data: str, into: str | None) -> str:
    """Where the index goes; it is named after the data set and the descriptor's version."""
    from cbir.descriptors.models import load_descriptor

    name = f"{data}-{load_descriptor(DESCRIPTORS[data]).spec.fingerprint[:8]}"
    if into and "://" in into:
        return f"{into.rstrip('/')}/{name}"
    return str(Path(into or _home()) / f"{name}.cbir")


def _home() -> Path:
    from cbir.home import cbir_home

    return cbir_home() / "demo"


def _origin(data: str) -> str | None:
    """Where the images come from now; None if they are no longer available."""
    from cbir.images.cifar10 import find_cifar10

    found = find_cifar10() if data == "cifar10" else data
    return None if found is None else str(found)


def _finished(data: str, place: str) -> dict[str, Any] | None:
    """The figures of a completed run over the same images, if its index is complete."""
    from cbir.errors import IndexStateError
    from cbir.index.open import index_exists, open_index

    if not _summary(place).exists() or not index_exists(place):
        return None
    kept = json.loads(_summary(place).read_text())
    if kept.get("format") != FORMAT or _origin(data) not in (kept["origin"], None):
        return None
    try:
        with closing(open_index(place)) as index:
            count = index.count()
    except IndexStateError as error:
        raise IndexStateError(
            error.message, f"delete {place} and run the same command again"
        ) from error
    figures: dict[str, Any] = kept["figures"]
    return figures if count == figures["n_indexed"] else None


def _measured(data: str, place: str) -> dict[str, Any]:
    """The figures of a new run, stored once indexing and evaluation are complete."""
    origin = _origin(data)
    _summary(place).parent.mkdir(parents=True, exist_ok=True)
    _index(data, place)
    figures = _evaluate(data, place)
    kept = json.dumps({"format": FORMAT, "origin": origin, "figures": figures})
    write_whole(_summary(place), kept.encode())
    return figures


def _summary(place: str) -> Path:
    """The file of a completed run's figures: next to the index, or in CBIR_HOME for a server's."""
    if "://" in place:
        return _home() / f"{quote(place, safe='')}.json"
    return Path(place).with_suffix(".json")


def _index(data: str, place: str) -> None:
    from cbir.ingest.indexing import index_images

    say(f"indexing {data}:train into {place}")
    with progress_bar("indexing") as update:
        report = index_images(
            [f"{data}:train"],
            place,
            descriptor=DESCRIPTORS[data],
            prune="force",  # the index must match the data set, even if most of it changed
            again=True,
            on_progress=lambda progress: update(progress.done, progress.total),
        )
    if report.interrupted:
        raise KeyboardInterrupt
    new = report.added + report.updated
    if new:
        say(f"{new:,} images in {report.seconds:.1f} s, {new / report.seconds:,.0f} per second")


def _evaluate(data: str, place: str) -> dict[str, Any]:
    import io

    from cbir.evaluation import evaluate
    from cbir.images.sources import open_source
    from cbir.report.tables import evaluation_words
    from cbir.report.terminal import show
    from cbir.search.searcher import Searcher

    source = open_source(f"{data}:test")
    sample = SAMPLE if source.count is None or source.count > SAMPLE else None
    with closing(Searcher.open(place)) as searcher, progress_stages() as update:
        evaluation = evaluate(searcher, source, sample=sample, on_stage=update)
    shown = io.StringIO()
    show(evaluation_words(evaluation), shown, shown)
    return {**evaluation.to_json(), "shown": shown.getvalue()}


def _show(figures: dict[str, Any], data: str, place: str) -> None:
    say(f"{data}: {figures['n_indexed']:,} images in {place}")
    click.echo(figures["shown"], nl=False)
    say(f"In a terminal: {own_command()} search PICTURE --in {shell_word(place)}")
