"""The entry point: finds the command, handles errors, sets the exit code."""

from __future__ import annotations

import importlib
import io
import os
import shlex
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

import click

from cbir.errors import CbirError, FilterQuotesError, write_hint
from cbir.machine import ADDRESS_SPACE, LACKS_MEMORY, address_space, is_out_of_memory
from cbir.wording import did_you_mean, nearest, one_line

COMMANDS = (
    "demo",
    "index",
    "sources",
    "remove",
    "search",
    "why",
    "run",
    "qrels",
    "evaluate",
    "train",
    "tune",
    "models",
    "serve",
    "copy",
    "compose",
    "info",
    "verify",
    "doctor",
    "cache",
)
INTERRUPTED = 128 + signal.SIGINT
TERMINATED = 128 + signal.SIGTERM
_UNCHANGED = True
"""click's `color`: it would delete escape sequences from names in a pipe; they are escaped."""
_LESS = "close other programs, or do less at once"


class _Commands(click.Group):
    """Imports the module of a command only when it is used, so that `--help` is fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"cbir.cli.{cmd_name}")
        command: click.Command = module.command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in COMMANDS and nearest(args[0], COMMANDS):
            ctx.fail(f"No such command '{args[0]}'; {did_you_mean(args[0], COMMANDS)}")
        _require_memory()
        name, command, rest = super().resolve_command(ctx, args)
        if command is not None:
            _refuse_repeats(click.Context(command, ctx, name), rest)
        return name, command, rest


def _require_memory() -> None:
    """Raise `CbirError` if libraries would crash for want of address space."""
    space = address_space()
    if space is not None and space < ADDRESS_SPACE:
        raise CbirError(
            f"cbir {LACKS_MEMORY}: the limit is {space / 1e6:,.0f} MB of address space",
            f"allow {ADDRESS_SPACE / 1e6:,.0f} MB or more: ulimit -v {ADDRESS_SPACE // 1000}",
        )


def _refuse_repeats(ctx: click.Context, args: list[str]) -> None:
    """Raise `click.UsageError` if an option that takes one value is given twice.

    click would take the last one and say nothing. It parses the arguments again afterwards.
    """
    command = ctx.command
    _, rest, order = command.make_parser(ctx).parse_args(list(args))
    for option in order:
        takes_one = isinstance(option, click.Option) and not (
            option.multiple or option.is_flag or option.count
        )
        if takes_one and order.count(option) > 1:
            ctx.fail(f"{option.opts[-1]} is given twice; give it once")
    if isinstance(command, click.Group) and rest and (inner := command.get_command(ctx, rest[0])):
        _refuse_repeats(click.Context(inner, ctx, rest[0]), rest[1:])


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show the traceback of an error; accepted anywhere.")
@click.version_option(package_name="cbir")
def cli(debug: bool) -> None:
    """Content-based image retrieval: index a folder, search it with a picture, measure the results.

    INDEX is a folder such as photos.cbir, or elasticsearch://HOST:9200/NAME. SOURCE is a folder,
    a zip or tar file, cifar10:train, cifar10:test, digits:train or digits:test.
    """
    del debug  # main() reads it, because errors surface outside of this function


def main() -> NoReturn:
    """Run the command line; exit 0 on success, 1 on a reported error, 2 on wrong usage.

    Exits 130 when interrupted with Ctrl-C and 143 when interrupted with SIGTERM, except where an
    interruption is the normal end.
    """
    with _terminable():
        _main()


@contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM end the block as Ctrl-C does, but with an exit code of its own.

    Only the main thread can receive signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked = []

    def end(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        signal.default_int_handler(number, frame)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    except SystemExit as ended:
        if asked and ended.code == INTERRUPTED:
            sys.exit(TERMINATED)
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def _main() -> NoReturn:
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A file name may be invalid text; escaped like this, it is valid JSON.
        sys.stdout.reconfigure(errors="backslashreplace")
    from cbir.cli.output import escaping_output

    with escaping_output():
        _run(*_without_debug(sys.argv[1:]))


def _run(arguments: list[str], debug: bool) -> NoReturn:
    try:
        exit_code = cli.main(arguments, prog_name="cbir", standalone_mode=False, color=_UNCHANGED)
        sys.stdout.flush()
    except FilterQuotesError as error:
        cure = f"quote the whole value: --where {shlex.quote(error.cure)}"
        _fail(error.message, cure, debug)
    except CbirError as error:
        if isinstance(error.__cause__, MemoryError):
            _fail(f"cbir {LACKS_MEMORY}", _LESS, debug)
        _fail(error.message, error.hint, debug)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted", err=True)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        # The reader, such as `head`, has closed the pipe; click exits with 1 in this case.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        if is_out_of_memory(error):
            _fail(f"cbir {LACKS_MEMORY}", _LESS, debug)
        what = error.strerror or str(error)
        shown = f"{error.filename}: {what}" if error.filename else what
        _fail(shown, write_hint(error, ""), debug)
    except Exception as error:  # noqa: BLE001 - even a bug is reported in one line
        if is_out_of_memory(error):
            _fail(f"cbir {LACKS_MEMORY}", _LESS, debug)
        _fail(
            f"unexpected {type(error).__name__}: {error}",
            "this is a bug in cbir: report it with the output of --debug",
            debug,
        )
    # A command returns None or its exit code.
    sys.exit(exit_code or 0)


def _without_debug(arguments: list[str]) -> tuple[list[str], bool]:
    """The arguments without --debug, which may come before or after the command."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    options = [argument for argument in arguments[:end] if argument != "--debug"]
    return options + arguments[end:], len(options) < end


def _fail(message: str, hint: str, debug: bool) -> NoReturn:
    if debug:
        traceback.print_exc()
    click.echo(f"error: {one_line(message)}", err=True)
    if hint:
        click.echo(f"  hint: {one_line(hint)}", err=True)
    sys.exit(1)
