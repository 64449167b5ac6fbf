"""Criteria in a build: given training data and the target's loss, for channels and for the masks of a rung."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING

import numpy as np

from edgeprune.data.parts import Tensors, label_tensors, mapped, outputs_of
from edgeprune.protocols import ScoringData
from edgeprune.pruning.criteria import CRITERIA
from edgeprune.pruning.scoring import channel_scores, weight_scores
from edgeprune.recovery.losses import Loss, counted_labels
from edgeprune.steps.masking import MaskMaker
from edgeprune.steps.workbench import Workbench
from edgeprune.store.run_folder import digest

if TYPE_CHECKING:
    from torch import Tensor, nn

    from edgeprune.graph.groups import ChannelGraph


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
        return digest(named, self.loss_key, self.learning_rate, spec.seed)

    @property
    def loss_key(self) -> str:
        """Digest of what a loss depends on beside model and data, and of what norms are re-estimated with."""
        training = self.bench.target.spec.training
        parts = (training.loss, training.focal_gamma, training.class_weights, training.augment, training.batch_size)
        return digest(*parts)

    @cached_property
    def data(self) -> ScoringData:
        """Drawn from the training split, never validation or test; as the model takes it, not augmented."""
        import torch

        bench, spec = self.bench, self.bench.target.spec
        # Drawn, not the first ones: many data sets are sorted by class.
        drawn = np.random.default_rng(spec.seed).permutation(len(bench.train_inputs))[: spec.pruning.scoring_samples]
        inputs, size = torch.from_numpy(bench.train_inputs[drawn]), spec.training.batch_size
        labels = label_tensors(bench.data.train.taken(drawn).labels)
        batches = tuple(_batch(inputs, labels, slice(start, start + size)) for start in range(0, len(drawn), size))
        return ScoringData(
            batches=batches,
            loss=self._loss_of_returned,
            learning_rate=self.learning_rate,
            counted=partial(counted_labels, self.loss),
        )

    def _loss_of_returned(self, returned: object, labels: Tensors) -> Tensor:
        """Criteria hand over what the model returned, which may be a dict of tensors."""
        return self.loss(outputs_of(returned), labels)

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

    @property
    def masker(self) -> MaskMaker:
        """Makes masks by the target's criterion."""
        return MaskMaker(self.bench.example, self.bench.target.spec.pruning, self._weights)

    def _weights(self, model: nn.Module, layers: Sequence[str]) -> Mapping[str, Tensor]:
        spec = self.bench.target.spec
        criterion = CRITERIA.get(spec.pruning.weight_criterion)
        data = self.data if criterion.needs_data else None
        return weight_scores(model, layers, criterion, seed=spec.seed, data=data)


def _batch(inputs: Tensor, labels: Tensors, part: slice) -> tuple[Tensor, Tensors]:
    return inputs[part], mapped(lambda values: values[part], labels)
