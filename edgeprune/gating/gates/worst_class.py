"""Recall of the class that the artifact knows least, held to `Floors.worst_class_recall`."""

from __future__ import annotations

from typing import Final

from edgeprune.gating.floors import RightAnswers, judge_floor
from edgeprune.protocols import Gate
from edgeprune.records.accuracy import Accuracy
from edgeprune.records.verdict import Evidence, GateResult


class WorstClassGate:
    """PASS where every class's recall is at or over the floor: an average can hide a class that is lost."""

    def judge(self, evidence: Evidence) -> GateResult | None:
        """Judge the class with the lowest recall; None where the target sets no floor."""
        floor = evidence.floors.worst_class_recall
        if floor is None:
            return None
        accuracy = evidence.accuracy
        return judge_floor("worst_class", None if accuracy is None else _worst(accuracy), floor)


def _worst(accuracy: Accuracy) -> RightAnswers | None:
    """The counts behind `Accuracy.worst_class`; None for a split without examples."""
    if not accuracy.total:
        return None
    recalls = accuracy.recalls
    row = min(range(len(recalls)), key=recalls.__getitem__)
    name = accuracy.class_names[row]
    counts = accuracy.confusion[row]
    return RightAnswers(correct=counts[row], total=sum(counts), subject=f"class {name}, {accuracy.split} examples")


GATE: Final[Gate] = WorstClassGate()
