"""What the two latency gates share: a percentile held to a limit by its confidence bound."""

from __future__ import annotations

import math
from dataclasses import replace

from edgeprune.clustering import ProcessSamples, unseen_share
from edgeprune.gating.limits import LatencyLimit
from edgeprune.records.measurement import Measurement
from edgeprune.records.verdict import GateResult, Verdict
from edgeprune.statistics import QuantileJudgement, confidence_per_look, judge_quantile
from edgeprune.units import format_ms, ms_from_ns, ns_from_ms

# Address layout and memory placement differ between processes; with fewer than three of them a slow one cannot be
# told from a slow model.
LEAST_PROCESSES = 3


def judge_latency(measurement: Measurement | None, limit: LatencyLimit) -> GateResult:
    """Hold a percentile of the pooled raw samples to its limit, by a bound that allows for differing processes.

    The error that the measurement allows is split over the looks that were planned, so that the last look of the
    sampling and every later judgement of the same evidence agree.

    Returns:
        PASS or FAIL where a bound decides; INCONCLUSIVE where none does, or nothing was measured; INVALID where
        the device stayed disturbed until sampling gave up, or disturbances left fewer than three processes.
    """
    if measurement is None:
        return _undecided(limit, Verdict.INCONCLUSIVE, "not measured")
    if stayed_disturbed(measurement):
        return _undecided(limit, Verdict.INVALID, _disturbances(measurement))
    if len(measurement.blocks) < LEAST_PROCESSES:
        return _undecided(
            limit,
            Verdict.INCONCLUSIVE,
            f"only {len(measurement.blocks)} of at least {LEAST_PROCESSES} processes were measured in the time allowed",
        )
    confidence = confidence_per_look(measurement.confidence, measurement.planned_looks)
    samples, q = ProcessSamples(measurement.processes_ns), limit.percent / 100.0
    judged = judge_quantile(samples, q, ns_from_ms(limit.pass_ms), confidence)
    if judged.verdict is Verdict.FAIL:
        # Over the limit for a PASS is not yet over the limit for a FAIL, where the limit itself is uncertain.
        over = judged.lower_ns > ns_from_ms(limit.fail_ms)
        judged = judged if over else replace(judged, verdict=Verdict.INCONCLUSIVE)
    return GateResult(
        gate=limit.gate,
        verdict=judged.verdict,
        measured=ms_from_ns(judged.value_ns),
        bound=ms_from_ns(judged.bound_ns) if math.isfinite(judged.bound_ns) else None,
        limit=limit.pass_ms,
        unit="ms",
        reason=_reason(limit, judged, confidence, samples)
        + (f"; limit: {limit.relative_to}" * bool(limit.relative_to)),
    )


def _reason(limit: LatencyLimit, judged: QuantileJudgement, confidence: float, samples: ProcessSamples) -> str:
    worth = samples.effective_samples(limit.percent / 100.0, confidence)
    basis = (
        f"{confidence:.1%} confidence, {len(samples)} runs in {len(samples.processes)} processes, "
        f"worth {worth:.0f} independent ones"
    )
    lower, upper = format_ms(ms_from_ns(judged.lower_ns)), format_ms(ms_from_ns(judged.upper_ns))
    if judged.verdict is Verdict.PASS:
        unseen = unseen_share(len(samples.processes), confidence)
        return f"{limit.gate} is at most {upper} ({basis}; a kind of process rarer than {unseen:.0%} may be unseen)"
    if judged.verdict is Verdict.FAIL:
        return f"{limit.gate} is at least {lower} ({basis})"
    if not math.isfinite(judged.upper_ns):
        return f"too few runs to bound {limit.gate} from above ({basis})"
    return f"{limit.gate} is between {lower} and {upper}, and the limit lies between them ({basis})"


def stayed_disturbed(measurement: Measurement) -> bool:
    """Whether disturbances kept the measurement from being one: it gave up, or has too few processes left."""
    few = len(measurement.blocks) < LEAST_PROCESSES
    return measurement.gave_up or (few and bool(measurement.disturbed))


def _disturbances(measurement: Measurement) -> str:
    valid, disturbed = len(measurement.blocks), len(measurement.disturbed)
    reasons = tuple(dict.fromkeys(d.reason for d in measurement.disturbed))
    more = f" (and {len(reasons) - 1} other reasons)" if len(reasons) > 1 else ""
    needed = f"at least {LEAST_PROCESSES} must" if valid < LEAST_PROCESSES else "sampling gave up"
    return f"the device was disturbed: {valid} of {valid + disturbed} processes count, {needed}; {reasons[0]}{more}"


def _undecided(limit: LatencyLimit, verdict: Verdict, reason: str) -> GateResult:
    return GateResult(
        gate=limit.gate,
        verdict=verdict,
        measured=None,
        bound=None,
        limit=limit.pass_ms,
        unit="ms",
        reason=reason,
    )
