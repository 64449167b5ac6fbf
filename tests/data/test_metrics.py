"""What every file of `edgeprune/data/metrics` must hold to, and each metric by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune.data.metrics import METRICS
from edgeprune.data.splits import VOID
from edgeprune.errors import InputError

SHAPES: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "accuracy": ((3,), ()),
    "pixel_accuracy": ((3, 4, 5), (4, 5)),
    "mean_iou": ((3, 4, 5), (4, 5)),
    "mean_absolute_error": ((2,), (2,)),
    "mean_squared_error": ((2,), (2,)),
}
"""Of one example's outputs and labels."""

each_metric = pytest.mark.parametrize("name", METRICS.names())


def drawn(name: str, examples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    outputs, labels = SHAPES[name]
    found = generator.normal(size=(examples, *outputs)).astype(np.float32)
    if outputs == labels:
        return found, generator.normal(size=(examples, *labels)).astype(np.float32)
    return found, generator.integers(0, 3, (examples, *labels))


def perfect(name: str, labels: np.ndarray) -> np.ndarray:
    return labels if SHAPES[name][0] == SHAPES[name][1] else np.moveaxis(np.eye(3)[labels], -1, 1)


def test_every_metric_of_the_folder_is_in_the_contract() -> None:
    assert set(METRICS.names()) == set(SHAPES)


@each_metric
@settings(max_examples=15, deadline=None)
@given(examples=st.integers(1, 6), seed=st.integers(0, 99))
def test_contract(name: str, examples: int, seed: int) -> None:
    metric = METRICS.get(name)
    outputs, labels = drawn(name, examples, seed)
    values = metric.values(outputs, labels)
    assert values.shape == (examples,)
    assert values.dtype == np.float64
    # Each example counts by itself, in whatever order they come.
    np.testing.assert_array_equal(metric.values(outputs[::-1], labels[::-1]), values[::-1])
    np.testing.assert_array_equal(metric.values(outputs[:1], labels[:1]), values[:1])
    best = metric.values(perfect(name, labels), labels)
    np.testing.assert_array_equal(best, np.full(examples, 1.0 if metric.is_share else 0.0))
    assert (values <= best).all() if metric.higher_is_better else (values >= best).all()
    if metric.is_share:
        assert metric.higher_is_better
        assert ((values >= 0) & (values <= 1)).all()


@each_metric
def test_several_outputs_are_refused_with_the_way_out(name: str) -> None:
    outputs, labels = drawn(name, 2, 0)
    with pytest.raises(InputError, match=r"one output .*, got 2 outputs and 1 arrays of labels; name a function"):
        METRICS.get(name).values((outputs, outputs), labels)


@each_metric
def test_shapes_that_do_not_belong_together_are_refused(name: str) -> None:
    outputs, labels = drawn(name, 2, 0)
    with pytest.raises(InputError, match=rf"metric '{name}': expected outputs .*, got \(2, "):
        METRICS.get(name).values(outputs[..., :1], np.concatenate([labels, labels]))


def test_errors_by_hand() -> None:
    outputs, labels = np.array([[1.0, 5.0], [0.0, 0.0]]), np.array([[2.0, 2.0], [0.0, -1.0]])
    assert METRICS.get("mean_absolute_error").values(outputs, labels).tolist() == [2.0, 0.5]
    assert METRICS.get("mean_squared_error").values(outputs, labels).tolist() == [5.0, 0.5]
    # [n, 1] beside [n] is one value an example, and is not stretched to [n, n].
    assert METRICS.get("mean_absolute_error").values(outputs[:, :1], labels[:, 0]).tolist() == [1.0, 0.0]


def test_iou_by_hand() -> None:
    labels = np.array([[[0, 0, 1, 1]]])
    predicted = np.array([[[0, 1, 1, 1]]])
    scores = np.moveaxis(np.eye(3)[predicted], -1, 1)
    # Class 0: one pixel of two; class 1: two of three; class 2 is nowhere and counts for nothing.
    assert METRICS.get("mean_iou").values(scores, labels)[0] == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert METRICS.get("pixel_accuracy").values(scores, labels)[0] == pytest.approx(3 / 4)
    void = np.array([[[0, VOID, 1, 1]]])
    for name in ("mean_iou", "pixel_accuracy"):
        assert METRICS.get(name).values(scores, void)[0] == 1.0
        assert METRICS.get(name).values(scores, np.full_like(labels, VOID))[0] == 1.0
