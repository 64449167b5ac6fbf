"""Latency against a release: p50 and p99, as ratios to the dense model beside each, held to `1 + max_regression`."""

from __future__ import annotations

import math
from typing import Final

from edgeprune.gating.latency import LEAST_PROCESSES
from edgeprune.gating.ratio import Campaign, RatioOfRatios, ratios_of_ratios
from edgeprune.protocols import Gate
from edgeprune.records.measurement import Measurement
from edgeprune.records.verdict import Evidence, GateResult, Release, Verdict, worst_verdict
from edgeprune.statistics import confidence_per_look, smallest_sample_count

_PERCENTS = (50.0, 99.0)
_OWN_SIDE = "this run"


class RegressionGate:
    """PASS where neither percentile is slower than the release's by more than the margin, with confidence."""

    def judge(self, evidence: Evidence) -> GateResult | None:
        """Judge from the raw samples of both campaigns; None where no release is given."""
        release = evidence.release
        if release is None:
            return None
        if evidence.measurement is None or evidence.baseline is None:
            return _result(release, Verdict.INCONCLUSIVE, None, "not measured")
        now, then = (evidence.measurement, evidence.baseline), (release.measurement, release.baseline)
        for name, pair in ((_OWN_SIDE, now), (f"release {release.name}", then)):
            for measurement in pair:
                short = _too_little(measurement, name)
                if short is not None:
                    return _result(release, *short)
        return _judge_ratios(release, _campaign(*now), _campaign(*then), _confidence(evidence.measurement))


def _judge_ratios(release: Release, now: Campaign, then: Campaign, confidence: float) -> GateResult:
    ratios = ratios_of_ratios(now, then, _PERCENTS, confidence)
    verdicts = [_verdict(ratio, 1.0 + release.max_regression) for ratio in ratios]
    verdict = worst_verdict(verdicts)
    # Of those that gave the verdict, the one that is nearest to, or furthest over, the limit.
    deciding = max((r for r, v in zip(ratios, verdicts, strict=True) if v is verdict), key=lambda r: r.upper)
    told = " and ".join(f"p{r.percent:g} {r.value:.3f} times ({r.lower:.3f} to {_upper(r.upper)})" for r in ratios)
    reason = (
        f"{told} that of {release.name}, each as a ratio to the dense model measured in turn, so that a drift of the "
        f"device cancels; {confidence:.0%} confidence, bootstrap over {len(now.candidate)} and {len(then.candidate)} "
        "processes"
    )
    reason += f"; {release.remark}" if release.remark else ""
    return _result(release, verdict, deciding, reason)


def _verdict(ratio: RatioOfRatios, limit: float) -> Verdict:
    if ratio.upper <= limit:
        return Verdict.PASS
    return Verdict.FAIL if ratio.lower > limit else Verdict.INCONCLUSIVE


def _confidence(measurement: Measurement) -> float:
    """Two-sided, of each percentile.

    Half of the error is on each side. A FAIL needs one of two percentiles, so it errs at most twice that, which is the
    error of the campaign; a PASS needs both, so it errs at most half of it. A campaign stops at a look that its own
    gates chose, so the error is split over the looks that were planned.
    """
    return confidence_per_look(measurement.confidence, measurement.planned_looks)


def _too_little(measurement: Measurement, name: str) -> tuple[Verdict, None, str] | None:
    valid, samples = len(measurement.blocks), len(measurement.samples_ns)
    if valid < LEAST_PROCESSES:
        verdict = Verdict.INVALID if measurement.disturbed else Verdict.INCONCLUSIVE
        why = f", {measurement.disturbed[0].reason}" if measurement.disturbed else ""
        return verdict, None, f"{name}: {valid} of at least {LEAST_PROCESSES} processes count{why}"
    least = smallest_sample_count(max(_PERCENTS) / 100.0, measurement.confidence)
    if samples < least:
        return Verdict.INCONCLUSIVE, None, f"{name}: {samples} runs say nothing of p99, at least {least} do"
    return None


def _campaign(candidate: Measurement, dense: Measurement) -> Campaign:
    return Campaign(candidate=candidate.blocks, dense=dense.blocks)


def _upper(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "no bound"


def _result(release: Release, verdict: Verdict, ratio: RatioOfRatios | None, reason: str) -> GateResult:
    bound = None
    if ratio is not None:
        bound = ratio.lower if verdict is Verdict.FAIL else ratio.upper
    return GateResult(
        gate="regression",
        verdict=verdict,
        measured=ratio.value if ratio else None,
        bound=bound if bound is None or math.isfinite(bound) else None,
        limit=1.0 + release.max_regression,
        unit="times",
        reason=reason,
    )


GATE: Final[Gate] = RegressionGate()
