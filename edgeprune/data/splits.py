"""What a target's data factory returns, and the checks that it must pass."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

import numpy as np

from edgeprune.data.parts import mapped, parts_of
from edgeprune.data.slices import check_same_slices, check_slices
from edgeprune.errors import InputError
from edgeprune.protocols import Arrays

VOID = -100
"""A place in a mask of classes that counts for nothing, in metrics and losses; torch's cross entropy has the same."""


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """One part of the data.

    Attributes:
        inputs: [examples, ...], raw, before preprocessing; any numeric dtype.
        labels: what the outputs are compared with, the examples along the first dimension: class indices [examples],
            masks of classes [examples, height, width], values [examples, ...]; or a tuple of such arrays.
        slices: parts that are looked at by themselves, such as one camera: name to a mask [examples] of bool, or to
            indices. Of the validation and test splits.
    """

    inputs: np.ndarray
    labels: Arrays
    slices: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.inputs)

    @property
    def class_labels(self) -> np.ndarray | None:
        """[examples], integers, where the labels are one class an example; else None."""
        labels = self.labels
        return labels if not isinstance(labels, tuple) and labels.ndim == 1 and labels.dtype.kind in "ui" else None

    @property
    def strata(self) -> np.ndarray:
        """[examples], integers: what a draw keeps the shares of. The class, where there is one; else all are alike."""
        found = self.class_labels
        return np.zeros(len(self), dtype=np.int64) if found is None else found

    def taken(self, chosen: np.ndarray) -> Split:
        """A part of it, by indices or a mask."""
        return Split(self.inputs[chosen], mapped(lambda part: part[chosen], self.labels))

    def identity(self) -> str:
        """sha256 over dtype, shape and content."""
        digest = hashlib.sha256()
        for array in (self.inputs, *parts_of(self.labels)):
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
        for name in sorted(self.slices):
            members = self.slices[name]
            digest.update(f"{name}\0{members.dtype.str}{members.shape}".encode())
            digest.update(np.ascontiguousarray(members).data)
        return digest.hexdigest()


@dataclass(frozen=True, slots=True, eq=False)
class DataSplits:
    """Train, validation and test data. Choices are made on `validation`; `test` is read once, at the end.

    Attributes:
        class_names: one a class index of the labels; empty where the labels are no classes.
    """

    train: Split
    validation: Split
    test: Split
    class_names: tuple[str, ...] = ()

    @property
    def classifies(self) -> bool:
        """Whether each example has one class, so that there is a confusion matrix."""
        return bool(self.class_names) and self.validation.class_labels is not None

    def identity(self) -> str:
        """sha256 over the three splits and the class names."""
        parts = [self.train.identity(), self.validation.identity(), self.test.identity(), *self.class_names]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def check_splits(data: object, *, where: str) -> DataSplits:
    """Refuse data that would make every later number meaningless.

    Args:
        data: what the factory returned.
        where: file and function, for the message.

    Raises:
        InputError: not a DataSplits, an empty split, NaN or infinity, labels out of range, shapes that differ.
    """
    if not isinstance(data, DataSplits):
        raise InputError(f"{where}: expected an edgeprune.DataSplits, got {type(data).__name__}")
    _check_names(data.class_names, where=where)
    shapes, labels = {}, {}
    for name in ("train", "validation", "test"):
        split = _as_split(getattr(data, name), where=f"{where}: split {name!r}")
        _check_split(split, len(data.class_names), where=f"{where}: split {name!r}")
        check_slices(split.slices, len(split), where=f"{where}: split {name!r}")
        shapes[name] = split.inputs.shape[1:]
        labels[name] = tuple((part.dtype.kind, part.shape[1:]) for part in parts_of(split.labels))
    check_same_slices(data.validation.slices, data.test.slices, where=where)
    if len(set(shapes.values())) != 1:
        raise InputError(f"{where}: expected one example shape in all splits, got {shapes}")
    if len(set(labels.values())) != 1:
        raise InputError(f"{where}: expected one kind and shape of labels in all splits, got {labels}")
    return data


def _check_names(names: object, *, where: str) -> None:
    if not isinstance(names, tuple) or not all(isinstance(n, str) and n for n in names):
        raise InputError(f"{where}: expected class_names as a tuple of strings, got {names!r}")
    if len(set(names)) != len(names):
        raise InputError(f"{where}: expected each class name once, got {names}")


def _as_split(found: object, *, where: str) -> Split:
    if not isinstance(found, Split):
        raise InputError(f"{where}: expected an edgeprune.Split, got {type(found).__name__}")
    # Annotations bind nobody: torch tensors, lists and dicts come here too.
    for name, arrays in (("inputs", (found.inputs,)), ("labels", parts_of(found.labels))):
        for array in arrays or ((),):
            if not isinstance(cast("object", array), np.ndarray):
                several = ", or a tuple of them" if name == "labels" else " (one; make masks inside the model)"
                raise InputError(f"{where}: expected {name} as a numpy array{several}, got {type(array).__name__}")
    return found


def _check_split(split: Split, classes: int, *, where: str) -> None:
    inputs = split.inputs
    if len(inputs) == 0:
        raise InputError(f"{where}: expected at least one example, got none")
    if inputs.ndim < 2:  # noqa: PLR2004
        raise InputError(f"{where}: expected inputs [examples, ...] of two dimensions or more, got {inputs.shape}")
    _check_numbers(inputs, "inputs", where)
    for part in parts_of(split.labels):
        if part.ndim == 0 or len(inputs) != len(part):
            got = f"{len(inputs)} and {len(part) if part.ndim else 'a single number'}"
            raise InputError(f"{where}: expected one label an example, got {got}")
        _check_numbers(part, "labels", where)
    # Where there are several labels, what each one means is the target's to say.
    if classes and not isinstance(split.labels, tuple):
        _check_classes(split.labels, classes, where)


def _check_numbers(array: np.ndarray, name: str, where: str) -> None:
    if array.dtype.kind not in "uifb":
        raise InputError(f"{where}: expected numeric {name}, got dtype {array.dtype}")
    if array.dtype.kind != "f":
        return
    with np.errstate(over="ignore"):
        # As the model will see them: a float64 of 1e300 is infinity there.
        as_float32 = array.astype(np.float32, copy=False)
    finite = np.isfinite(as_float32).reshape(len(array), -1).all(axis=1)
    if not finite.all():
        first = int(np.argmin(finite))
        raise InputError(
            f"{where}: expected finite {name}, got NaN or infinity in {int((~finite).sum())} of {len(array)} "
            f"examples (the first is number {first})"
        )


def _check_classes(labels: np.ndarray, classes: int, where: str) -> None:
    if labels.dtype.kind not in "ui":
        raise InputError(
            f"{where}: expected labels [examples, ...] of integers, got {labels.dtype} {labels.shape}; labels that are "
            "no classes take no class_names"
        )
    counted = labels[labels != VOID] if labels.ndim > 1 else labels
    if counted.size and (counted.min() < 0 or counted.max() >= classes):
        raise InputError(
            f"{where}: expected labels from 0 to {classes - 1}, got {int(counted.min())} to {int(counted.max())} "
            f"({classes} class names)"
        )
