"""What a target's data factory returns, and the checks that it must pass."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

import numpy as np

from edgeprune.data.slices import check_same_slices, check_slices
from edgeprune.errors import InputError


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """One part of the data.

    Attributes:
        inputs: [examples, ...], raw, before preprocessing; any numeric dtype.
        labels: [examples], integer class indices.
        slices: parts that are looked at by themselves, such as one camera: name to a mask [examples] of bool, or to
            indices. Of the validation and test splits.
    """

    inputs: np.ndarray
    labels: np.ndarray
    slices: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.labels)

    def identity(self) -> str:
        """sha256 over dtype, shape and content."""
        digest = hashlib.sha256()
        for array in (self.inputs, self.labels):
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
        for name in sorted(self.slices):
            members = self.slices[name]
            digest.update(f"{name}\0{members.dtype.str}{members.shape}".encode())
            digest.update(np.ascontiguousarray(members).data)
        return digest.hexdigest()


@dataclass(frozen=True, slots=True, eq=False)
class DataSplits:
    """Train, validation and test data. Choices are made on `validation`; `test` is read once, at the end."""

    train: Split
    validation: Split
    test: Split
    class_names: tuple[str, ...]

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
    shapes = {}
    for name in ("train", "validation", "test"):
        split = _as_split(getattr(data, name), where=f"{where}: split {name!r}")
        _check_split(split, len(data.class_names), where=f"{where}: split {name!r}")
        check_slices(split.slices, len(split), where=f"{where}: split {name!r}")
        shapes[name] = split.inputs.shape[1:]
    check_same_slices(data.validation.slices, data.test.slices, where=where)
    if len(set(shapes.values())) != 1:
        raise InputError(f"{where}: expected one example shape in all splits, got {shapes}")
    return data


def _check_names(names: object, *, where: str) -> None:
    if not isinstance(names, tuple) or not names or not all(isinstance(n, str) and n for n in names):
        raise InputError(f"{where}: expected class_names as a tuple of strings, got {names!r}")
    if len(set(names)) != len(names):
        raise InputError(f"{where}: expected each class name once, got {names}")


def _as_split(found: object, *, where: str) -> Split:
    if not isinstance(found, Split):
        raise InputError(f"{where}: expected an edgeprune.Split, got {type(found).__name__}")
    for name, array in (("inputs", found.inputs), ("labels", found.labels)):
        # Annotations bind nobody: torch tensors and lists come here too.
        if not isinstance(cast("object", array), np.ndarray):
            raise InputError(f"{where}: expected {name} as a numpy array, got {type(array).__name__}")
    return found


def _check_split(split: Split, classes: int, *, where: str) -> None:
    inputs, labels = split.inputs, split.labels
    if len(inputs) == 0:
        raise InputError(f"{where}: expected at least one example, got none")
    if len(inputs) != len(labels):
        raise InputError(f"{where}: expected one label an example, got {len(inputs)} and {len(labels)}")
    if inputs.ndim < 2:  # noqa: PLR2004
        raise InputError(f"{where}: expected inputs [examples, ...] of two dimensions or more, got {inputs.shape}")
    if inputs.dtype.kind not in "uifb":
        raise InputError(f"{where}: expected numeric inputs, got dtype {inputs.dtype}")
    if inputs.dtype.kind == "f":
        with np.errstate(over="ignore"):
            # As the model will see them: a float64 of 1e300 is infinity there.
            as_float32 = inputs.astype(np.float32, copy=False)
        finite = np.isfinite(as_float32).reshape(len(inputs), -1).all(axis=1)
        if not finite.all():
            first = int(np.argmin(finite))
            raise InputError(
                f"{where}: expected finite inputs, got NaN or infinity in {int((~finite).sum())} of {len(inputs)} "
                f"examples (the first is number {first})"
            )
    if labels.dtype.kind not in "ui" or labels.ndim != 1:
        raise InputError(f"{where}: expected labels [examples] of integers, got {labels.dtype} {labels.shape}")
    if labels.min() < 0 or labels.max() >= classes:
        raise InputError(
            f"{where}: expected labels from 0 to {classes - 1}, got {int(labels.min())} to {int(labels.max())} "
            f"({classes} class names)"
        )
