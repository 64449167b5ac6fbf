"""`edgeprune profile`: the device profiles."""

from __future__ import annotations

import json
from typing import Final

import click

from edgeprune.cli import options


@click.group()
def command() -> None:
    """Check, list and show device profiles."""


@command.command()
@click.argument("profiles", metavar="NAME|FILE...", nargs=-1, required=True)
def check(profiles: tuple[str, ...]) -> None:
    """Check profile files; exits 2 at the first that is wrong, with every finding."""
    from edgeprune.steps.inputs import load_profile

    for name in profiles:
        click.echo(f"{name}: ok ({load_profile(name).name})")


@command.command("list")
@options.output_format
def list_profiles(output_format: str) -> None:
    """List the profiles that can be named."""
    from edgeprune.cli.render.tables import profile_table
    from edgeprune.steps.inputs import load_profile, profile_paths

    profiles = [load_profile(path) for path in profile_paths().values()]
    if output_format == "json":
        rows = [p.model_dump(mode="json", by_alias=True) for p in profiles]
        click.echo(json.dumps({"schema": 1, "profiles": rows}))
        return
    click.echo(profile_table(profiles))


@command.command()
@click.argument("profile", metavar="NAME|FILE")
@options.output_format
def show(profile: str, output_format: str) -> None:
    """Show one profile with its defaults filled in."""
    from edgeprune.cli.render.tables import profile_details
    from edgeprune.steps.inputs import load_profile

    found = load_profile(profile)
    if output_format == "json":
        click.echo(found.model_dump_json(by_alias=True))
        return
    click.echo(profile_details(found))


@command.command()
def schema() -> None:
    """Print the JSON schema of profile files, for editors."""
    from edgeprune.schema.profile import DeviceProfile

    click.echo(json.dumps(DeviceProfile.model_json_schema(), indent=2))


COMMAND: Final[click.Command] = command
