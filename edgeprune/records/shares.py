"""Shares of right answers over named parts of the data, kept as counts, and the floors that they are held to."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """How many of how many examples of a named part are right.

    Attributes:
        name: of the part: a class, a slice of the data, a corruption.
    """

    name: str
    correct: int
    total: int

    @property
    def value(self) -> float:
        """In [0, 1]; 1 where there is no example."""
        return self.correct / self.total if self.total else 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareFloor:
    """What one part is held to.

    Attributes:
        name: of the part.
        floor: in [0, 1]; None where it refers to the dense model, which was not evaluated on that part.
        before: what the dense model gets right there; None where the floor does not refer to it.
    """

    name: str
    floor: float | None
    before: Share | None = None
