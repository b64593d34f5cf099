"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from cbir.web.access import Access


class _IndexPlace(click.types.StringParamType):
    """The place of an index; the error for a missing one shows an example."""

    def get_missing_message(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        del ctx
        return f"Name an index, for example: {param.opts[0]} photos.cbir"


INDEX = _IndexPlace()

descriptor_option = click.option(
    "--descriptor",
    metavar="NAME",
    help="The descriptor of the index, if it cannot be loaded automatically.",
)

expand_option = click.option(
    "--expand",
    type=click.IntRange(0),
    default=0,
    metavar="M",
    help="Average the query with its first M hits.",
)


def metadata_option(labels: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add `--metadata`, for `labels` of that kind alone."""
    return click.option(
        "--metadata",
        multiple=True,
        type=click.Path(path_type=Path),
        metavar="FILE",
        help=f"Take {labels} from this CSV or JSONL file, by id or path; may repeat.",
    )


_SERVING = (
    click.option(
        "--host",
        default="127.0.0.1",
        show_default=True,
        help="Address to listen on; 0.0.0.0 for all of this machine's. Clients then need a token.",
    ),
    click.option(
        "--port", default=5000, show_default=True, help="Port to listen on; 0 takes a free one."
    ),
    click.option(
        "--allow-host",
        multiple=True,
        metavar="NAME",
        help="Also answer to this host name, such as that of a proxy; may repeat.",
    ),
    click.option(
        "--token",
        metavar="TOKEN",
        envvar="CBIR_TOKEN",
        show_envvar=True,
        help="Token that clients have to know; at least 16 characters. [default: none on this "
        "machine, else a new one]",
    ),
    click.option("--no-token", is_flag=True, help="Ask for no token, whatever --host is."),
)


def serving_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Where a page is served, and to whom; `access_of` reads all but the port."""
    for option in reversed(_SERVING):
        command = option(command)
    return command


def access_of(host: str, allow_host: tuple[str, ...], token: str | None, no_token: bool) -> Access:
    """Who may use the page; says so if other machines may.

    Raises `click.UsageError` for `--token` with `--no-token`.
    """
    from click.core import ParameterSource

    from cbir.cli.output import say
    from cbir.web.access import access_to
    from cbir.web.positions import is_loopback

    source = click.get_current_context().get_parameter_source("token")
    if no_token and source is ParameterSource.COMMANDLINE:
        raise click.UsageError("--token and --no-token exclude each other; give one of them")
    access = access_to(host, allow_host, None if no_token else token, no_token)
    if not is_loopback(host):
        say(f"warning: {access.exposure}")
    return access
