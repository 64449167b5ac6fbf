"""`edgeprune target`: the targets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import click


@click.group()
def command() -> None:
    """Check targets."""


@command.command()
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--quick", is_flag=True, help="Only the file; do not call the factories.")
def check(target: Path, quick: bool) -> None:
    """Check TARGET: its file, its factories, its data and one pass of an example through the model."""
    from edgeprune.steps.inputs import load_target

    found = load_target(target)
    for profile in found.spec.profiles:
        found.profile(profile)
    if not quick:
        from edgeprune.steps.examination import examine

        for line in examine(found):
            click.echo(line)
    click.echo(f"{found.file}: ok")


@command.command()
def schema() -> None:
    """Print the JSON schema of target.toml, for editors."""
    from edgeprune.schema.target import TargetSpec

    click.echo(json.dumps(TargetSpec.model_json_schema(), indent=2))


COMMAND: Final[click.Command] = command
