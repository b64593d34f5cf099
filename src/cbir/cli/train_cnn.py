"""`cbir train cnn`: trains a network on labelled images."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

import click

from cbir.cli.trained import labelled_sources, require_place, training_options

NEEDED = ("torch", "onnx", "onnxscript", "safetensors", "sklearn", "matplotlib")


@click.command(short_help="A neural network, trained on labelled images.")
@click.option("--name", required=True, help="Name of the model.")
@click.option(
    "--backbone",
    metavar="NAME",
    show_default="airbench94",
    help="airbench94, airbench96, mlp, lenet, alexnet, efficientnet-lite0, timm:NAME or "
    "torchvision:NAME.",
)
@click.option(
    "--weights",
    metavar="WHAT",
    show_default="random; pretrained for efficientnet-lite0",
    help="Weights to start from: 'pretrained', a file, or '' for random ones.",
)
@click.option(
    "--freeze",
    type=float,
    metavar="SHARE",
    help="Keep the first part of the backbone fixed: 1 trains the embedding and classifier only.",
)
@click.option("--size", type=int, metavar="PX", help="Width and height of the network's input.")
@click.option("--embedding", type=int, metavar="DIM", help="Dimensions of the embedding.")
@click.option("--epochs", type=int, metavar="N", show_default="16", help="Passes over the images.")
@click.option(
    "--loss",
    metavar="NAME",
    show_default="cross-entropy",
    help="cross-entropy, or a metric loss: triplet-batch-all, triplet-batch-hard, "
    "triplet-batch-weighted, triplet-batch-sample, contrastive, supervised-contrastive, "
    "proxy-anchor, normalised-softmax.",
)
@click.option(
    "--loss-weight",
    type=float,
    metavar="W",
    show_default="0.5",
    help="Share of the metric loss in training the embedding, 0 to 1; the rest is cross-entropy.",
)
@click.option(
    "--teacher",
    multiple=True,
    metavar="NAME",
    help="Learn from this model too (distillation); several are averaged.",
)
@click.option(
    "--from",
    "settings_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Start from the settings in the best.json of cbir tune; other options replace them.",
)
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="NAME=VALUE",
    help="Any other hyper-parameter, for example --set ema=0.99; docs/training.md lists them.",
)
@training_options
def cnn(
    source: str,
    name: str,
    teacher: tuple[str, ...],
    settings_file: Path | None,
    assignments: tuple[str, ...],
    test: str | None,
    label_from_folder: bool,
    metadata: tuple[Path, ...],
    licence: str | None,
    seed: int,
    out: Path | None,
    **options: Any,
) -> None:
    """Train a network on a labelled SOURCE; use it with `cbir index --descriptor NAME`.

    A tenth of the images is a held-out split for choosing settings. After an interruption, the
    same command resumes after the last complete epoch.
    """
    from cbir.cli.output import progress_stages, say
    from cbir.cli.trained import keep
    from cbir.descriptors.about import NOT_STATED
    from cbir.descriptors.models import check_name
    from cbir.errors import CbirError
    from cbir.files import alone
    from cbir.home import cbir_home
    from cbir.registry import require_extra

    check_name(name, stored=out is None)
    require_place(out, source)
    opened, tested = labelled_sources(source, test, label_from_folder, metadata)
    require_extra("cbir train cnn", "train", *NEEDED)
    from cbir.training.network.loop import features_file
    from cbir.training.network.recipe import train_model
    from cbir.training.network.settings import parsed
    from cbir.training.tuning.search_space import settings_from

    chosen = settings_from(settings_file) if settings_file else {}
    chosen |= dict(map(parsed, assignments))
    chosen |= {option: value for option, value in options.items() if value is not None}
    chosen |= {"teacher": teacher} if teacher else {}
    context = click.get_current_context()
    if context.get_parameter_source("seed") == click.core.ParameterSource.COMMANDLINE:
        chosen["seed"] = seed
    loss = chosen.get("loss", "cross-entropy")
    if options["loss_weight"] is not None and loss == "cross-entropy":
        raise CbirError("--loss-weight needs a metric loss", "choose one with --loss")
    checkpoint = cbir_home() / "training" / f"{name}.safetensors"
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    in_use = CbirError(
        f"another cbir train cnn is training {name}", "wait for its end, or choose another --name"
    )
    with alone(checkpoint.with_suffix(".lock"), in_use):
        try:
            with progress_stages() as on_stage:
                files = train_model(
                    opened,
                    name,
                    chosen,
                    licence=licence or NOT_STATED,
                    command=shlex.join(["cbir", *sys.argv[1:]]),
                    test=tested,
                    checkpoint=checkpoint,
                    say=say,
                    on_stage=on_stage,
                )
        except KeyboardInterrupt:
            if checkpoint.exists():
                say("complete epochs are kept; the same command resumes")
            raise
        keep(files, out, metadata)
        checkpoint.unlink(missing_ok=True)
        features_file(checkpoint).unlink(missing_ok=True)
