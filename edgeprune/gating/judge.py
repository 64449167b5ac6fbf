"""One verdict from the evidence of one candidate."""

from __future__ import annotations

from dataclasses import replace

from edgeprune.gating.gates import GATES
from edgeprune.gating.latency import stayed_disturbed
from edgeprune.records.measurement import Measurement
from edgeprune.records.verdict import Evidence, Judgement, Verdict, worst_verdict

ACCURACY_GATES = frozenset({"accuracy", "worst_class", "classes", "slices", "robustness"})
"""Those that judge answers: measuring again changes nothing of what they say."""

_LATENCY_GATES = ("p50", "p99")


def judge(evidence: Evidence) -> Judgement:
    """Ask every gate of the folder; gates without a limit stay silent, the worst of the others is the verdict.

    Nothing passes on a device that stayed disturbed, whatever was asked.
    The same evidence gives the same judgement, whenever and wherever it is judged.
    """
    judged = _ask(evidence, GATES.names())
    if evidence.measurement is None or not stayed_disturbed(evidence.measurement):
        return judged
    return replace(judged, verdict=worst_verdict((judged.verdict, Verdict.INVALID)))


def judge_latency(evidence: Evidence, measurement: Measurement, baseline: Measurement | None) -> Verdict:
    """The verdict of the latency gates alone, while the samples are still coming in."""
    return _ask(replace(evidence, measurement=measurement, baseline=baseline), _LATENCY_GATES).verdict


def _ask(evidence: Evidence, names: tuple[str, ...]) -> Judgement:
    asked = (GATES.get(name).judge(evidence) for name in names)
    results = tuple(result for result in asked if result is not None)
    return Judgement(verdict=worst_verdict(r.verdict for r in results), gates=results)
