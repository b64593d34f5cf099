"""`cbir models`: the descriptors at hand."""

from __future__ import annotations

import click


@click.group()
def command() -> None:
    """List and show the models that are shipped or were trained here."""


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print the list as JSON.")
def list_models(as_json: bool) -> None:
    """List all models: name, vector size, where from, what trained on."""
    from cbir.cli.output import print_json, print_table
    from cbir.descriptors.models import models

    found = [(model.descriptor.spec, model) for model in models()]
    if as_json:
        print_json(
            [
                {
                    "name": spec.name,
                    "kind": model.descriptor.card.kind,
                    "fingerprint": spec.fingerprint,
                    "dim": spec.dim,
                    "origin": model.origin,
                    "trained_on": spec.trained_on,
                    "licence": spec.licence,
                    "place": model.place,
                }
                for spec, model in found
            ]
        )
        return
    print_table(
        ["model", "dim", "origin", "trained on"],
        [[spec.short, str(spec.dim), model.origin, spec.trained_on] for spec, model in found],
    )


@command.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print the whole card as JSON.")
def show(name: str, as_json: bool) -> None:
    """Show a model's card: preprocessing, training, measured quality, licence."""
    from dataclasses import asdict

    from cbir.cli.output import print_json, print_table
    from cbir.descriptors.models import card_of, files_of, load_descriptor

    descriptor = load_descriptor(name)
    spec, card = descriptor.spec, card_of(descriptor)
    sizes = {file_name: len(data) for file_name, data in files_of(descriptor).items()}
    if as_json:
        print_json({"spec": asdict(spec), "card": asdict(card) if card else None, "files": sizes})
        return
    rows = [
        ["fingerprint", spec.fingerprint],
        ["dim", str(spec.dim)],
        ["trained on", spec.trained_on],
        ["licence", spec.licence],
        *([key, str(value)] for key, value in spec.preprocessing.items()),
    ]
    if card:
        rows += [["kind", card.kind], *([f, f"{n:,} bytes"] for f, n in sizes.items())]
        rows += [["classes", ", ".join(card.classes) or "none"]]
        rows += [[key.replace("_", " "), str(value)] for key, value in card.quality.items()]
    print_table(["name", spec.name], rows)
