"""`edgeprune bench`: measure one artifact on one device, or on several at once."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

import click

from edgeprune.cli import options


@click.command()
@click.argument("artifact", type=click.Path(path_type=Path))
@options.devices
@click.option(
    "--fleet-share",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    metavar="SHARE",
    help="Judge: at least this share of all such devices meets the limits (0.9), concluded from those measured. "
    "Without it, every device measured must.",
)
@click.option(
    "--threads", type=click.IntRange(1, 256), help="Threads; by default those of the artifact's manifest, or 1."
)
@click.option(
    "--cpus", type=options.CPUS, metavar="LIST|last",
    help="Cores to run on, as many as threads, as Linux writes them (4-7), or the last ones; "
    "by default those of the artifact's manifest, or the last.",
)  # fmt: skip
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
@click.option("--memory-mb", type=click.FloatRange(0, min_open=True), help="Judge: peak memory at most this.")
@click.option(
    "--memory-of",
    type=click.Choice(["process", "model"]),
    help="Whose memory: `model` leaves out what the runtime takes without one. [default: process]",
)
@click.option(
    "--compare",
    "other",
    metavar="ARTIFACT",
    type=click.Path(path_type=Path),
    help="Measure this one in turn with it; shows the ratios ARTIFACT / this one.",
)
@click.option("--rounds", type=click.IntRange(5, 200), help="Of --compare. [default: 10]")
@click.option(
    "--rate", type=click.FloatRange(0, min_open=True), help="Frames a second; latency counts from each one's arrival."
)
@click.option(
    "--sustain", type=options.DURATION, help="Run one process this long (6s, 30m, 1h) and look for a trend of its p99."
)
@options.output_format
@options.quiet
def command(
    artifact: Path,
    devices: tuple[str, ...],
    fleet_share: float | None,
    threads: int | None,
    cpus: tuple[int, ...] | None,
    processes: int,
    runs: int,
    p50_ms: float | None,
    p99_ms: float | None,
    confidence: float,
    percentiles: tuple[float, ...],
    memory_mb: float | None,
    memory_of: Literal["process", "model"] | None,
    other: Path | None,
    rounds: int | None,
    rate: float | None,
    sustain: float | None,
    output_format: str,
    quiet: bool,
) -> int:
    """Measure ARTIFACT: a folder with manifest.json, or an .onnx, .tflite or .xml file.

    With --p50-ms, --p99-ms or --memory-mb the exit code is the verdict's: 0, 7, 8 or 9. On several devices it always
    is: one that cannot be measured does not stop the others, and counts as INVALID.
    """
    from edgeprune import api
    from edgeprune.cli.render import fleet, results, series
    from edgeprune.steps.fleet_devices import names_group

    several = len(devices) > 1 or fleet_share is not None or names_group(devices[0])
    if several and (other is not None or rate is not None or sustain is not None):
        raise click.UsageError("--compare, --rate and --sustain work on one device: name one")
    device = devices[0]

    if other is not None and (rate is not None or sustain is not None):
        raise click.UsageError("--compare and --rate or --sustain exclude one another")
    if other is None and rounds is not None:
        raise click.UsageError("--rounds needs --compare; --runs says how often one artifact is run")
    if memory_mb is None and memory_of is not None:
        raise click.UsageError("--memory-of needs --memory-mb")

    policy = api.BenchPolicy(
        threads=threads,
        cpus=cpus,
        processes=processes,
        runs=runs,
        p50_ms=p50_ms,
        p99_ms=p99_ms,
        memory_mb=memory_mb,
        memory_of=memory_of or "process",
        confidence=confidence,
        percentiles=percentiles or (50.0, 90.0, 99.0, 99.9),
    )
    with options.reporting(silent=quiet) as reporter:
        if other is not None:
            compared = api.compare(
                artifact, other, device=device, rounds=rounds or 10, policy=policy, reporter=reporter
            )
            click.echo(series.comparison(compared, output_format))
            return 0
        if rate is not None or sustain is not None:
            paced = api.bench_paced(
                artifact, rate_hz=rate, sustain_s=sustain, device=device, policy=policy, reporter=reporter
            )
            click.echo(series.paced(paced, output_format))
            return paced.judgement.verdict.exit_code
        if several:
            found = api.bench_fleet(artifact, devices=devices, share=fleet_share, policy=policy, reporter=reporter)
            click.echo(fleet.fleet(found, output_format))
            return found.verdict.exit_code
        result = api.bench(artifact, device=device, policy=policy, reporter=reporter)
    click.echo(results.bench(result, output_format))
    return result.judgement.verdict.exit_code


COMMAND: Final[click.Command] = command
