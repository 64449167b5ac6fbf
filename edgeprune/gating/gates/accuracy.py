"""Accuracy of the compiled artifact on its validation split, or the target's own metric, held to its floor."""

from __future__ import annotations

from typing import Final

from edgeprune.gating.floors import RightAnswers, judge_floor
from edgeprune.gating.scores import judge_score
from edgeprune.protocols import Gate
from edgeprune.records.verdict import Evidence, GateResult


class AccuracyGate:
    """PASS where the share of examples that are right is at or over the floor, or the metric on its good side."""

    def judge(self, evidence: Evidence) -> GateResult | None:
        """Judge the confusion matrix or the score; None where the target sets no floor."""
        if evidence.floors.metric is not None:
            return judge_score("accuracy", evidence.accuracy, evidence.floors.metric)
        floor = evidence.floors.accuracy
        if floor is None:
            return None
        accuracy = evidence.accuracy
        if accuracy is None:
            return judge_floor("accuracy", None, floor)
        answers = RightAnswers(correct=accuracy.correct, total=accuracy.total, subject=f"{accuracy.split} examples")
        return judge_floor("accuracy", answers, floor)


GATE: Final[Gate] = AccuracyGate()
