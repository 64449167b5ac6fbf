"""Criteria in a build: given training data and the target's loss, for channels and for the masks of a rung."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from edgeprune.protocols import ScoringData
from edgeprune.pruning.criteria import CRITERIA
from edgeprune.pruning.scoring import channel_scores, weight_scores
from edgeprune.records.rung import Rung
from edgeprune.recovery.losses import Loss
from edgeprune.steps.sparsity import make_masks
from edgeprune.steps.workbench import Workbench
from edgeprune.store.run_folder import digest

if TYPE_CHECKING:
    from torch import Tensor, nn

    from edgeprune.graph.groups import ChannelGraph
    from edgeprune.pruning.masks import WeightMasks


@dataclass(frozen=True)
class Scorer:
    """Scores a target's models, with the criteria that its file names.

    Attributes:
        loss: the target's, of (outputs, labels).
        learning_rate: for criteria that train a copy.
    """

    bench: Workbench
    loss: Loss
    learning_rate: float

    @property
    def key(self) -> str:
        """Digest of what scores depend on beside model and data."""
        spec = self.bench.target.spec
        pruning = spec.pruning
        named = (pruning.criterion, pruning.weight_criterion, pruning.scoring_samples)
        return digest(named, spec.training.loss, spec.training.batch_size, self.learning_rate, spec.seed)

    @cached_property
    def data(self) -> ScoringData:
        """Drawn from the training split, never validation or test; as the model takes it, not augmented."""
        import torch

        bench, spec = self.bench, self.bench.target.spec
        # Drawn, not the first ones: many data sets are sorted by class.
        drawn = np.random.default_rng(spec.seed).permutation(len(bench.train_inputs))[: spec.pruning.scoring_samples]
        inputs, labels = (torch.from_numpy(a[drawn]) for a in (bench.train_inputs, bench.data.train.labels))
        size = spec.training.batch_size
        batches = tuple(zip(torch.split(inputs, size), torch.split(labels, size), strict=True))
        return ScoringData(batches=batches, loss=self.loss, learning_rate=self.learning_rate)

    @cached_property
    def inputs(self) -> Tensor:
        """[examples, ...]: the same examples in one."""
        import torch

        return torch.cat([inputs for inputs, _ in self.data.batches])

    def channels(self, model: nn.Module, graph: ChannelGraph, groups: Iterable[str]) -> dict[str, Tensor]:
        """Scores of the channels of groups: `pruning.scoring.channel_scores`."""
        spec = self.bench.target.spec
        criterion = CRITERIA.get(spec.pruning.criterion)
        data = self.data if criterion.needs_data else None
        return channel_scores(model, graph, groups, criterion, seed=spec.seed, data=data)

    def masks(self, model: nn.Module, rung: Rung, sparsity: float) -> WeightMasks:
        """The masks of a mask rung: `steps.sparsity.make_masks`."""
        return make_masks(model, rung, sparsity, self.bench.target.spec.pruning.ignored, self._weights)

    def _weights(self, model: nn.Module, layers: Sequence[str]) -> Mapping[str, Tensor]:
        spec = self.bench.target.spec
        criterion = CRITERIA.get(spec.pruning.weight_criterion)
        data = self.data if criterion.needs_data else None
        return weight_scores(model, layers, criterion, seed=spec.seed, data=data)
