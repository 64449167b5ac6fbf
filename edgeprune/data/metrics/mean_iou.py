"""Intersection over union of each class, averaged over the classes of an example: for segmentation."""

from __future__ import annotations

from typing import Final

import numpy as np

from edgeprune.data.metrics._checks import class_scores
from edgeprune.data.splits import VOID
from edgeprune.protocols import Arrays, Metric


class _MeanIou:
    higher_is_better = True
    is_share = True

    def values(self, outputs: Arrays, labels: Arrays) -> np.ndarray:
        """Of scores [examples, classes, ...] and labels [examples, ...].

        Averaged over the classes that are in the example's labels or predictions; void pixels count for nothing. So
        each example counts alike, which is not the same as one matrix over all pixels of a data set.

        Source: Everingham et al. 2010, "The Pascal Visual Object Classes (VOC) Challenge", section 4.3 (there over all
        pixels of a data set), doi:10.1007/s11263-009-0275-4.
        """
        scores, classes = class_scores(outputs, labels, "mean_iou")
        predicted = scores.argmax(axis=1)
        return np.asarray([_iou(p, c, scores.shape[1]) for p, c in zip(predicted, classes, strict=True)])


def _iou(predicted: np.ndarray, wanted: np.ndarray, classes: int) -> float:
    counted = wanted != VOID
    pairs = np.bincount(classes * wanted[counted] + predicted[counted], minlength=classes**2)
    confusion = pairs.reshape(classes, classes)
    both = confusion.diagonal()
    either = confusion.sum(axis=0) + confusion.sum(axis=1) - both
    seen = either > 0
    return float((both[seen] / either[seen]).mean()) if seen.any() else 1.0


METRIC: Final[Metric] = _MeanIou()
