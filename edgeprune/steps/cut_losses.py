"""What changes of one model lose on validation data, before any training: for a build's plan, and alone from Python."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch

from edgeprune.data.parts import label_tensors, mapped
from edgeprune.graph.blocks import find_blocks, remove_blocks
from edgeprune.graph.groups import ChannelGraph, ChannelGroup
from edgeprune.protocols import Arrays, ScoringData
from edgeprune.pruning.criteria import CRITERIA
from edgeprune.pruning.scoring import channel_scores
from edgeprune.pruning.surgery import cut_by_scores
from edgeprune.records.sensitivity import BlockPoint, CurvePoint, GroupCurve, LossIncrease, Sensitivity
from edgeprune.schema.compression import Pruning
from edgeprune.steps.cuttable import cuttable_groups
from edgeprune.steps.evaluating import torch_outputs
from edgeprune.steps.task import standard_error

if TYPE_CHECKING:
    from torch import Tensor, nn

    from edgeprune.recovery.losses import Loss


@dataclass(frozen=True, slots=True, kw_only=True)
class _Score:
    loss: float
    accuracy: float
    singles: np.ndarray
    """[examples]: the loss of each by itself."""


@dataclass(frozen=True, kw_only=True)
class CutLosses:
    """Compares changed models with the one that they were made of, on fixed examples.

    Attributes:
        model: the dense one; left alone.
        inputs: [examples, ...], preprocessed.
        labels: of the same examples.
        loss: of (outputs, labels), a mean over the examples.
        accuracy: of (outputs, labels): what stands as such in the records.
        settle_: re-estimates a model's batch norms in place. Without it the losses show how far the statistics are off,
            not what the channels knew (Li et al. 2020, "EagleEye", arXiv:2007.02491).
    """

    model: nn.Module
    inputs: np.ndarray
    labels: Arrays
    loss: Loss
    accuracy: Callable[[Arrays, Arrays], float]
    settle_: Callable[[nn.Module], None]

    def curve(self, group: ChannelGroup, widths: Iterable[int], graph: ChannelGraph, scores: Tensor) -> GroupCurve:
        """One group at some widths, everything else left alone.

        Args:
            group: of the model.
            widths: ascending.
            graph: of the model.
            scores: of the group's channels; the higher stay.
        """
        points = tuple(self._point(group.name, width, graph, scores) for width in widths)
        return GroupCurve(group=group.name, width=group.width, points=points)

    def without(self, block: str) -> BlockPoint:
        """The model without a residual block."""
        found = self.settled_increase(remove_blocks(self.model, [block]))
        return BlockPoint(block=block, loss_increase=found.loss, accuracy=found.accuracy, error=found.error)

    def increase(self, outputs: Arrays) -> LossIncrease:
        """What other outputs on the same examples lose against the dense model's.

        Args:
            outputs: float32, of `inputs`; a tuple where the model has several.
        """
        return _increase(self._scored(outputs), self.dense)

    def settled_increase(self, model: nn.Module) -> LossIncrease:
        """Of a model that was cut, its norms re-estimated in place.

        Beside the dense model with its own re-estimated too: what that alone changes is no loss of a cut.
        """
        return _increase(self._settled(model), self._settled_dense)

    @cached_property
    def dense(self) -> _Score:
        """Of the model itself, its norms as they are."""
        return self._scored(torch_outputs(self.model, self.inputs))

    @cached_property
    def _settled_dense(self) -> _Score:
        return self._settled(copy.deepcopy(self.model))

    def _point(self, group: str, width: int, graph: ChannelGraph, scores: Tensor) -> CurvePoint:
        cut, _ = cut_by_scores(self.model, graph, {group: width}, {group: scores})
        found = self.settled_increase(cut)
        return CurvePoint(width=width, loss_increase=found.loss, accuracy=found.accuracy, error=found.error)

    def _settled(self, model: nn.Module) -> _Score:
        self.settle_(model)
        return self._scored(torch_outputs(model, self.inputs))

    def _scored(self, outputs: Arrays) -> _Score:
        found, labels = mapped(torch.from_numpy, outputs), label_tensors(self.labels)

        def single(index: int) -> float:
            given, wanted = (mapped(lambda part: part[index : index + 1], value) for value in (found, labels))
            return float(self.loss(given, wanted))

        return _Score(
            loss=float(self.loss(found, labels)),
            accuracy=self.accuracy(outputs, self.labels),
            singles=np.asarray([single(index) for index in range(len(self.inputs))]),
        )


def curves_of(
    losses: CutLosses,
    criterion: str,
    ratios: Sequence[float],
    *,
    data: ScoringData | None = None,
    ignored: Sequence[str] = (),
) -> Sensitivity:
    """The curves of all groups of a model that can be cut and scored, and of the blocks that can go.

    Args:
        losses: of the model; their first example is the one that the groups are found by.
        criterion: which channels go first.
        ratios: shares of a group's channels to take out, each in (0, 1).
        data: for criteria that look at data.
        ignored: layers that keep their width; `*` is a wildcard.

    Raises:
        InputError: there is no such criterion or layer, the criterion has no data, or the model does not run.
        BuildError: the model cannot be traced, or the criterion scores single weights only.
    """
    model, example, scored_by = losses.model, torch.from_numpy(losses.inputs[:1]), CRITERIA.get(criterion)
    groups = cuttable_groups(model, example, Pruning(criterion=criterion, ignored=tuple(ignored))).groups
    graph = ChannelGraph(model, example)
    scores = channel_scores(model, graph, [group.name for group in groups], scored_by, data=data)
    widths = {group.name: widths_left(group.width, ratios, group.unit) for group in groups}
    return Sensitivity(
        examples=len(losses.inputs),
        loss=losses.dense.loss,
        accuracy=losses.dense.accuracy,
        criterion=criterion,
        curves=tuple(losses.curve(group, widths[group.name], graph, scores[group.name]) for group in groups),
        blocks=tuple(map(losses.without, find_blocks(model, example, groups, ignored).removable)),
    )


def widths_left(width: int, ratios: Sequence[float], unit: int = 1) -> tuple[int, ...]:
    """The widths that leave out these ratios of the channels, ascending, without the full one; multiples of `unit`."""
    found = {math.ceil(max(1, width * (1 - ratio) - 1e-9) / unit) * unit for ratio in ratios}
    return tuple(sorted(found - {width}))


def _increase(found: _Score, dense: _Score) -> LossIncrease:
    differences = found.singles - dense.singles
    error = standard_error(differences)
    return LossIncrease(loss=found.loss - dense.loss, error=error, accuracy=found.accuracy)
