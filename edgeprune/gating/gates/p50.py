"""The 50th percentile of latency on the device, held to `Limits.p50_ms`."""

from __future__ import annotations

from typing import Final

from edgeprune.gating.latency import judge_latency
from edgeprune.gating.limits import latency_limit
from edgeprune.protocols import Gate
from edgeprune.records.verdict import Evidence, GateResult


class P50Gate:
    """PASS where the 50th percentile is at or under its limit with the measurement's confidence."""

    def judge(self, evidence: Evidence) -> GateResult | None:
        """Judge from the raw samples; None where the budget sets no limit."""
        limit = latency_limit(evidence, 50.0)
        return None if limit is None else judge_latency(evidence.measurement, limit)


GATE: Final[Gate] = P50Gate()
