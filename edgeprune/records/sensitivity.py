"""How much a model minds losing channels, group by group, and whole blocks, as seen on validation data."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

_NAMED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class LossIncrease:
    """What a change of the dense model costs on validation data, before any recovery.

    Attributes:
        loss: mean loss over the examples, less that of the dense float32 model in torch; negative where it helps.
        error: standard error of that mean, from the differences example by example.
        accuracy: share of the examples that it gets right, in [0, 1]; or the mean of the target's own metric.
    """

    loss: float
    error: float
    accuracy: float

    @property
    def summary(self) -> str:
        """In a line: loss +0.0012 ± 0.0004."""
        return f"loss {self.loss:+.4f} \u00b1 {self.error:.4f}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CurvePoint:
    """One group at one width, everything else left alone.

    Attributes:
        loss_increase: mean loss over the examples, less that of the uncut model; negative where a cut helps.
        accuracy: share of the examples that it gets right, in [0, 1]; or the mean of the target's own metric.
        error: standard error of `loss_increase` over the examples.
    """

    width: int
    loss_increase: float
    accuracy: float
    error: float = 0.0


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
        return self._between(width, *self._envelope())

    def error_at(self, width: int) -> float:
        """The standard error of the loss increase, linear between the points; none at the full width."""
        return self._between(width, [*(p.width for p in self.points), self.width], [*(p.error for p in self.points), 0])

    def _between(self, width: int, widths: list[int], values: list[float]) -> float:
        if width >= self.width:
            return 0.0
        place = bisect_left(widths, width)
        if place == 0:
            return values[0]
        below, above = widths[place - 1], widths[place]
        share = (width - below) / (above - below)
        return values[place - 1] + share * (values[place] - values[place - 1])

    def _envelope(self) -> tuple[list[int], list[float]]:
        widths, losses = [self.width], [0.0]
        for point in reversed(self.points):
            widths.append(point.width)
            losses.append(max(losses[-1], point.loss_increase))
        return widths[::-1], losses[::-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class ZeroSpread:
    """How a mask's zeros lie over the layers where each was to lose the same (`pruning.mask_scope`).

    Attributes:
        curves: of one layer after the other, by the weights that are left in it.
        shares: of zeros, in [0, 1], in the same order.
    """

    curves: tuple[GroupCurve, ...]
    shares: tuple[float, ...]

    @property
    def by_layer(self) -> dict[str, float]:
        """The shares by the name of the layer."""
        return {curve.group: share for curve, share in zip(self.curves, self.shares, strict=True)}

    @property
    def summary(self) -> str:
        """The layers with the fewest and the most zeros, in a line."""
        ascending = [
            f"{share:.0%} of {name}" for name, share in sorted(self.by_layer.items(), key=lambda item: item[1])
        ]
        if len(ascending) > 2 * _NAMED:
            ascending = [*ascending[:_NAMED], "...", *ascending[-_NAMED:]]
        return ", ".join(ascending)


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockPoint:
    """The model without one of its residual blocks; the figures are those of `CurvePoint`."""

    block: str
    loss_increase: float
    accuracy: float
    error: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensitivity:
    """The curves of all groups that can be cut and the blocks that can go, before any recovery.

    Attributes:
        examples: of the validation split, drawn at a fixed seed.
        loss: mean loss of the uncut model on them.
        accuracy: its share of right answers on them, or the mean of the target's own metric.
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

    def block_point(self, block: str) -> BlockPoint:
        """Of one block."""
        return next(b for b in self.blocks if b.block == block)

    def block_loss(self, block: str) -> float:
        """What removing a block loses; not under 0: a model does not learn by losing layers, that is noise."""
        return max(0.0, self.block_point(block).loss_increase)
