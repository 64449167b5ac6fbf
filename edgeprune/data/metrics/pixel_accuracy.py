"""Share of an example's pixels (or tokens, or samples) whose highest score is that of the right class."""

from __future__ import annotations

from typing import Final

import numpy as np

from edgeprune.data.metrics._checks import class_scores
from edgeprune.data.splits import VOID
from edgeprune.protocols import Arrays, Metric


class _PixelAccuracy:
    higher_is_better = True
    is_share = True

    def values(self, outputs: Arrays, labels: Arrays) -> np.ndarray:
        """Of scores [examples, classes, ...] and labels [examples, ...]; 1 for an example that is all void."""
        scores, classes = class_scores(outputs, labels, "pixel_accuracy")
        rows = len(classes)
        counted = (classes != VOID).reshape(rows, -1)
        right = (scores.argmax(axis=1) == classes).reshape(rows, -1) & counted
        found: np.ndarray = np.where(counted.any(axis=1), right.sum(axis=1) / np.maximum(counted.sum(axis=1), 1), 1.0)
        return found


METRIC: Final[Metric] = _PixelAccuracy()
