"""`edgeprune plan`: the ladder of rungs, each measured as an untrained shape on the device, with reasons."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from edgeprune.cli import options


@click.command()
@click.argument("target", type=click.Path(path_type=Path))
@options.profile
@options.device
@options.output
@options.output_format
@options.quiet
def command(target: Path, profile: str | None, device: str, output: Path, output_format: str, quiet: bool) -> int:
    """Say how TARGET can meet the budget, without training anything. Exits 3 when no rung can.

    The run folder has the plan (plan.json) and a page with what it rests on (plan.html).
    """
    from edgeprune import api
    from edgeprune.cli.render import results

    with options.reporting(silent=quiet) as reporter:
        plan = api.plan(target, profile, device=device, output=output, reporter=reporter)
    click.echo(results.plan(plan, output_format))
    return 0 if plan.planned else 3


COMMAND: Final[click.Command] = command
