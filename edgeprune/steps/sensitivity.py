"""Sensitivity: take one group's channels or one block from the dense model, and see what validation data say.

Nothing is trained (`cut_losses.py`); batch norms are re-estimated after each cut, on training data. Each group and
block is a step of its own, so that a killed build goes on with the next.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np

from edgeprune.events import StageFinished, StageProgress, StageStarted
from edgeprune.graph.groups import ChannelGraph
from edgeprune.graph.names import block_of
from edgeprune.records.sensitivity import BlockPoint, GroupCurve, Sensitivity
from edgeprune.steps.cut_losses import CutLosses, widths_left
from edgeprune.store.run_folder import digest

if TYPE_CHECKING:
    from torch import Tensor

    from edgeprune.graph.groups import ChannelGroup
    from edgeprune.steps.compressing import Compressor

STAGE = "sensitivity"
_EXAMPLES = 1024

Point = TypeVar("Point", GroupCurve, BlockPoint)


class OneMore(Protocol):
    """Hears of each curve that was taken."""

    def __call__(self, measured: Point, /) -> Point:
        """Count it."""
        ...


@dataclass(frozen=True)
class SensitivityBench:
    """Takes the curves of one dense model."""

    compressor: Compressor

    def measure(self) -> Sensitivity:
        """All groups and blocks, in the model's order; those measured before are kept."""
        bench = self.compressor.bench
        groups, blocks = bench.groups.groups, bench.blocks.removable
        with self.counted(len(groups) + len(blocks), "groups and blocks") as one_more:
            return Sensitivity(
                examples=len(self.losses.inputs),
                loss=self.losses.dense.loss,
                accuracy=self.losses.dense.accuracy,
                criterion=bench.target.spec.pruning.criterion,
                curves=tuple(one_more(self._curve(group)) for group in groups),
                blocks=tuple(one_more(self._block(block)) for block in blocks),
            )

    @contextmanager
    def counted(self, total: int, unit: str) -> Iterator[OneMore]:
        """Tell how many of all curves are done, and how long it took."""
        bench, started_s, done = self.compressor.bench, time.monotonic(), itertools.count(1)
        earlier = len(bench.run.outcomes)

        def one_more(measured: Point) -> Point:
            bench.reporter.emit(StageProgress(stage=STAGE, done=next(done)))
            return measured

        bench.reporter.emit(StageStarted(stage=STAGE, total=total, unit=unit))
        yield one_more
        kept = all(outcome.cached for outcome in bench.run.outcomes[earlier:])
        bench.reporter.emit(StageFinished(stage=STAGE, seconds=time.monotonic() - started_s, cached=kept))

    @cached_property
    def losses(self) -> CutLosses:
        """On a part of the validation split, drawn at the target's seed."""
        bench = self.compressor.bench
        drawn = np.random.default_rng(bench.target.spec.seed).permutation(len(bench.data.validation))
        chosen = np.sort(drawn[:_EXAMPLES])
        return CutLosses(
            model=self.compressor.dense_module,
            inputs=bench.validation_inputs[chosen],
            labels=bench.data.validation.taken(chosen).labels,
            loss=self.compressor.loss,
            accuracy=bench.task.value,
            settle_=self.compressor.settle_,
        )

    def _curve(self, group: ChannelGroup) -> GroupCurve:
        bench = self.compressor.bench
        spec = bench.target.spec
        widths = probe_widths(group.width, spec.pruning.ratios, group.unit)
        key = digest(self.compressor.dense.key, bench.data_key, group.name, widths, self.compressor.scorer.key)

        def make(_folder: object) -> GroupCurve:
            return self.losses.curve(group, widths, self._graph, self._scores[group.name])

        return bench.step(STAGE, group.name, key, GroupCurve, make, _summary)

    def _block(self, block: str) -> BlockPoint:
        bench = self.compressor.bench
        loss_key = self.compressor.scorer.loss_key
        key = digest(self.compressor.dense.key, bench.data_key, block, loss_key, bench.target.spec.seed)

        def make(_folder: object) -> BlockPoint:
            return self.losses.without(block)

        return bench.step(STAGE, block, key, BlockPoint, make, lambda b: f"loss +{b.loss_increase:.3f} without")

    @cached_property
    def _graph(self) -> ChannelGraph:
        return ChannelGraph(self.compressor.dense_module, self.compressor.bench.example)

    @cached_property
    def _scores(self) -> dict[str, Tensor]:
        """By group; taken once for all cuts."""
        groups = [group.name for group in self.compressor.bench.groups.groups]
        return self.compressor.scorer.channels(self.compressor.dense_module, self._graph, groups)


class GroupLosses:
    """What a group loses at a width, and the model without a block.

    From sensitivity curves, which are taken when the first loss is asked for.

    Args:
        compressor: has the dense model, or makes it.
        may_train: whether the dense model may be trained for it. Where it may not, and there is none yet, all groups
            count as equally sensitive: the squared share of channels that is out, which spreads the cuts.
    """

    def __init__(self, compressor: Compressor, *, may_train: bool) -> None:
        self.compressor = compressor
        self._may_train = may_train

    def __call__(self, group: str, width: int) -> float:
        """Increase of the mean validation loss, before recovery."""
        if self.sensitivity is not None:
            return self.sensitivity.curve(group).loss_at(width)
        return (1.0 - width / self._full[group]) ** 2

    def block(self, name: str) -> float:
        """Increase of the mean validation loss when a block is removed, before recovery."""
        if self.sensitivity is not None:
            return self.sensitivity.block_loss(name)
        # As if all its groups were cut to nothing.
        return float(max(1, sum(1 for group in self._full if block_of(group, [name]))))

    def error(self, group: str, width: int) -> float:
        """Standard error of that increase over the examples; 0 where nothing is measured."""
        return 0.0 if self.sensitivity is None else self.sensitivity.curve(group).error_at(width)

    def block_error(self, name: str) -> float:
        """Standard error of what removing a block loses; 0 where nothing is measured."""
        return 0.0 if self.sensitivity is None else self.sensitivity.block_point(name).error

    @property
    def measurable(self) -> bool:
        """Whether the dense model is there, or may be trained now."""
        return self._may_train or self.compressor.has_dense

    @cached_property
    def sensitivity(self) -> Sensitivity | None:
        """The curves; None where the dense model is not trained yet and may not be."""
        if self.measurable:
            return SensitivityBench(self.compressor).measure()
        self.compressor.bench.note(
            "the dense model is not trained yet: the plan takes all groups for equally sensitive; a build measures it"
        )
        return None

    @property
    def taken(self) -> Sensitivity | None:
        """The curves, where a loss was asked for and they could be taken; asking this takes none."""
        found: Sensitivity | None = self.__dict__.get("sensitivity")
        return found

    @cached_property
    def _full(self) -> dict[str, int]:
        return {g.name: g.width for g in self.compressor.bench.groups.groups}


def probe_widths(width: int, ratios: tuple[float, ...], unit: int = 1) -> tuple[int, ...]:
    """The widths that leave out the first, the middle and the last of the ratios, ascending, without the full one.

    They are multiples of `unit`.
    """
    return widths_left(width, (ratios[0], ratios[len(ratios) // 2], ratios[-1]), unit)


def _summary(curve: GroupCurve) -> str:
    if not curve.points:
        return "too narrow to cut"
    strongest = curve.points[0]
    return f"loss +{strongest.loss_increase:.3f} at {strongest.width} of {curve.width} channels"
