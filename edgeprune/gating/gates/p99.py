"""The 99th percentile of latency on the device, held to `Limits.p99_ms`."""

from __future__ import annotations

from typing import Final

from edgeprune.gating.latency import LatencyLimit, judge_latency
from edgeprune.protocols import Gate
from edgeprune.records.verdict import Evidence, GateResult


class P99Gate:
    """PASS where the 99th percentile is at or under its limit with the measurement's confidence."""

    def judge(self, evidence: Evidence) -> GateResult | None:
        """Judge from the raw samples; None where the budget sets no limit."""
        limit_ms = evidence.limits.p99_ms
        if limit_ms is None:
            return None
        return judge_latency(evidence, LatencyLimit(gate="p99", percent=99.0, limit_ms=limit_ms))


GATE: Final[Gate] = P99Gate()
