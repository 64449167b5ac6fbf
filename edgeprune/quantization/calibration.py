"""Which examples tell the quantizer the range of each activation."""

from __future__ import annotations

import numpy as np

from edgeprune.data.preprocessing import preprocess
from edgeprune.data.splits import Split
from edgeprune.schema.target import Preprocessing


def calibration_samples(train: Split, spec: Preprocessing, count: int, seed: int) -> np.ndarray:
    """Draw preprocessed examples; classes, where there are any, in their shares and at least once if `count` allows.

    Args:
        train: the training split; validation and test data would leak into the artifact.
        spec: the preprocessing that ships.
        count: how many examples; fewer come back where the split is smaller.
        seed: the same seed gives the same examples in the same order.

    Returns:
        [min(count, examples), ...], as the model takes them.
    """
    return preprocess(train.inputs[_drawn(train, count, seed)], spec)


def held_out_samples(train: Split, spec: Preprocessing, count: int, seed: int, most: int) -> np.ndarray:
    """Preprocessed training examples that `calibration_samples` of the same arguments leaves out.

    Args:
        train: the training split.
        spec: the preprocessing that ships.
        count: how many calibration samples there are.
        seed: that they were drawn with.
        most: how many examples, at the most.

    Returns:
        [examples, channels, ...], float32; the calibration samples themselves where none are left.
    """
    chosen = _drawn(train, count, seed)
    rest = np.setdiff1d(np.random.default_rng(seed).permutation(len(train))[: len(chosen) + most], chosen)
    return preprocess(train.inputs[rest[:most] if len(rest) else chosen[:most]], spec)


def _drawn(train: Split, count: int, seed: int) -> np.ndarray:
    """Positions of the calibration samples in the training split."""
    generator = np.random.default_rng(seed)
    shuffled = generator.permutation(len(train))
    classes, labels = np.unique(train.strata[shuffled], return_inverse=True)
    quotas = _quotas(np.bincount(labels, minlength=len(classes)), min(count, len(train)))
    chosen = np.concatenate([shuffled[labels == k][:quota] for k, quota in enumerate(quotas)])
    # Mixed, because a quantizer that stops early must not have seen the first classes only.
    return generator.permutation(chosen)


def _quotas(sizes: np.ndarray, count: int) -> np.ndarray:
    """Split `count` over classes in proportion to `sizes`, by largest remainder, a rare class getting one first."""
    quotas = np.zeros_like(sizes)
    rarest_last = np.argsort(-sizes, kind="stable")
    quotas[rarest_last[:count]] = 1
    rest = sizes - quotas
    share = rest * ((count - quotas.sum()) / max(1, int(rest.sum())))
    quotas += share.astype(sizes.dtype)
    remainders = np.argsort(-(share % 1), kind="stable")
    quotas[remainders[: count - int(quotas.sum())]] += 1
    return quotas
