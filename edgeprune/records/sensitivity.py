"""How much a model minds losing channels, group by group, and whole blocks, as seen on validation data."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class CurvePoint:
    """One group at one width, everything else left alone.

    Attributes:
        loss_increase: mean loss over the examples, less that of the uncut model; negative where a cut helps.
        accuracy: share of the examples that it gets right, in [0, 1].
    """

    width: int
    loss_increase: float
    accuracy: float


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupCurve:
    """The sensitivity of one group, by ascending width; the full width is not among the points."""

    group: str
    width: int
    points: tuple[CurvePoint, ...]

    def loss_at(self, width: int) -> float:
        """The loss increase at any width: linear between the points, and never less than at a larger width.

        A point that is lower than one of a larger width is noise: fewer channels cannot know more, and a plan that
        took it at its word would throw channels away for nothing.
        """
        widths, losses = self._envelope()
        if width >= self.width:
            return 0.0
        place = bisect_left(widths, width)
        if place == 0:
            return losses[0]
        below, above = widths[place - 1], widths[place]
        share = (width - below) / (above - below)
        return losses[place - 1] + share * (losses[place] - losses[place - 1])

    def _envelope(self) -> tuple[list[int], list[float]]:
        widths, losses = [self.width], [0.0]
        for point in reversed(self.points):
            widths.append(point.width)
            losses.append(max(losses[-1], point.loss_increase))
        return widths[::-1], losses[::-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockPoint:
    """The model without one of its residual blocks; the figures are those of `CurvePoint`."""

    block: str
    loss_increase: float
    accuracy: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensitivity:
    """The curves of all groups that can be cut and the blocks that can go, before any recovery.

    Attributes:
        examples: of the validation split, drawn at a fixed seed.
        loss: mean loss of the uncut model on them.
        accuracy: its share of right answers on them.
        criterion: which channels went first.
    """

    examples: int
    loss: float
    accuracy: float
    criterion: str
    curves: tuple[GroupCurve, ...]
    blocks: tuple[BlockPoint, ...] = ()

    def curve(self, group: str) -> GroupCurve:
        """Of one group."""
        return next(c for c in self.curves if c.group == group)

    def block_loss(self, block: str) -> float:
        """What removing a block loses; not under 0: a model does not learn by losing layers, that is noise."""
        return max(0.0, next(b.loss_increase for b in self.blocks if b.block == block))
