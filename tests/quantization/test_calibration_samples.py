from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune.data.splits import Split
from edgeprune.quantization.calibration import calibration_samples
from edgeprune.schema.target import Preprocessing

AS_IT_IS = Preprocessing()


def _split(labels: list[int]) -> Split:
    """Each example is its own number, so that it can be recognised."""
    return Split(inputs=np.arange(len(labels)).reshape(-1, 1), labels=np.asarray(labels))


def _drawn_labels(labels: list[int], count: int, seed: int = 0) -> list[int]:
    drawn = calibration_samples(_split(labels), AS_IT_IS, count, seed)
    return [labels[int(k)] for k in drawn[:, 0]]


def test_classes_keep_their_share() -> None:
    drawn = _drawn_labels([0] * 60 + [1] * 30 + [2] * 10, 20)
    # One each first, then 17 of the remaining 97 by largest remainder: 10.34, 5.08, 1.58.
    assert [drawn.count(k) for k in (0, 1, 2)] == [11, 6, 3]


def test_rare_class_is_seen() -> None:
    assert _drawn_labels([0] * 999 + [1], 16).count(1) == 1


def test_examples_are_preprocessed() -> None:
    split = Split(inputs=np.full((4, 2, 2, 3), 255, dtype=np.uint8), labels=np.zeros(4, dtype=int))
    spec = Preprocessing(layout="NHWC", scale=1 / 255, mean=(0.0, 0.5, 1.0), std=(1.0, 0.5, 2.0))
    samples = calibration_samples(split, spec, 3, seed=0)
    assert samples.shape == (3, 3, 2, 2)
    assert samples.dtype == np.float32
    assert samples[0, :, 0, 0] == pytest.approx([1.0, 1.0, 0.0])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=80), st.integers(1, 100), st.integers(0, 3))
def test_draw_is_exact_without_repeats_and_reproducible(labels: list[int], count: int, seed: int) -> None:
    drawn = calibration_samples(_split(labels), AS_IT_IS, count, seed)
    assert len(drawn) == min(count, len(labels))
    assert len(np.unique(drawn)) == len(drawn)
    assert np.array_equal(drawn, calibration_samples(_split(labels), AS_IT_IS, count, seed))
    seen = _drawn_labels(labels, count, seed)
    assert len(set(seen)) == min(count, len(set(labels)))
    for label in set(labels):
        assert abs(seen.count(label) - labels.count(label) * len(drawn) / len(labels)) <= len(set(labels))
