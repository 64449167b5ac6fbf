"""Recall of each class, held to the floor that follows from the dense model's recall of the same class."""

from __future__ import annotations

from typing import Final

from edgeprune.gating.shares import judge_shares
from edgeprune.protocols import Gate
from edgeprune.records.verdict import Evidence, GateResult


class ClassesGate:
    """PASS where no class fell too far: one may, while another stays the worst and the average hides both."""

    def judge(self, evidence: Evidence) -> GateResult | None:
        """Judge each class from the confusion matrix; None where the target sets no floor."""
        accuracy = evidence.accuracy
        return judge_shares("classes", "class", evidence.floors.classes, None if accuracy is None else accuracy.classes)


GATE: Final[Gate] = ClassesGate()
