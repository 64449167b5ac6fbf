"""Accuracy: whether the highest score is that of the right class."""

from __future__ import annotations

from typing import Final

import numpy as np

from edgeprune.data.metrics._checks import class_scores
from edgeprune.protocols import Arrays, Metric


class _Accuracy:
    higher_is_better = True
    is_share = True

    def values(self, outputs: Arrays, labels: Arrays) -> np.ndarray:
        """1 for a right example and 0 for a wrong one; scores [examples, classes], labels [examples]."""
        scores, classes = class_scores(outputs, labels, "accuracy")
        right: np.ndarray = scores.argmax(axis=1) == classes
        return right.astype(np.float64)


METRIC: Final[Metric] = _Accuracy()
