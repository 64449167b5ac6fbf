"""The command line: a command is a file of `commands/`; nothing but `cli` prints."""

from __future__ import annotations

import importlib
import itertools
import json
import pkgutil
import sys
import traceback

import click

from edgeprune import __version__
from edgeprune.errors import EXIT_CODES, BuildError, EdgepruneError
from edgeprune.libraries import interrupts_remembered

_EXIT_CODE_HELP = "Exit codes: " + "; ".join(f"{code} {meaning}" for code, meaning in EXIT_CODES.items()) + "."


class CommandFolder(click.Group):
    """The files of `edgeprune/cli/commands`, each imported when asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Names of the files."""
        paths = importlib.import_module("edgeprune.cli.commands").__path__
        return sorted(module.name for module in pkgutil.iter_modules(paths))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command; None when there is no such file."""
        if cmd_name not in self.list_commands(ctx):
            return None
        command: click.Command = importlib.import_module(f"edgeprune.cli.commands.{cmd_name}").COMMAND
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Add the closest name to the message about an unknown command."""
        from edgeprune.registry import suggest

        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            hint = suggest(args[0], tuple(self.list_commands(ctx)))
            raise click.UsageError(f"{error.message.split(' Did you')[0].rstrip('.')}{hint}", ctx) from error


@click.command(cls=CommandFolder, epilog=_EXIT_CODE_HELP, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="edgeprune")
def cli() -> None:
    """Compress a neural network until it meets a latency budget measured on the real device."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with the documented code."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: list[str]) -> int:
    """Run the command line; returns the exit code."""
    try:
        with interrupts_remembered():
            code = cli.main(args=arguments, prog_name="edgeprune", standalone_mode=False)
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the last place where an error can be told
        return _tell(error, as_json=_wants_json(arguments))
    return code if isinstance(code, int) else 0


def _tell(error: BaseException, *, as_json: bool) -> int:
    """Say what went wrong, on stderr and where asked for as JSON on stdout; returns the exit code."""
    facts: dict[str, object] = {}
    if isinstance(error, click.ClickException):
        error.show()
        message, code = error.format_message(), error.exit_code
    elif isinstance(error, click.Abort | KeyboardInterrupt):
        message, code = "interrupted; what was finished is kept, run the same command to go on", 130
        click.echo(message, err=True)
    elif isinstance(error, EdgepruneError):
        message, code, facts = error.message, error.exit_code, error.facts
        click.echo(f"error: {message}", err=True)
    elif isinstance(error, OSError):
        # The disk is full, a folder may not be written: nothing that we could do better.
        message, code = f"{error.filename or 'this host'}: {error.strerror or error}", BuildError.exit_code
        click.echo(f"error: {message}", err=True)
    else:
        traceback.print_exception(error)
        message, code = "this is a bug of edgeprune; please report it with the lines above", 1
        click.echo(message, err=True)
    if as_json:
        content = {"kind": type(error).__name__, "message": message, "exit_code": code, "facts": facts}
        click.echo(json.dumps({"schema": 1, "error": content}, default=str))
    return code


def _wants_json(arguments: list[str]) -> bool:
    return "--format=json" in arguments or ("--format", "json") in itertools.pairwise(arguments)
