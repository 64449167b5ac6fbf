"""What a report says first and what it rests on, as words and numbers. No layout here, no HTML."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from edgeprune.clustering import ProcessSamples
from edgeprune.cpu_list import format_cpus
from edgeprune.records.accuracy import Accuracy
from edgeprune.records.measurement import Block, Measurement
from edgeprune.records.result import BuildResult, Candidate
from edgeprune.reporting.quantities import direction, signed, signed_points, times
from edgeprune.statistics import summarise
from edgeprune.units import NS_PER_S, format_mb, format_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """One of the few figures that are read first."""

    value: str
    label: str
    detail: str


def subject_of(result: BuildResult) -> Candidate | None:
    """The candidate that the report is about: the chosen one, else the nearest miss.

    The nearest miss has the verdict of the build and the fewest gates that did not pass; among equals the fastest.
    """
    if result.chosen is not None:
        return result.chosen
    missed = [c for c in result.candidates if c.judgement is not None and c.measurement is not None]
    same = [c for c in missed if c.judgement is not None and c.judgement.verdict is result.verdict]
    return min(same or missed, key=_distance, default=None)


def _distance(candidate: Candidate) -> tuple[int, float]:
    gates = candidate.judgement.gates if candidate.judgement else ()
    return sum(g.verdict.exit_code != 0 for g in gates), candidate.percentile_ms(50.0) or 0.0


def deciding_percent(result: BuildResult) -> float:
    """99 unless the budget limits the median alone."""
    limits = result.plan.limits
    return 50.0 if limits.p99_ms is None and limits.p50_ms is not None else 99.0


def headline(result: BuildResult) -> str:
    """One sentence: did it pass?"""
    where = f"the {result.profile} budget on {result.device}"
    if result.chosen is not None:
        return f"{result.chosen.rung.name} meets {where}"
    subject = subject_of(result)
    if subject is None:
        return f"No candidate could be measured against {where}"
    return f"No candidate was shown to meet {where}; the nearest is {subject.rung.name}"


def tiles(result: BuildResult) -> tuple[Tile, ...]:
    """Speed, accuracy, size: how much was won and what it cost."""
    dense, subject = result.dense, subject_of(result)
    if subject is None:
        return ()
    made = [_speed_tile(result, subject)]
    if dense.validation is not None and subject.validation is not None:
        made.append(_quality_tile(dense.validation, subject.validation))
    if dense.artifact is not None and subject.artifact is not None:
        sizes = dense.artifact.size_bytes, subject.artifact.size_bytes
        detail = f"{format_mb(sizes[0])} to {format_mb(sizes[1])}"
        made.append(Tile(value=times(*sizes), label=direction(*sizes, "smaller", "larger"), detail=detail))
    return tuple(t for t in made if t is not None)


def _quality_tile(before: Accuracy, after: Accuracy) -> Tile:
    if before.is_share:
        detail = f"{before.value:.2%} to {after.value:.2%} on validation data"
        return Tile(value=signed_points(before.value, after.value), label=f"points of {before.metric}", detail=detail)
    better = "higher" if before.higher_is_better else "lower"
    detail = f"{before.told} to {after.told} on validation data; {better} is better"
    return Tile(value=signed(before.value, after.value), label=before.metric, detail=detail)


def _speed_tile(result: BuildResult, subject: Candidate) -> Tile | None:
    percent = deciding_percent(result)
    before, after = result.dense.percentile_ms(percent), subject.percentile_ms(percent)
    if before is None or after is None:
        return None
    limit_ms = result.plan.limits.p99_ms if percent > 50 else result.plan.limits.p50_ms  # noqa: PLR2004
    budget = "" if limit_ms is None else f", budget {format_ms(limit_ms)}"
    return Tile(
        value=times(before, after),
        label=f"{direction(before, after, 'faster', 'slower')} at p{percent:g}",
        detail=f"{format_ms(before)} to {format_ms(after)}{budget}",
    )


def _gate_limit(result: BuildResult, gate: str) -> float | None:
    judged = (c.judgement for c in result.candidates if c.judgement is not None)
    return next((g.limit for j in judged for g in j.gates if g.gate == gate), None)


def accuracy_floor_percent(result: BuildResult) -> float | None:
    """The accuracy floor in percent, where a candidate was held to one."""
    return _gate_limit(result, "accuracy")


def evidence(measurement: Measurement | None) -> tuple[tuple[str, str], ...]:
    """What shows that the samples may be believed: (name, value)."""
    if measurement is None or not measurement.blocks:
        return ()
    blocks = measurement.blocks
    wall_s = sum(b.wall_ns for b in blocks) / NS_PER_S
    return (
        ("processes", f"{len(blocks)}, each fresh"),
        ("timed runs", f"{len(measurement.samples_ns)} ({_range(blocks, lambda b: len(b.samples_ns))} a process)"),
        *_spread(measurement),
        ("warm-up runs thrown away", _range(blocks, lambda b: b.warmup_runs)),
        ("steady after warm-up", f"{sum(b.warmup_steady for b in blocks)} of {len(blocks)} processes"),
        ("threads, pinned cores", f"{measurement.threads}, {_cores(blocks)}"),
        ("time measured", f"{wall_s:.1f} s"),
        ("share of CPU time", f"{sum(b.cpu_ns for b in blocks) / max(1, sum(b.wall_ns for b in blocks)):.1%}"),
        ("involuntary context switches", _range(blocks, lambda b: b.involuntary_switches)),
        (
            "pages mapped, read from disk",
            f"{_sum(blocks, lambda b: b.minor_faults)}, {sum(b.major_faults for b in blocks)}",
        ),
        ("stolen by the hypervisor", f"{sum(b.steal_ticks for b in blocks) / 100:.2f} s"),
        ("others on the pinned cores", f"{sum(b.other_ticks for b in blocks) / 100:.2f} s"),
        ("fixed probe of the core", _probes(blocks)),
        ("load average", _highest(blocks, lambda b: b.load_average, "")),
        ("temperature", _highest(blocks, lambda b: b.temperature_c_after, " °C")),
        ("clock source", ", ".join(sorted({b.clock_source for b in blocks if b.clock_source})) or "not told"),
        ("memory before loading", format_mb(max(b.base_bytes for b in blocks))),
        ("peak while loading", format_mb(max(b.peak_load_bytes for b in blocks))),
        *_running(blocks),
        ("the model's own memory", format_mb(max(b.model_bytes for b in blocks))),
        ("looks", f"{measurement.looks} of {measurement.planned_looks}, {measurement.confidence:.0%} confidence"),
        ("disturbed blocks, not counted", str(len(measurement.disturbed))),
    )


def _running(blocks: tuple[Block, ...]) -> tuple[tuple[str, str], ...]:
    peak, shares = max(b.peak_run_bytes for b in blocks), [b.pss_bytes for b in blocks if b.pss_bytes is not None]
    rows = (("peak while running", f"{format_mb(peak)} ({blocks[0].peak_run_by})"),) if peak else ()
    return (*rows, ("proportional set size", format_mb(max(shares)))) if shares else rows


def _spread(measurement: Measurement) -> tuple[tuple[str, str], ...]:
    found = summarise(ProcessSamples(measurement.processes_ns))
    medians = found.process_p50_ms
    return (
        ("p50 of each process", f"{format_ms(min(medians))} to {format_ms(max(medians))}"),
        ("spread within a process", format_ms(found.within_process_ms)),
        ("spread between processes", format_ms(found.between_process_ms)),
        ("correlation of runs of one process", f"{found.correlation:.2f}"),
    )


def _probes(blocks: tuple[Block, ...]) -> str:
    found = [p / 1e6 for b in blocks for p in (b.probe_before_ns, b.probe_after_ns) if p]
    return f"{format_ms(min(found))} to {format_ms(max(found))}" if found else "not told"


def _highest(blocks: tuple[Block, ...], value: Callable[[Block], float | None], unit: str) -> str:
    found = [v for v in map(value, blocks) if v is not None]
    return f"{max(found):.1f}{unit} at most" if found else "not told"


def _sum(blocks: tuple[Block, ...], value: Callable[[Block], int | None]) -> str:
    found = [v for v in map(value, blocks) if v is not None]
    return str(sum(found)) if found else "not told"


def _range(blocks: tuple[Block, ...], value: Callable[[Block], int]) -> str:
    found = [value(b) for b in blocks]
    return f"{min(found)}" if min(found) == max(found) else f"{min(found)} to {max(found)}"


def _cores(blocks: tuple[Block, ...]) -> str:
    return " and ".join(sorted({format_cpus(b.cpus) for b in blocks}))
