"""Limits that are relative to the dense model, made absolute from its raw samples."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from edgeprune.clustering import ProcessSamples
from edgeprune.records.measurement import Measurement
from edgeprune.records.rung import Limits
from edgeprune.records.verdict import Evidence
from edgeprune.statistics import quantile_bounds
from edgeprune.units import format_ms, ms_from_ns

BASELINE_CONFIDENCE = 0.999
"""Of each bound on the baseline. It adds at most 0.001 a look to the error of a verdict. With five processes
it lies far from the point value (Student's t with 4 degrees of freedom is 7.2 there), with twenty it is near."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyLimit:
    """A percentile of latency and what it is held to.

    The two limits are equal where the budget is in milliseconds. "Four times faster than dense" is known only as well
    as dense is: a PASS is held against the lower bound of the dense model's percentile, so that a baseline that was
    slow by chance makes no candidate look fast, and a FAIL against the upper one, so that one that was fast by chance
    makes none look slow.

    Attributes:
        pass_ms: at or under this with confidence is a PASS.
        fail_ms: over this with confidence is a FAIL; infinite where the baseline has too few samples.
        relative_to: what a relative limit comes from, for the reason of a verdict; empty for one in milliseconds.
    """

    gate: str
    percent: float
    pass_ms: float
    fail_ms: float
    relative_to: str = ""


def latency_limit(evidence: Evidence, percent: float) -> LatencyLimit | None:
    """The limit of p50 or p99; None where the budget sets none."""
    gate = f"p{percent:g}"
    absolute = {50.0: evidence.limits.p50_ms, 99.0: evidence.limits.p99_ms}[percent]
    speedup = {50.0: evidence.speedups.p50, 99.0: evidence.speedups.p99}[percent]
    if speedup is not None:
        lower_ms, upper_ms = _bounds_ms(evidence.baseline, percent / 100)
        return LatencyLimit(
            gate=gate,
            percent=percent,
            pass_ms=lower_ms / speedup,
            fail_ms=upper_ms / speedup,
            relative_to=f"{speedup:g}x faster than dense, whose {gate} {_told(lower_ms, upper_ms)}",
        )
    if absolute is not None:
        return LatencyLimit(gate=gate, percent=percent, pass_ms=absolute, fail_ms=absolute)
    return None


def _told(lower_ms: float, upper_ms: float) -> str:
    if lower_ms <= 0.0:
        return "is not known yet"
    upper = f" and at most {format_ms(upper_ms)}" if math.isfinite(upper_ms) else ""
    return f"is at least {format_ms(lower_ms)}{upper} ({BASELINE_CONFIDENCE:.1%})"


def absolute_limits(evidence: Evidence) -> Limits:
    """The limits that a PASS was held against, in milliseconds, for people to look at."""
    p50, p99 = latency_limit(evidence, 50.0), latency_limit(evidence, 99.0)
    return replace(evidence.limits, p50_ms=p50.pass_ms if p50 else None, p99_ms=p99.pass_ms if p99 else None)


def _bounds_ms(baseline: Measurement | None, q: float) -> tuple[float, float]:
    """Of the baseline's percentile; nothing passes and nothing fails against one that was not measured."""
    if baseline is None or not baseline.blocks:
        return 0.0, float("inf")
    lower_ns, upper_ns = quantile_bounds(ProcessSamples(baseline.processes_ns), q, BASELINE_CONFIDENCE)
    return ms_from_ns(lower_ns), ms_from_ns(upper_ns)
