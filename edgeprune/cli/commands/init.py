"""`edgeprune init`: a new target that works, to be changed into one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--profile", "-p", default="local", show_default=True, metavar="NAME", help="Profile that it ships to.")
def command(folder: Path, profile: str) -> None:
    """Make FOLDER with a target.toml and a model.py that build as they are: a small CNN on handwritten digits."""
    from edgeprune.steps.scaffold import scaffold_target

    made = scaffold_target(folder, profile)
    for path in made:
        click.echo(f"made {path}")
    click.echo(f"now: edgeprune build {folder} --profile {profile}")


COMMAND: Final[click.Command] = command
