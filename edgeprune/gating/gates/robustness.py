"""Accuracy under each corruption of the validation images; the target's metric where an example has not one class."""

from __future__ import annotations

from typing import Final

from edgeprune.gating.scores import judge_part_scores
from edgeprune.gating.shares import judge_shares
from edgeprune.protocols import Gate
from edgeprune.records.verdict import Evidence, GateResult


class RobustnessGate:
    """PASS where noise, blur, brightness and shifts cost the artifact no more than the target allows."""

    def judge(self, evidence: Evidence) -> GateResult | None:
        """Judge each corruption from its counts or the metric there; None where the target sets no floor."""
        accuracy, floors = evidence.accuracy, evidence.floors
        if floors.robustness_scores:
            scores = None if accuracy is None else accuracy.robustness_scores
            return judge_part_scores("robustness", "corruption", floors.robustness_scores, scores)
        shares = None if accuracy is None else accuracy.robustness
        return judge_shares("robustness", "corruption", floors.robustness, shares)


GATE: Final[Gate] = RobustnessGate()
