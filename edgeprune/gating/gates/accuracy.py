"""Accuracy of the compiled artifact on its validation split, held to `Floors.accuracy`."""

from __future__ import annotations

from typing import Final

from edgeprune.gating.floors import RightAnswers, judge_floor
from edgeprune.protocols import Gate
from edgeprune.records.verdict import Evidence, GateResult


class AccuracyGate:
    """PASS where the share of examples that are right is at or over the floor."""

    def judge(self, evidence: Evidence) -> GateResult | None:
        """Judge the confusion matrix; None where the target sets no floor."""
        floor = evidence.floors.accuracy
        if floor is None:
            return None
        accuracy = evidence.accuracy
        if accuracy is None:
            return judge_floor("accuracy", None, floor)
        answers = RightAnswers(correct=accuracy.correct, total=accuracy.total, subject=f"{accuracy.split} examples")
        return judge_floor("accuracy", answers, floor)


GATE: Final[Gate] = AccuracyGate()
