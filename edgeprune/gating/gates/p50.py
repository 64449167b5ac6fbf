"""The 50th percentile of latency on the device, held to `Limits.p50_ms`."""

from __future__ import annotations

from typing import Final

from edgeprune.gating.latency import LatencyLimit, judge_latency
from edgeprune.protocols import Gate
from edgeprune.records.verdict import Evidence, GateResult


class P50Gate:
    """PASS where the 50th percentile is at or under its limit with the measurement's confidence."""

    def judge(self, evidence: Evidence) -> GateResult | None:
        """Judge from the raw samples; None where the budget sets no limit."""
        limit_ms = evidence.limits.p50_ms
        if limit_ms is None:
            return None
        return judge_latency(evidence, LatencyLimit(gate="p50", percent=50.0, limit_ms=limit_ms))


GATE: Final[Gate] = P50Gate()
