"""`cbir demo`: get CIFAR-10, index it, evaluate a sample, open the page."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click

from cbir.cli.output import progress_bar, progress_stages, say
from cbir.files import write_whole

if TYPE_CHECKING:
    from cbir.descriptors.contract import Descriptor

DESCRIPTORS = {"cifar10": "cifar10-cnn", "digits": "classic"}
FORMAT = 2
"""Of the figures that are kept; those of another format are measured again."""

SAMPLE = 1000
HOW_TO_GET = (
    "set CBIR_DATA to a folder that holds cifar-10-python.tar.gz, or run again with network"
)


@click.command(short_help="Everything on CIFAR-10: index, evaluate, open the page.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address of the page.")
@click.option("--port", default=5000, show_default=True, help="Port of the page.")
@click.option(
    "--into",
    metavar="PLACE",
    help="Folder or server (elasticsearch://HOST:9200) for the index. [default: CBIR_HOME]",
)
def command(host: str, port: int, into: str | None) -> None:
    """Show everything on CIFAR-10: get it, index 50,000 images, evaluate, serve the page.

    What was fetched, indexed and measured is kept, so a second run starts at once.
    Without CIFAR-10 and without network, the digits that come with scikit-learn stand in.
    """
    from cbir.descriptors.models import load_descriptor
    from cbir.search.searcher import Searcher
    from cbir.web.serve import check_address, serve

    check_address(host, port)
    try:
        data = _data_set(into)
        descriptor = load_descriptor(DESCRIPTORS[data])
        place = _place(data, descriptor, into)
        figures = _finished(data, place) or _carry_out(data, place, descriptor)
    except KeyboardInterrupt:
        say("what was fetched and indexed is kept; cbir demo goes on from there")
        raise
    _show(figures, data, place)
    with closing(Searcher.open(place)) as searcher:
        serve(
            searcher,
            host,
            port,
            ready=lambda url: say(f"The page is at {url} - drop a picture on it. Ctrl-C ends."),
        )


def _data_set(into: str | None) -> str:
    """`cifar10` where it or its finished demo is at hand or can be fetched, else `digits`."""
    from cbir.descriptors.models import load_descriptor
    from cbir.errors import CbirError
    from cbir.images.cifar10 import absence, download_cifar10, find_cifar10

    if find_cifar10():
        return "cifar10"
    if _finished("cifar10", _place("cifar10", load_descriptor(DESCRIPTORS["cifar10"]), into)):
        return "cifar10"
    say(f"{absence()}; fetching it (170 MB)")
    try:
        with progress_bar("fetching", "MB") as update:
            download_cifar10(update)
    except CbirError as error:
        _require_digits(error)
        say(f"{error.message}; going on with scikit-learn's digits. For CIFAR-10, {HOW_TO_GET}")
        return "digits"
    return "cifar10"


def _require_digits(no_cifar10: Exception) -> None:
    from importlib.util import find_spec

    from cbir.errors import CbirError

    if find_spec("sklearn") is None:
        raise CbirError(
            "there is nothing to show: CIFAR-10 cannot be fetched, scikit-learn is not installed",
            f"pip install 'cbir[digits]', or {HOW_TO_GET}",
        ) from no_cifar10


def _place(data: str, descriptor: Descriptor, into: str | None) -> str:
    name = f"{data}-{descriptor.spec.fingerprint[:8]}"
    if into and "://" in into:
        return f"{into.rstrip('/')}/{name}"
    return str(Path(into or _home()) / f"{name}.cbir")


def _home() -> Path:
    from cbir.home import cbir_home

    return cbir_home() / "demo"


def _origin(data: str) -> str | None:
    """Where the pictures come from now; None where they are not at hand any more."""
    from cbir.images.cifar10 import find_cifar10

    found = find_cifar10() if data == "cifar10" else data
    return None if found is None else str(found)


def _finished(data: str, place: str) -> dict[str, Any] | None:
    """The figures of an earlier run that got to its end over these pictures, if all is there."""
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
        raise IndexStateError(error.message, f"delete {place} and run cbir demo again") from error
    figures: dict[str, Any] = kept["figures"]
    return figures if count == figures["n_indexed"] else None


def _carry_out(data: str, place: str, descriptor: Descriptor) -> dict[str, Any]:
    """Index and evaluate; kept for the next run only once both are done."""
    origin = _origin(data)
    _summary(place).parent.mkdir(parents=True, exist_ok=True)
    _index(data, place, descriptor)
    figures = _evaluate(data, place)
    kept = json.dumps({"format": FORMAT, "origin": origin, "figures": figures})
    write_whole(_summary(place), kept.encode())
    return figures


def _summary(place: str) -> Path:
    """Beside the index, in CBIR_HOME for one on a server: left by a run that got to its end."""
    if "://" in place:
        return _home() / f"{quote(place, safe='')}.json"
    return Path(place).with_suffix(".json")


def _index(data: str, place: str, descriptor: Descriptor) -> None:
    from cbir.ingest.indexing import index_images

    say(f"indexing {data}:train into {place}")
    with progress_bar("indexing") as update:
        report = index_images(
            [f"{data}:train"],
            place,
            descriptor=descriptor,
            prune=True,
            on_progress=lambda progress: update(progress.done, progress.total),
        )
    if report.interrupted:
        raise KeyboardInterrupt
    new = report.added + report.updated
    if new:
        say(f"{new:,} images in {report.seconds:.1f} s, {new / report.seconds:,.0f} a second")


def _evaluate(data: str, place: str) -> dict[str, Any]:
    from cbir.evaluation import evaluate
    from cbir.images.sources import open_source
    from cbir.search.searcher import Searcher

    source = open_source(f"{data}:test")
    sample = SAMPLE if source.count is None or source.count > SAMPLE else None
    with closing(Searcher.open(place)) as searcher, progress_stages() as update:
        return evaluate(searcher, source, sample=sample, on_stage=update).to_json()


def _show(figures: dict[str, Any], data: str, place: str) -> None:
    from cbir.cli.evaluate import print_evaluation

    say(f"{data}: {figures['n_indexed']:,} images in {place}")
    print_evaluation(figures)
    say(f"From a terminal: cbir search PICTURE --in {place}")
