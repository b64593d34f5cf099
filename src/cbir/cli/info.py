"""`cbir info`: shows what an index contains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

EXAMPLE_WIDTH = 40


@click.command()
@click.argument("index", metavar="INDEX")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def command(index: str, as_json: bool) -> None:
    """Show what an index contains, how it was built and what failed."""
    from contextlib import closing
    from dataclasses import asdict

    from cbir.cli.output import print_failures, print_json, print_table, show
    from cbir.descriptors.models import newer_model
    from cbir.index.open import open_index
    from cbir.wording import shown_size

    with closing(open_index(index)) as opened:
        info = opened.info()
        failures = opened.failures()
        newer = newer_model(opened.spec)
    info["newer_descriptor"] = newer.short if newer else None
    if as_json:
        print_json({**info, "failures": [asdict(failure) for failure in failures]})
        return
    descriptor = info["descriptor"]
    rows = [
        ["images", f"{info['count']:,}"],
        ["descriptor", f"{descriptor['name']}@{descriptor['fingerprint'][:8]} ({info['dim']}-d)"],
        ["engine", str(info["engine"])],
        ["labels", f"{info['labels']:,}"],
        *([f"field {field['name']}", _shown(field)] for field in info["fields"]),
        *([f"source {name}", uri] for name, uri in info["sources"].items()),
        ["missing", f"{info['missing']:,}"],
        ["failed", f"{info['failed']:,}"],
        ["on disk", shown_size(info["bytes"])],
    ]
    if kept_out := info["kept_out"]:
        rows.insert(-1, ["removed", f"{kept_out:,} (kept out; cbir index --again adds them)"])
    print_table(["what", index], rows)
    print_failures(failures, info["sources"], index)
    if newer:
        show(f"a newer model is available: {newer.short}; to use it, create a new index")


def _shown(field: Mapping[str, Any]) -> str:
    """The type of a field, and examples in the form that a filter takes."""
    return f"{field['type']}, such as {', '.join(map(_example, field['examples']))}"


def _example(value: str | float) -> str:
    from cbir.index.filters import quote
    from cbir.wording import one_line

    text = quote(value) if isinstance(value, str) else str(value)
    shown = one_line(text)
    return shown if len(shown) <= EXAMPLE_WIDTH else f"{shown[:EXAMPLE_WIDTH]}..."
