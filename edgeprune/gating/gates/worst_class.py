"""Recall of the class that the artifact knows least, held to `Floors.worst_class_recall`."""

from __future__ import annotations

from typing import Final

from edgeprune.gating.shares import judge_shares
from edgeprune.protocols import Gate
from edgeprune.records.shares import ShareFloor
from edgeprune.records.verdict import Evidence, GateResult


class WorstClassGate:
    """PASS where every class's recall is at or over the floor: an average can hide a class that is lost."""

    def judge(self, evidence: Evidence) -> GateResult | None:
        """Judge every class that has examples, the lowest first; None where the target sets no floor."""
        floor, accuracy = evidence.floors.worst_class_recall, evidence.accuracy
        if floor is None:
            return None
        shares = None if accuracy is None else tuple(s for s in accuracy.classes if s.total)
        floors = tuple(ShareFloor(name=s.name, floor=floor) for s in shares or ())
        return judge_shares("worst_class", "class", floors or (ShareFloor(name="(any)", floor=floor),), shares)


GATE: Final[Gate] = WorstClassGate()
