"""A report as one HTML page that holds all it needs: style, plots and pictures; no script."""

from __future__ import annotations

from functools import lru_cache

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from cbir.images.thumbnails import data_uri
from cbir.report.content import Plot, Report
from cbir.report.plot_style import svg


def page(report: Report) -> str:
    """`report` as HTML."""
    return _environment().get_template("page.html").render(report=report)


@lru_cache(maxsize=1)
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("cbir.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"svg": _inline, "data_uri": data_uri}
    return environment


def _inline(plot: Plot) -> Markup:
    return Markup(svg(plot.figure, plot.name))  # matplotlib escapes the texts in it
