"""Mean squared difference, in the square of the labels' unit: for regression."""

from __future__ import annotations

from typing import Final

import numpy as np

from edgeprune.data.metrics._checks import alike
from edgeprune.protocols import Arrays, Metric


class _MeanSquaredError:
    higher_is_better = False
    is_share = False

    def values(self, outputs: Arrays, labels: Arrays) -> np.ndarray:
        """Averaged over each example's values; shapes differ at most by dimensions of size 1."""
        found, wanted = alike(outputs, labels, "mean_squared_error")
        means: np.ndarray = ((found - wanted) ** 2).mean(axis=1)
        return means


METRIC: Final[Metric] = _MeanSquaredError()
