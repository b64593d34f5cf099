"""What the documents name exists: links, headings, command lines, Python paths, files."""

from __future__ import annotations

import importlib.util
import json
import pkgutil
import re
import shlex
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import click
import pytest

from benchmarks.__main__ import ALL
from cbir.cli.main import cli

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("docs/*.ipynb")])
FOLDERS = ("src", "tests", "docs", "benchmarks", "tools", "requirements")

FENCE = re.compile(r"^```[a-z]*\n(.*?)^```", re.M | re.S)
SPAN = re.compile(r"`([^`\n]+(?:\n[^`\n]+)?)`")
LINK = re.compile(r"\]\(([^()\s]+)\)")
COMMAND = re.compile(r"(?:^|\s)cbir (?!import )([a-z].*)")
DOTTED = re.compile(r"(?<![\w/.-])cbir(?:\.[A-Za-z_]\w*)+")
IMPORT = re.compile(r"^from (cbir[\w.]*) import ([\w, ]+)$", re.M)
MODULE = re.compile(r"python -m ((?:benchmarks|tools)[\w.]*)((?: [a-z_]+)?)")

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def text_of(page: Path) -> str:
    """A page's Markdown; of a notebook, that of its prose cells."""
    text = page.read_text(encoding="utf-8")
    if page.suffix != ".ipynb":
        return text
    cells = json.loads(text)["cells"]
    return "\n\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")


def prose(text: str) -> str:
    return FENCE.sub("", text)


def code(text: str) -> Iterator[str]:
    """Every line of a fenced block, and every code span."""
    for block in FENCE.findall(text):
        yield from block.splitlines()
    yield from (span.replace("\n", " ") for span in SPAN.findall(prose(text)))


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    seen: Counter[str] = Counter()
    found = set()
    for heading in re.findall(r"^#+ +(.+?) *$", prose(text), re.M):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        found.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return found


def command_lines(text: str) -> Iterator[str]:
    for line in code(text):
        if found := COMMAND.search(line):
            yield found[1]


def check_command(line: str) -> None:
    """Whether the commands and options of `line` exist; placeholders pass."""
    words = shlex.split(re.split(r" [|&]+ ", line)[0], comments=True)
    command: click.Command | None = cli
    options: set[str] = {"--help", "-h", "--debug"}
    while isinstance(command, click.Group) and words and re.match(r"[a-z|]+$", words[0]):
        names = words.pop(0).split("|")
        found = [command.get_command(click.Context(command), name) for name in names]
        assert all(found), f"no command {names} in: cbir {line}"
        known = [parameter for one in found if one for parameter in one.params]
        options |= {option for parameter in known for option in parameter.opts}
        command = found[0]
    named = [word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)]
    assert set(named) <= options, f"no option {set(named) - options} in: cbir {line}"


def check_python(path: str) -> None:
    """Whether a dotted path names a module (which is not imported) or an attribute of one."""
    with suppress(ModuleNotFoundError):  # the parent is no package, so this is an attribute
        if importlib.util.find_spec(path):
            return
    pkgutil.resolve_name(path)


@pages
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in LINK.findall(prose(text_of(page))):
        if re.match(r"[a-z]+:", link):
            continue
        place, _, anchor = link.partition("#")
        target = (page.parent / place).resolve() if place else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(text_of(target)), link


@pages
def test_every_command_line_exists(page: Path) -> None:
    for line in command_lines(text_of(page)):
        check_command(line)


@pages
def test_every_python_path_exists(page: Path) -> None:
    text = text_of(page)
    imports = [
        f"{module}.{name.strip()}"
        for module, names in IMPORT.findall(text)
        for name in names.split(",")
    ]
    for path in [*imports, *(path for line in code(text) for path in DOTTED.findall(line))]:
        check_python(path)


@pages
def test_every_file_and_benchmark_exists(page: Path) -> None:
    text = text_of(page)
    for path in re.findall(rf"(?<![\w./-])(?:{'|'.join(FOLDERS)})/[\w./-]*\w", text):
        assert (ROOT / path).exists(), path
    for module, argument in MODULE.findall(text):
        assert importlib.util.find_spec(module), module
        if module == "benchmarks" and argument:
            assert argument.strip() in ALL, argument


def test_commands_are_found_where_they_stand() -> None:
    """The checks see what they are meant to see."""
    lines = [line for page in PAGES for line in command_lines(text_of(page))]
    assert len(lines) > 50
    assert {line.split()[0] for line in lines} >= {"index", "search", "evaluate", "train", "copy"}
    for wrong in ("indx photos", "index photos --int x", "train forest photos"):
        with pytest.raises(AssertionError):
            check_command(wrong)
    with pytest.raises(AttributeError):
        check_python("cbir.search.nothing")
    assert anchors("# A `b`, c\n\n## A b c\n```\n# no\n```\n") == {"a-b-c", "a-b-c-1"}
