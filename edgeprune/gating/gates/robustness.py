"""Accuracy under each corruption of the validation images, held to `Floors.robustness`."""

from __future__ import annotations

from typing import Final

from edgeprune.gating.shares import judge_shares
from edgeprune.protocols import Gate
from edgeprune.records.verdict import Evidence, GateResult


class RobustnessGate:
    """PASS where noise, blur, brightness and shifts cost the artifact no more than the target allows."""

    def judge(self, evidence: Evidence) -> GateResult | None:
        """Judge each corruption from its counts; None where the target sets no floor."""
        accuracy = evidence.accuracy
        shares = None if accuracy is None else accuracy.robustness
        return judge_shares("robustness", "corruption", evidence.floors.robustness, shares)


GATE: Final[Gate] = RobustnessGate()
