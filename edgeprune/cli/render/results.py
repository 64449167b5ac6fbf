"""Results as text for people and as JSON for programs."""

from __future__ import annotations

import io
import json
import textwrap
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from edgeprune.cpu_list import on_cores
from edgeprune.records.codec import to_plain
from edgeprune.records.control import Control
from edgeprune.records.verdict import Verdict
from edgeprune.units import format_mb, format_ms, format_seconds

if TYPE_CHECKING:
    from edgeprune.records.accuracy import Accuracy
    from edgeprune.records.measurement import Block, LatencySummary, Measurement
    from edgeprune.records.result import BenchResult, BuildResult, Candidate
    from edgeprune.records.rung import Plan
    from edgeprune.records.verdict import Judgement

_WIDTH = 118
_PLAN_WIDTH = 100

_REASONS = 3


def build(result: BuildResult, output_format: str) -> str:
    """The dense and the chosen model side by side, the verdict, and where the files are."""
    if output_format == "json":
        return json.dumps({**to_plain(result), "exit_code": result.exit_code})
    dense = [c for c in result.candidates if c.status == "dense"]
    rows = [("dense (fastest)", result.dense), *((f"dense ({c.rung.runtime})", c) for c in dense)]
    if result.chosen is not None:
        rows.append(("chosen", result.chosen))
    table = _table("model", "rung", "val acc", "test acc", "p50", "p99", "memory", "size", "speed-up p50 / p99")
    for name, candidate in rows:
        table.add_row(name, *_candidate_cells(candidate, result.dense))
    lines = [render(table), _closing(result)]
    lines += [_wrapped(f"control   {control_line(control)}") for control in result.controls]
    if result.chosen is not None:
        if result.chosen.variants is not None:
            search = result.chosen.variants
            how = f"the best of {len(search.trials)} ways that were tried" if search.trials else search.why
            lines.append(f"quantized {search.chosen.name}, {how}")
        lines.append(f"artifact  {result.folder}/artifact")
    lines.append(f"report    {result.folder}/report.html")
    return "\n".join(lines)


def control_line(control: Control) -> str:
    """`random: 91.20 % on validation data, 90.80 % on test data (how it was made)`."""
    if control.reason:
        return f"{control.name}: none: {control.reason}"
    shown = [
        f"{accuracy.told} on {accuracy.split} data"
        for accuracy in (control.validation, control.test)
        if accuracy is not None
    ]
    return f"{control.name}: {', '.join(shown)} ({control.how})"


def plan(found: Plan, output_format: str) -> str:
    """The ladder: planned rungs in order, then the refused ones; below, why each stands where it does.

    As JSON the record, and under `no` what a no says: its message, the best, the least budget, what limits it.
    """
    from edgeprune.steps.refusal import budget_text, no_plan_error

    no = None if found.planned else no_plan_error(found)
    if output_format == "json":
        told = None if no is None else {"message": no.message, **no.facts}
        return json.dumps({"schema": 1, **to_plain(found), "no": told})
    from edgeprune.reporting.plan_rows import cost_meaning, memory_title, plan_rows

    rows = plan_rows(found)
    table = _table("#", "rung", "", "p50", "p99 (hint)", memory_title(found), "size", "cost")
    for row in rows:
        table.add_row(str(row.number), row.name, row.status, row.p50, row.p99, row.memory, row.size, row.cost)
    lines = [render(table, _PLAN_WIDTH), "why", *(_numbered(row.number, row.short_reason) for row in rows), ""]
    measured = "shapes are measured untrained, after a tilde only predicted"
    lines.append(_wrapped(f"budget: {budget_text(found.limits)}; {measured}; {cost_meaning(found)}"))
    lines += [_wrapped(f"note: {note}") for note in found.notes]
    if no is not None:
        lines.append(no.message)
    return "\n".join(lines)


def _numbered(number: int, reason: str) -> str:
    return textwrap.fill(reason, _PLAN_WIDTH, initial_indent=f"{number:>3}  ", subsequent_indent="     ")


def _wrapped(text: str) -> str:
    return textwrap.fill(text, _PLAN_WIDTH, subsequent_indent="  ", break_on_hyphens=False)


def bench(result: BenchResult, output_format: str) -> str:
    """Percentiles with their bounds, and what they were measured from."""
    if output_format == "json":
        return json.dumps(to_plain(result))
    table = _table("percentile", "latency", "bound at confidence", "runs", "worth, independent")
    for found in result.percentiles:
        upper = "unbounded: too few runs" if found.upper_ms is None else format_ms(found.upper_ms)
        table.add_row(
            f"p{found.percent:g}",
            format_ms(found.value_ms),
            f"{format_ms(found.lower_ms)} to {upper} ({found.confidence:.0%})",
            str(found.samples),
            "-" if found.effective_samples is None else f"{found.effective_samples:.0f}",
        )
    if result.summary is not None:
        summary = _summary_lines(result.summary)
    else:
        reasons = list(dict.fromkeys(d.reason for d in result.measurement.disturbed))
        summary = [f"no valid block: {reason}" for reason in reasons[:_REASONS]]
        summary += [f"and {len(reasons) - _REASONS} more such reasons"] if len(reasons) > _REASONS else []
    measurement = result.measurement
    head = (
        f"{result.artifact.files[0].name} on {result.device}: {measurement.runtime}, {measurement.precision}, "
        f"{on_cores(measurement.threads, measurement.cpus)}"
    )
    load = "load -" if result.load_ms is None else f"load {format_ms(result.load_ms)}"
    foot = f"{load}, {len(measurement.blocks)} processes, {len(measurement.disturbed)} disturbed and not counted"
    lines = [head, render(table), *summary, foot, memory(measurement), *_warmup_lines(measurement.blocks)]
    if result.judgement.gates or result.judgement.verdict is not Verdict.PASS:
        lines.append(gate(result.judgement, "text"))
    return "\n".join(lines)


def memory(measurement: Measurement) -> str:
    """The largest process: its peaks while loading and running, its fair share, and the model's own part."""
    blocks = measurement.all_blocks
    peak, loading = max(b.peak_bytes for b in blocks), max(b.peak_load_bytes for b in blocks)
    running = max(b.peak_run_bytes for b in blocks)
    shares = [b.pss_bytes for b in blocks if b.pss_bytes is not None]
    parts = [
        f"peak memory {format_mb(peak)}: loading {format_mb(loading)}",
        f"running {format_mb(running)} ({blocks[0].peak_run_by})" if running else "",
        f"proportional share {format_mb(max(shares))}" if shares else "",
        f"the model's own {format_mb(max(b.model_bytes for b in blocks))}",
    ]
    return ", ".join(part for part in parts if part)


def _summary_lines(summary: LatencySummary) -> list[str]:
    least, largest = min(summary.process_p50_ms), max(summary.process_p50_ms)
    spread = (
        f"min {format_ms(summary.minimum_ms)}, mean {format_ms(summary.mean_ms)}, standard deviation "
        f"{format_ms(summary.standard_deviation_ms)} ({format_ms(summary.within_process_ms)} within a process, "
        f"{format_ms(summary.between_process_ms)} between), {summary.samples} runs"
    )
    return [
        spread,
        f"p50 of each process: {format_ms(least)} to {format_ms(largest)} over {summary.processes} processes",
        f"percentile: {summary.percentile_rule}",
        f"bound: {summary.bound_rule}",
    ]


def _warmup_lines(blocks: tuple[Block, ...]) -> list[str]:
    if not blocks:
        return []
    runs = [b.warmup_runs for b in blocks]
    lines = [f"warm-up: {min(runs)} to {max(runs)} runs a process thrown away"]
    unsteady = sum(not b.warmup_steady for b in blocks)
    if unsteady:
        lines.append(f"warning: not yet steady when the warm-up ended in {unsteady} of {len(blocks)} processes")
    return lines


def gate(judgement: Judgement, output_format: str) -> str:
    """Every gate with its numbers, and the verdict."""
    if output_format == "json":
        return json.dumps({"schema": 1, **to_plain(judgement), "exit_code": judgement.verdict.exit_code})
    table = _table("gate", "verdict", "measured", "bound", "limit", "reason")
    for found in judgement.gates:
        numbers = (
            f"{v:.4g} {found.unit}" if v is not None else "-" for v in (found.measured, found.bound, found.limit)
        )
        table.add_row(found.gate, found.verdict, *numbers, found.reason)
    return f"{render(table)}\nverdict: {judgement.verdict}"


def changes(lines: tuple[str, ...], output_format: str) -> str:
    """What changed since the last build."""
    if output_format == "json":
        return json.dumps({"schema": 1, "changes": lines})
    return "\n".join(lines) if lines else "nothing changed since the last build"


def render(table: Table, width: int = _WIDTH) -> str:
    """A table as plain text of a fixed width, so that it reads the same in a log and in a pipe."""
    stream = io.StringIO()
    Console(file=stream, width=width, color_system=None, markup=False, emoji=False).print(table)
    return "\n".join(line.rstrip() for line in stream.getvalue().rstrip().splitlines())


def _table(*columns: str) -> Table:
    from rich import box

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _candidate_cells(candidate: Candidate, dense: Candidate) -> tuple[str, ...]:
    p50, p99 = candidate.percentile_ms(50.0), candidate.percentile_ms(99.0)
    speedups = [
        f"{base / value:.2f}x" if base and value else "-"
        for base, value in ((dense.percentile_ms(50.0), p50), (dense.percentile_ms(99.0), p99))
    ]
    return (
        candidate.rung.name,
        _percent(candidate.validation),
        _percent(candidate.test),
        format_ms(p50) if p50 else "-",
        format_ms(p99) if p99 else "-",
        format_mb(candidate.measurement.peak_bytes) if candidate.measurement else "-",
        format_mb(candidate.artifact.size_bytes) if candidate.artifact else "-",
        " / ".join(speedups),
    )


def _closing(result: BuildResult) -> str:
    took = format_seconds(result.seconds)
    if result.verdict is Verdict.PASS:
        return f"verdict   PASS on {result.device}, after {took}"
    tried = "; ".join(f"{c.rung.name}: {c.reason}" for c in result.candidates if c.status != "dense")
    return f"verdict   {result.verdict}: no candidate passed on {result.device}, after {took}\n{tried}"


def _percent(accuracy: Accuracy | None) -> str:
    return accuracy.told if accuracy else "-"
