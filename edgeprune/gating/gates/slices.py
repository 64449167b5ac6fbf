"""Accuracy on each named slice of the validation data, held to `Floors.slices`."""

from __future__ import annotations

from typing import Final

from edgeprune.gating.shares import judge_shares
from edgeprune.protocols import Gate
from edgeprune.records.verdict import Evidence, GateResult


class SlicesGate:
    """PASS where every slice that has a floor is at or over it: an average can hide a camera, a site or a speaker."""

    def judge(self, evidence: Evidence) -> GateResult | None:
        """Judge each slice from its counts; None where the target sets no floor."""
        accuracy = evidence.accuracy
        return judge_shares("slices", "slice", evidence.floors.slices, None if accuracy is None else accuracy.slices)


GATE: Final[Gate] = SlicesGate()
