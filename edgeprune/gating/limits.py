"""Limits that are relative to the dense model, made absolute from its raw samples."""

from __future__ import annotations

from dataclasses import replace

from edgeprune.records.measurement import Measurement
from edgeprune.records.verdict import Evidence
from edgeprune.statistics import quantile_lower_bound
from edgeprune.units import ms_from_ns

BASELINE_CONFIDENCE = 0.999
"""Of the bound on the baseline. It adds at most 0.001 to the error of a PASS, and with 600 samples it lies within a few
ranks of the point value."""


def with_absolute_limits(evidence: Evidence) -> Evidence:
    """Turn `speedups` into limits in milliseconds.

    "Four times faster than dense" is held against the lower confidence bound of the dense model's percentile, not its
    point value: a baseline that was slow by chance must not make a candidate look fast. Where the baseline has too few
    samples for a bound, the limit is 0 and no candidate passes.
    """
    speedups = evidence.speedups
    limits = evidence.limits
    if speedups.p50 is not None:
        limits = replace(limits, p50_ms=_bound_ms(evidence.baseline, 0.50) / speedups.p50)
    if speedups.p99 is not None:
        limits = replace(limits, p99_ms=_bound_ms(evidence.baseline, 0.99) / speedups.p99)
    return replace(evidence, limits=limits)


def _bound_ms(baseline: Measurement | None, q: float) -> float:
    if baseline is None or not baseline.blocks:
        return 0.0
    return ms_from_ns(quantile_lower_bound(sorted(baseline.samples_ns), q, BASELINE_CONFIDENCE))
