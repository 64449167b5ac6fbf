"""Magnitude of gradient x weight (connection sensitivity): can be asked before any training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from edgeprune.protocols import Criterion, Granularity, ScoringTask

if TYPE_CHECKING:
    from torch import Tensor


class _Snip:
    granularities: Final = frozenset({Granularity.WEIGHT, Granularity.OUT_CHANNEL})
    needs_data: Final = True

    def score(self, task: ScoringTask) -> Mapping[str, Tensor]:
        """|gradient x weight| of the loss over all data, as a share of all scored weights; summed over a filter.

        Source: Lee et al. 2019, "SNIP: Single-shot Network Pruning based on Connection Sensitivity", equation 6,
        arXiv:1810.02340.
        """
        from edgeprune.pruning.passes import batch_gradients, data_of
        from edgeprune.pruning.weights import output_weights

        data = data_of(task)
        sizes = [len(inputs) for inputs, _ in data.batches]
        weights = output_weights(task)
        slopes: dict[str, Tensor] = {}
        for size, batch in zip(sizes, batch_gradients(task), strict=True):
            for name in weights:
                slopes[name] = slopes.get(name, 0.0) + batch[f"{name}.weight"][1] * (size / sum(sizes))
        return _shares(task, slopes)


def _shares(task: ScoringTask, slopes: Mapping[str, Tensor]) -> dict[str, Tensor]:
    from edgeprune.graph.slicing import output_first
    from edgeprune.pruning.weights import output_weights

    found: dict[str, Tensor] = {}
    for name, weight in output_weights(task).items():
        found[name] = (weight * output_first(task.model.get_submodule(name), slopes[name])).abs()
    # Sorted, so that the sum does not depend on the order of the layers.
    total = sum(float(found[name].double().sum()) for name in sorted(found)) or 1.0
    if task.granularity is Granularity.OUT_CHANNEL:
        found = {name: part.flatten(1).sum(dim=1) for name, part in found.items()}
    return {name: (part / total).float() for name, part in found.items()}


CRITERION: Final[Criterion] = _Snip()
