from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from edgeprune.data.splits import VOID, DataSplits, Split, check_splits
from edgeprune.errors import InputError
from edgeprune.protocols import Arrays


def _split(examples: int = 4, seed: int = 0) -> Split:
    generator = np.random.default_rng(seed)
    return Split(generator.normal(size=(examples, 3)).astype(np.float32), np.arange(examples) % 2)


def _splits() -> DataSplits:
    return DataSplits(train=_split(), validation=_split(2, 1), test=_split(2, 2), class_names=("a", "b"))


def test_good_data_passes_unchanged() -> None:
    data = _splits()
    assert check_splits(data, where="model.py:load") is data


def _with_nan() -> Split:
    split = _split()
    split.inputs[2, 1] = np.nan
    return split


@pytest.mark.parametrize(
    ("train", "message"),
    [
        (Split(np.zeros((0, 3)), np.zeros(0, int)), "at least one example, got none"),
        (Split(np.zeros((4, 3)), np.zeros(3, int)), "one label an example, got 4 and 3"),
        (Split(np.array([["a"] * 3]), np.zeros(1, int)), "numeric inputs"),
        (_with_nan(), r"NaN or infinity in 1 of 4 examples \(the first is number 2\)"),
        (Split(np.zeros((4, 3)), np.zeros(4)), "labels .* of integers, got float64"),
        (Split(np.zeros((4, 3)), np.array([0, 1, 2, 0])), "labels from 0 to 1, got 0 to 2"),
        (Split(np.zeros((4, 3)), np.array([0, 1, -1, 0])), "labels from 0 to 1, got -1 to 1"),
    ],
)
def test_bad_split_is_named(train: Split, message: str) -> None:
    with pytest.raises(
        InputError, match=rf"^model.py:load: split 'train': expected .*{message.split(' ', maxsplit=1)[0]}"
    ) as caught:
        check_splits(replace(_splits(), train=train), where="model.py:load")
    with pytest.raises(InputError, match=message):
        raise caught.value


def test_shapes_that_differ_and_other_types_are_told() -> None:
    with pytest.raises(InputError, match="one example shape in all splits"):
        check_splits(replace(_splits(), test=Split(np.zeros((2, 4)), np.zeros(2, int))), where="x")
    with pytest.raises(InputError, match=r"expected an edgeprune.DataSplits, got dict"):
        check_splits({}, where="x")


def test_identity_follows_every_bit() -> None:
    data = _splits()
    assert data.identity() == _splits().identity()
    others = [
        replace(data, class_names=("a", "c")),
        replace(data, test=data.validation),
        replace(data, train=Split(data.train.inputs.astype(np.float64), data.train.labels)),
        replace(data, train=Split(data.train.inputs[::-1], data.train.labels)),
        replace(data, train=Split(data.train.inputs, data.train.labels[::-1])),
    ]
    assert len({d.identity() for d in (data, *others)}) == 1 + len(others)


def _values(labels: Callable[[int], Arrays], names: tuple[str, ...] = ()) -> DataSplits:
    splits = [Split(np.zeros((count, 3), np.float32), labels(count)) for count in (4, 2, 2)]
    return DataSplits(*splits, class_names=names)


@pytest.mark.parametrize(
    ("labels", "names", "classifies"),
    [
        (lambda n: np.arange(n) % 2, ("a", "b"), True),
        (lambda n: np.zeros(n, np.float32), (), False),
        (lambda n: np.zeros((n, 2, 2)), (), False),
        (lambda n: np.full((n, 2, 2), VOID), ("a", "b"), False),
        (lambda n: (np.arange(n) % 2, np.zeros((n, 4))), ("a", "b"), False),
        (lambda n: np.arange(n) % 2, (), False),
    ],
    ids=["classes", "values", "fields", "masks", "several", "counts"],
)
def test_labels_of_other_tasks_pass(
    labels: Callable[[int], Arrays], names: tuple[str, ...], *, classifies: bool
) -> None:
    data = check_splits(_values(labels, names), where="x")
    assert data.classifies is classifies
    assert len(data.train) == 4
    assert data.identity() != _values(np.ones, names).identity()


@pytest.mark.parametrize(
    ("labels", "names", "message"),
    [
        (lambda n: np.full(n, np.nan), (), r"finite labels, got NaN or infinity in 4 of 4"),
        (lambda n: (np.zeros(n), np.zeros(n + 1)), (), "one label an example, got 4 and 5"),
        (lambda n: np.zeros((n, 2, 2)), ("a", "b"), "that are no classes take no class_names"),
        (lambda n: np.full((n, 2, 2), -1), ("a", "b"), "labels from 0 to 1, got -1 to -1"),
        (lambda n: {"kind": np.zeros(n)}, (), "labels as a numpy array, or a tuple of them, got dict"),
        (lambda n: (), (), "labels as a numpy array, or a tuple of them, got tuple"),
        (lambda n: np.zeros((n, n)), (), "one kind and shape of labels in all splits"),
    ],
)
def test_bad_labels_of_other_tasks_are_told(
    labels: Callable[[int], Arrays], names: tuple[str, ...], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        check_splits(_values(labels, names), where="x")


def test_a_part_keeps_inputs_and_labels_together() -> None:
    split = Split(np.arange(8).reshape(4, 2), (np.arange(4), np.arange(4) / 2))
    part = split.taken(np.array([3, 1]))
    assert part.inputs.tolist() == [[6, 7], [2, 3]]
    assert [a.tolist() for a in part.labels] == [[3, 1], [1.5, 0.5]]
    assert split.strata.tolist() == [0, 0, 0, 0]
    assert _split().strata.tolist() == [0, 1, 0, 1]


def test_identity_follows_every_part_of_the_labels() -> None:
    inputs = np.zeros((2, 3))
    parts = [(np.zeros(2), np.zeros(2)), (np.zeros(2), np.ones(2)), (np.zeros(2),)]
    assert len({Split(inputs, labels).identity() for labels in parts}) == 3
