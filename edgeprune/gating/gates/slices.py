"""Accuracy on each named slice of the validation data; the target's metric where an example has not one class."""

from __future__ import annotations

from typing import Final

from edgeprune.gating.scores import judge_part_scores
from edgeprune.gating.shares import judge_shares
from edgeprune.protocols import Gate
from edgeprune.records.verdict import Evidence, GateResult


class SlicesGate:
    """PASS where every slice that has a floor is at or over it: an average can hide a camera, a site or a speaker."""

    def judge(self, evidence: Evidence) -> GateResult | None:
        """Judge each slice from its counts or the metric there; None where the target sets no floor."""
        accuracy, floors = evidence.accuracy, evidence.floors
        if floors.slice_scores:
            scores = None if accuracy is None else accuracy.slice_scores
            return judge_part_scores("slices", "slice", floors.slice_scores, scores)
        return judge_shares("slices", "slice", floors.slices, None if accuracy is None else accuracy.slices)


GATE: Final[Gate] = SlicesGate()
