"""A report as one self-contained HTML page: style, plots and pictures, no script."""

from __future__ import annotations

import io
import re
from functools import lru_cache

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from cbir.images.thumbnails import data_uri
from cbir.report.content import Plot, Report
from cbir.report.plot_style import INK, LINE, SERIES, SHEET, SOFT, styled

_VARIABLES = {
    INK: "var(--ink)",
    SOFT: "var(--ink-soft)",
    LINE: "var(--line)",
    SHEET: "var(--sheet)",
    **{colour: f"var(--series-{number})" for number, colour in enumerate(SERIES)},
}


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
    environment.filters |= {"svg": _svg, "data_uri": data_uri}
    return environment


@styled()
def _svg(plot: Plot) -> Markup:
    """The figure of `plot` as an SVG element, with the name of `plot` as prefix of its ids.

    Colours are the page's variables, so the plot is legible on a dark page too. Text stays text;
    `--plot-text` of the page scales it.
    """
    stream = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    plot.figure.savefig(stream, format="svg", metadata=nothing, transparent=True)
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r'(<svg [^>]*?) ?width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg [^>]*?) ?height="[^"]*"', r"\1", text, count=1)
    text = re.sub(r"<defs>\s*<style[^>]*>.*?</style>\s*</defs>", "", text, count=1, flags=re.S)
    referred = set(re.findall(r"#([A-Za-z_][\w-]*)[\")]", text))
    text = re.sub(
        r' id="([^"]*)"', lambda m: f' id="{plot.name}-{m[1]}"' if m[1] in referred else "", text
    )
    text = re.sub(r'(url\(|href=")#', rf"\1#{plot.name}-", text)
    text = re.sub(r"#[0-9a-f]{6}\b", lambda m: _VARIABLES.get(m[0], m[0]), text)
    text = re.sub(r"font: ([\d.]+)px [^;\"]+", r"font-size: calc(\1px * var(--plot-text))", text)
    text = text.replace("<svg ", '<svg class="plot" aria-hidden="true" focusable="false" ', 1)
    return Markup(text)  # matplotlib has escaped its text
