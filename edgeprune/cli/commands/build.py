"""`edgeprune build`: from a target and a profile to a model that was measured on the device and judged."""

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
@click.option("--dry-run", is_flag=True, help="Only plan: measure shapes on the device, train nothing.")
@click.option("--explain", is_flag=True, help="Only say what changed since the last build, and what would be redone.")
@click.option(
    "--controls", is_flag=True, help="Show both controls beside the result: pruned by lot, and trained from scratch."
)
@click.option(
    "--control", "named", multiple=True, metavar="NAME", help="One control: `random` or `scratch`; may be given twice."
)
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Processes that train together on this host, each on its share of every batch.",
)
@options.output_format
@options.quiet
def command(
    target: Path,
    profile: str | None,
    device: str,
    output: Path,
    dry_run: bool,
    explain: bool,
    controls: bool,
    named: tuple[str, ...],
    workers: int,
    output_format: str,
    quiet: bool,
) -> int:
    """Build TARGET (a folder with target.toml) for a profile, on a device.

    The run is kept in OUTPUT: the same command again goes on where a killed build was, and does nothing when nothing
    changed.
    """
    from edgeprune import api
    from edgeprune.cli.render import results
    from edgeprune.records.control import CONTROLS

    if (controls or named) and (explain or dry_run):
        raise click.UsageError("--controls and --control need a build: leave out --explain and --dry-run")
    if explain:
        click.echo(results.changes(api.explain(target, profile, device=device, output=output), output_format))
        return 0
    if dry_run:
        with options.reporting(silent=quiet) as reporter:
            plan = api.plan(target, profile, device=device, output=output, reporter=reporter)
        click.echo(results.plan(plan, output_format))
        return 0 if plan.planned else 3
    with options.reporting(silent=quiet) as reporter:
        result = api.build(
            target,
            profile,
            device=device,
            output=output,
            workers=workers,
            reporter=reporter,
            controls=CONTROLS if controls else named,
        )
    click.echo(results.build(result, output_format))
    return result.exit_code


COMMAND: Final[click.Command] = command
