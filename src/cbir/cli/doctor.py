"""`cbir doctor`: checks what is installed, and says how to fix what is missing."""

from __future__ import annotations

import os
import platform
import re
from collections import defaultdict
from collections.abc import Sequence

import click

from cbir.errors import how_to_install

# Name and extra of a requirement in the metadata; one with other conditions does not match.
REQUIREMENT = re.compile(r"""([\w.-]+)[^;]*(?:; *extra *== *['"]([\w-]+)['"])?""")


@click.command(short_help="Check the installation.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """Check the installation: packages, shipped model, extras, CIFAR-10, kept files."""
    from cbir.cli.output import print_json, print_table

    checks = [
        ("cbir", "ok", f"{_version('cbir')}, Python {platform.python_version()}"),
        *_packages(),
        _works(),
        _cifar10(),
        _home(),
        *_kept(),
        *_damaged_models(),
    ]
    if as_json:
        print_json([{"check": n, "state": s, "detail": d} for n, s, d in checks])
    else:
        print_table(["check", "state", "detail"], [list(check) for check in checks])
    if any(state == "broken" for _, state, _ in checks):
        ctx.exit(1)


def _packages() -> list[tuple[str, str, str]]:
    """A line for each required package, then one for each extra except "all"."""
    from importlib.metadata import requires

    core: list[str] = []
    extras: dict[str, list[str]] = defaultdict(list)
    for requirement in (requires("cbir") if _version("cbir") else None) or ():
        if match := REQUIREMENT.fullmatch(requirement):
            name, extra = match.groups()
            (extras[extra] if extra else core).append(name)
    extras.pop("all", None)
    return [_core(name) for name in core] + [_extra(*extra) for extra in extras.items()]


def _core(name: str) -> tuple[str, str, str]:
    version = _version(name)
    if version is None:
        return (name, "broken", f"not installed; {how_to_install()}")
    return (name, "ok", version)


def _extra(extra: str, packages: Sequence[str]) -> tuple[str, str, str]:
    absent = [name for name in packages if _version(name) is None]
    if absent:
        cure = f"{', '.join(absent)} not installed; {how_to_install(extra)}"
        return (f"extra {extra}", "missing", cure)
    return (f"extra {extra}", "ok", ", ".join(f"{name} {_version(name)}" for name in packages))


def _version(package: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _works() -> tuple[str, str, str]:
    """Whether the shipped model can describe a picture."""
    try:
        import numpy as np

        from cbir.descriptors.contract import describe
        from cbir.descriptors.models import SHIPPED, load_descriptor

        descriptor = load_descriptor(SHIPPED[0])
        describe(descriptor, [np.zeros((32, 32, 3), dtype=np.uint8)])
    except Exception as error:  # noqa: BLE001 - whatever it is, the doctor reports it
        return ("describing", "broken", f"{type(error).__name__}: {error}")
    return ("describing", "ok", descriptor.spec.short)


def _cifar10() -> tuple[str, str, str]:
    from cbir.images.cifar10 import find_cifar10

    found = find_cifar10()
    if found is None:
        return ("CIFAR-10", "missing", "cbir demo downloads it; or set CBIR_DATA to its folder")
    return ("CIFAR-10", "ok", str(found))


def _home() -> tuple[str, str, str]:
    from cbir.home import cbir_home

    home = cbir_home()
    there = next(place for place in (home, *home.parents) if place.exists())
    if not (there.is_dir() and os.access(there, os.W_OK)):
        return ("CBIR_HOME", "broken", f"{home} cannot be written; set CBIR_HOME to another folder")
    return ("CBIR_HOME", "ok", f"{home}{'' if there == home else ' (will be created)'}")


def _kept() -> list[tuple[str, str, str]]:
    """A line for each folder of files that cbir keeps for the user."""
    from cbir.cli.cache import kept
    from cbir.wording import shown_size

    return [
        (one.what, "ok", f"{shown_size(one.size)} in {one.place}; to remove: {one.cure}")
        for one in kept()
    ]


def _damaged_models() -> list[tuple[str, str, str]]:
    from cbir.descriptors.models import damaged_models

    return [("model store", "damaged", f"{why}; remove it") for why in damaged_models().values()]
