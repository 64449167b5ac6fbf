"""`edgeprune bench`: measure one artifact on one device."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from edgeprune.cli import options


@click.command()
@click.argument("artifact", type=click.Path(path_type=Path))
@options.device
@click.option(
    "--threads", type=click.IntRange(1, 256), help="Threads; by default those of the artifact's manifest, or 1."
)
@click.option(
    "--processes",
    type=click.IntRange(3, 50),
    default=5,
    show_default=True,
    help="Fresh processes to spread the runs over.",
)
@click.option(
    "--runs", type=click.IntRange(300), default=1000, show_default=True, help="Timed runs over all processes."
)
@click.option("--p50-ms", type=click.FloatRange(0, min_open=True), help="Judge: p50 at most this.")
@click.option("--p99-ms", type=click.FloatRange(0, min_open=True), help="Judge: p99 at most this.")
@click.option(
    "--confidence",
    type=click.FloatRange(0.5, 1, min_open=True, max_open=True),
    default=0.95,
    show_default=True,
    help="Of the bounds and of the verdict.",
)
@click.option(
    "--percentile",
    "percentiles",
    type=click.FloatRange(0, 100, min_open=True, max_open=True),
    multiple=True,
    help="A percentile to report; may be repeated. [default: 50, 90, 99, 99.9]",
)
@options.output_format
@options.quiet
def command(
    artifact: Path,
    device: str,
    threads: int | None,
    processes: int,
    runs: int,
    p50_ms: float | None,
    p99_ms: float | None,
    confidence: float,
    percentiles: tuple[float, ...],
    output_format: str,
    quiet: bool,
) -> int:
    """Measure ARTIFACT: a folder with manifest.json, or an .onnx, .tflite or .xml file.

    With --p50-ms or --p99-ms the exit code is the verdict's: 0, 7, 8 or 9.
    """
    from edgeprune import api
    from edgeprune.cli.render import results

    policy = api.BenchPolicy(
        threads=threads,
        processes=processes,
        runs=runs,
        p50_ms=p50_ms,
        p99_ms=p99_ms,
        confidence=confidence,
        percentiles=percentiles or (50.0, 90.0, 99.0, 99.9),
    )
    with options.reporting(silent=quiet) as reporter:
        result = api.bench(artifact, device=device, policy=policy, reporter=reporter)
    click.echo(results.bench(result, output_format))
    return result.judgement.verdict.exit_code


COMMAND: Final[click.Command] = command
