"""`cbir models list`: lists the models that are there."""

from __future__ import annotations

import click


@click.command("list", short_help="List all models, with size and licence.")
@click.option("--json", "as_json", is_flag=True, help="Print the list as JSON.")
def list_models(as_json: bool) -> None:
    """List all models: name, dimensions, size, licence, origin, training data."""
    from cbir.cli.output import print_json, print_table, say
    from cbir.descriptors.models import models
    from cbir.descriptors.packaged import EXTRA, PACKAGED, packaged_installed
    from cbir.errors import how_to_install
    from cbir.files import size_of
    from cbir.wording import shown_size

    found = [
        (model.descriptor.spec, model, sum(map(size_of, model.descriptor.files.values())))
        for model in models()
    ]
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
                    "bytes": size,
                    "place": model.place,
                }
                for spec, model, size in found
            ]
        )
        return
    print_table(
        ["model", "dim", "size", "licence", "origin", "trained on"],
        [
            [
                spec.short,
                str(spec.dim),
                shown_size(size),
                spec.licence,
                model.origin,
                spec.trained_on,
            ]
            for spec, model, size in found
        ],
    )
    for name in sorted(PACKAGED.keys() - {spec.name for spec, *_ in found}):
        cure = how_to_install(EXTRA)
        say(f"{name}: {'built at first use' if packaged_installed(name) else cure}")
