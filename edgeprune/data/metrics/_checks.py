"""What metrics ask of the arrays that they are given."""

from __future__ import annotations

import numpy as np

from edgeprune.errors import InputError
from edgeprune.protocols import Arrays


def alone(outputs: Arrays, labels: Arrays, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """The one output and its labels.

    Raises:
        InputError: the model has several outputs, or the labels several parts: what counts is the target's to say.
    """
    if isinstance(outputs, tuple) or isinstance(labels, tuple):
        raise InputError(
            f"metric {metric!r}: expected one output and one array of labels, got {_count(outputs)} outputs and "
            f"{_count(labels)} arrays of labels; name a function of your own, such as task.metric = 'model.py:metric'"
        )
    return outputs, labels


def alike(outputs: Arrays, labels: Arrays, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """The output and its labels as float64 [examples, values]; shapes differ at most by dimensions of size 1.

    Raises:
        InputError: they have other shapes.
    """
    found, wanted = alone(outputs, labels, metric)
    if _essential(found) != _essential(wanted):
        raise InputError(f"metric {metric!r}: expected outputs shaped as the labels, {wanted.shape}, got {found.shape}")
    rows = len(found)
    return found.reshape(rows, -1).astype(np.float64), wanted.reshape(rows, -1).astype(np.float64)


def class_scores(outputs: Arrays, labels: Arrays, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Scores [examples, classes, ...] and class indices [examples, ...].

    Raises:
        InputError: the output has no dimension of classes beside those of the labels.
    """
    found, wanted = alone(outputs, labels, metric)
    if found.ndim < 2 or (found.shape[0], *found.shape[2:]) != wanted.shape:  # noqa: PLR2004
        raise InputError(
            f"metric {metric!r}: expected outputs (examples, classes, ...) for labels {wanted.shape}, got {found.shape}"
        )
    return found, wanted


def _count(value: Arrays) -> int:
    return len(value) if isinstance(value, tuple) else 1


def _essential(array: np.ndarray) -> tuple[int, ...]:
    return (len(array), *(size for size in array.shape[1:] if size != 1))
