"""`cbir doctor`: what is installed, what is missing, what to do about it."""

from __future__ import annotations

import os
import platform

import click

CORE = (
    *("numpy", "pillow", "pi-heif", "opencv-python-headless", "onnxruntime", "faiss-cpu"),
    *("threadpoolctl", "filelock", "click", "rich", "flask", "waitress"),
)
EXTRAS = {
    "evaluation": ("ir-measures", "pytrec-eval-terrier", "matplotlib"),
    "digits": ("scikit-learn",),
    "bovw": ("scikit-learn", "matplotlib"),
    "elasticsearch": ("elasticsearch", "orjson"),
    "train": ("torch", "onnx", "onnxscript"),
}


@click.command(short_help="Check the installation.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """Check the installation: packages, the shipped model, extras, CIFAR-10, CBIR_HOME."""
    from cbir.cli.output import print_json, print_table

    checks = [
        ("cbir", "ok", f"{_version('cbir')}, Python {platform.python_version()}"),
        *_core(),
        _works(),
        *_extras(),
        _cifar10(),
        _home(),
        *_damaged_models(),
    ]
    if as_json:
        print_json([{"check": n, "state": s, "detail": d} for n, s, d in checks])
    else:
        print_table(["check", "state", "detail"], [list(check) for check in checks])
    if any(state == "broken" for _, state, _ in checks):
        ctx.exit(1)


def _core() -> list[tuple[str, str, str]]:
    return [
        (name, "ok", version)
        if (version := _version(name))
        else (name, "broken", "not installed; pip install cbir")
        for name in CORE
    ]


def _extras() -> list[tuple[str, str, str]]:
    found = []
    for extra, packages in EXTRAS.items():
        absent = [name for name in packages if _version(name) is None]
        versions = ", ".join(f"{name} {_version(name)}" for name in packages)
        cure = f"{', '.join(absent)} not installed; pip install 'cbir[{extra}]'"
        found.append(
            (f"extra {extra}", "missing", cure) if absent else (f"extra {extra}", "ok", versions)
        )
    return found


def _version(package: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _works() -> tuple[str, str, str]:
    """Whether the shipped model really describes a picture here."""
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
        return ("CIFAR-10", "missing", "cbir demo downloads it; or set CBIR_DATA to where it is")
    return ("CIFAR-10", "ok", str(found))


def _home() -> tuple[str, str, str]:
    from cbir.home import cbir_home

    home = cbir_home()
    there = next(place for place in (home, *home.parents) if place.exists())
    if not (there.is_dir() and os.access(there, os.W_OK)):
        return ("CBIR_HOME", "broken", f"{home} cannot be written; set CBIR_HOME to another place")
    return ("CBIR_HOME", "ok", f"{home}{'' if there == home else ' (will be created)'}")


def _damaged_models() -> list[tuple[str, str, str]]:
    from cbir.descriptors.models import damaged_models

    return [("model store", "damaged", f"{why}; remove it") for why in damaged_models().values()]
