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

        Source: Lee et al. 2019, "SNIP: Single-shot Network Pruning based on Connection Sensitivity", section 4.1,
        arXiv:1810.02340.
        """
        from edgeprune.pruning.passes import batch_gradients, batch_shares, data_of
        from edgeprune.pruning.weights import by_layer

        values: dict[str, Tensor] = {}
        slopes: dict[str, Tensor] = {}
        for share, batch in zip(batch_shares(data_of(task)), batch_gradients(task), strict=True):
            # Of one dimension are biases, and scales and shifts of norms.
            for name, (value, slope) in ((n, pair) for n, pair in batch.items() if pair[0].dim() > 1):
                values[name] = value
                slopes[name] = slopes.get(name, 0.0) + slope * share
        found = by_layer(task, {name: (values[name] * slope).abs() for name, slope in slopes.items()})
        # Sorted, so that the sum does not depend on the order of the layers.
        total = sum(float(found[name].double().sum()) for name in sorted(found)) or 1.0
        return {name: (part / total).float() for name, part in found.items()}


CRITERION: Final[Criterion] = _Snip()
