"""`edgeprune release`: what is out, what was before it, and the way back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import click

from edgeprune.cli import options


@click.group()
def command() -> None:
    """Promote a run that passed to a release, list releases, and go back."""


@command.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--name", required=True, help="Of the release, such as 1.4.0; a name is given once.")
@options.releases
def promote(run: Path, name: str, releases: Path) -> None:
    """Make a release of RUN (a run folder whose verdict is PASS), and make it current."""
    from edgeprune.steps import releases as steps

    made = steps.promote(run, name, releases)
    click.echo(f"{made.name} is current: {releases}/current/artifact ({made.model} for {made.target})")


@command.command("list")
@options.releases
@options.output_format
def list_releases(releases: Path, output_format: str) -> None:
    """List the releases; the evidence of each is checked."""
    from edgeprune.cli.render import evidence
    from edgeprune.steps import releases as steps

    click.echo(evidence.releases(steps.list_releases(releases), output_format))


@command.command()
@options.releases
@options.output_format
def rollback(releases: Path, output_format: str) -> None:
    """Make the release current that was before the current one. Nothing is deleted."""
    from edgeprune.records.codec import to_plain
    from edgeprune.steps import releases as steps

    found = steps.rollback(releases)
    plain = json.dumps({"schema": 1, **to_plain(found)})
    click.echo(plain if output_format == "json" else f"{found.name} is current: {releases}/current/artifact")


COMMAND: Final[click.Command] = command
