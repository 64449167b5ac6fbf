"""`edgeprune gate`: judge a run again from its raw samples."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from edgeprune.cli import options


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--junit", type=click.Path(dir_okay=False, path_type=Path), help="Also write a JUnit file.")
@click.option("--markdown", type=click.Path(dir_okay=False, path_type=Path), help="Also write a Markdown summary.")
@options.output_format
def command(run: Path, junit: Path | None, markdown: Path | None, output_format: str) -> int:
    """Judge RUN (a run folder, or an evidence.json) from its stored raw samples alone.

    The exit code is the verdict: 0 PASS, 7 FAIL, 8 INCONCLUSIVE, 9 INVALID.
    """
    from edgeprune import api
    from edgeprune.cli.render import results

    judgement = api.gate(run, junit=junit, markdown=markdown)
    click.echo(results.gate(judgement, output_format))
    return judgement.verdict.exit_code


COMMAND: Final[click.Command] = command
