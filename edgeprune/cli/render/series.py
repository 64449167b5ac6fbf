"""Comparisons, calibrations and runs at a rate or over a time: text for people and JSON for programs."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table

from edgeprune.cli.render.results import gate, memory, render
from edgeprune.comparison import significant
from edgeprune.cpu_list import on_cores
from edgeprune.records.codec import to_plain
from edgeprune.records.verdict import Verdict
from edgeprune.units import format_ms, format_seconds, ms_from_ns

if TYPE_CHECKING:
    from edgeprune.records.artifact import Artifact
    from edgeprune.records.comparison import Calibration, CompareResult, Ratio
    from edgeprune.records.measurement import Measurement
    from edgeprune.records.paced import PacedResult, Trend


def comparison(result: CompareResult, output_format: str) -> str:
    """The ratios with their intervals, and whether the device can resolve such a difference."""
    if output_format == "json":
        return json.dumps(to_plain(result))
    first, second = _named(result.first_artifact, result.first), _named(result.second_artifact, result.second)
    resolvable = dict(result.smallest)
    table = _table("percentile", "first", "second", "first / second", "interval", "")
    for found in result.ratios:
        table.add_row(
            f"p{found.percent:g}",
            format_ms(found.first_ms),
            format_ms(found.second_ms),
            f"{found.ratio:.4f}",
            f"{found.lower:.4f} to {found.upper:.4f} ({found.confidence:.0%})",
            says(found, resolvable.get(found.percent)),
        )
    disturbed = len(result.first.disturbed)
    head = f"first {first}, second {second}, on {result.device}; under 1 the first is faster"
    foot = (
        f"{len(result.first.blocks)} rounds of one fresh process each, in alternating order, "
        f"{len(result.first.blocks[0].samples_ns)} runs a process; {disturbed} rounds disturbed and measured again"
    )
    return "\n".join([head, render(table), foot, _resolves(result)])


def _named(artifact: Artifact, measurement: Measurement) -> str:
    return f"{artifact.files[0].name} ({measurement.runtime}, {measurement.precision})"


def says(found: Ratio, smallest: float | None) -> str:
    """One ratio in words."""
    difference = abs(found.ratio - 1.0)
    if not found.differs:
        return "no difference shown"
    which = "faster" if found.ratio < 1.0 else "slower"
    finer = smallest is not None and difference < smallest
    return f"first is {difference:.1%} {which}" + (", finer than this device resolves" if finer else "")


def _resolves(result: CompareResult) -> str:
    known = [(percent, smallest) for percent, smallest in result.smallest if smallest is not None]
    if not known:
        return (
            f"what {result.device} can resolve is not known in its state of now: `edgeprune device calibrate "
            f"{result.device}` finds out"
        )
    return "this device resolves " + ", ".join(f"{100 * s:.1f} % at p{p:g}" for p, s in known)


def calibration(found: Calibration, output_format: str) -> str:
    """What the device can resolve, and how often it would raise a false alarm."""
    if output_format == "json":
        return json.dumps(to_plain(found))
    table = _table("percentile", "resolves", "false alarms", "share", "at most (95 %)")
    for row in found.resolutions:
        table.add_row(
            f"p{row.percent:g}",
            f"{row.smallest:.1%}",
            f"{row.false_alarms} of {row.campaigns}",
            f"{row.false_alarm_rate:.0%}",
            f"{row.false_alarm_upper:.0%}",
        )
    taken = datetime.fromtimestamp(found.taken_unix_s, tz=UTC).strftime("%Y-%m-%d %H:%M UTC")
    return (
        f"{found.device} with {found.runtime}, a model of {format_ms(found.p50_ms)}, {taken}\n{render(table)}\n"
        f"each campaign: {found.rounds} rounds, {found.runs} runs a process, intervals at {found.confidence:.0%}; "
        "holds until the device's processor, kernel, cores or runtimes change"
    )


def paced(result: PacedResult, output_format: str) -> str:
    """Rate and missed frames, percentiles, and where sustained each stretch and the trend."""
    if output_format == "json":
        achieved = [b.achieved_hz for b in result.blocks]
        return json.dumps({**to_plain(result), "achieved_hz": achieved})
    measurement = result.measurement
    head = (
        f"{result.artifact.files[0].name} on {result.device}: {measurement.runtime}, {measurement.precision}, "
        f"{on_cores(measurement.threads, measurement.cpus)}"
    )
    lines = [head, _rate(result), render(_percentiles(result))]
    if result.sustained:
        lines += [render(_buckets(result)), _trend(result.trend)]
        lines += [f"disturbed: {result.disturbed}"] if result.disturbed else []
    lines.append(memory(measurement))
    if result.judgement.gates or result.judgement.verdict is not Verdict.PASS:
        lines.append(gate(result.judgement, "text"))
    return "\n".join(lines)


def _rate(result: PacedResult) -> str:
    seconds = sum(b.duration_ns for b in result.blocks) / 1e9
    frames, served = sum(b.frames for b in result.blocks), sum(b.served for b in result.blocks)
    over = f"{len(result.blocks)} process(es), {format_seconds(seconds)}"
    if result.pace.rate_hz is None:
        return f"flat out: {served / seconds:.1f} runs a second, {served} runs in {over}"
    missed = sum(b.missed for b in result.blocks)
    given_up = f", {frames - served} of them given up" if served < frames else ""
    return (
        f"asked {result.pace.rate_hz:g} frames a second, achieved {served / seconds:.2f}; {missed} of {frames} frames "
        f"({missed / frames:.2%}) were not done when the next one came{given_up}; {over}; "
        f"latency counts from each frame's arrival; {len(result.measurement.disturbed)} processes disturbed"
    )


def _percentiles(result: PacedResult) -> Table:
    table = _table("percentile", "latency", *(() if result.sustained else ("bound at confidence",)), "runs")
    for found in result.percentiles:
        upper = "unbounded: too few runs" if found.upper_ms is None else format_ms(found.upper_ms)
        # One process tells nothing of how processes differ: its percentiles get no bound.
        bound = () if result.sustained else (f"{format_ms(found.lower_ms)} to {upper} ({found.confidence:.0%})",)
        table.add_row(f"p{found.percent:g}", format_ms(found.value_ms), *bound, str(found.samples))
    return table


def _buckets(result: PacedResult) -> Table:
    table = _table("from", "to", "runs", "p50", "p99", "max")
    for found in result.blocks[0].buckets:
        values = (format_ms(ms_from_ns(ns)) for ns in (found.p50_ns, found.p99_ns, found.max_ns))
        ends = (format_seconds(found.start_s), format_seconds(found.start_s + found.seconds))
        table.add_row(*ends, str(found.runs), *values)
    return table


def _trend(found: Trend | None) -> str:
    if found is None:
        return "trend of p99: too few stretches to say"
    word = "no trend shown" if not significant(found) else ("rising" if found.tau > 0 else "falling")
    return (
        f"trend of p99: {word} (Mann-Kendall over {found.points} stretches: tau {found.tau:+.2f}, "
        f"p = {found.p_value:.3g}; {found.slope_percent_per_minute:+.2f} % a minute)"
    )


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table
