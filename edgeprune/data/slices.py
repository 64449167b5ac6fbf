"""Named slices of a split: parts of the data that an average must not hide, such as one camera or one hospital."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import numpy as np

from edgeprune.errors import InputError


def slice_members(members: np.ndarray, examples: int) -> np.ndarray:
    """A slice as a mask.

    Args:
        members: [examples] bool, or [members] integer indices.
        examples: of the split.

    Returns:
        [examples], bool.
    """
    if members.dtype.kind == "b":
        return members
    mask = np.zeros(examples, dtype=bool)
    mask[members] = True
    return mask


def check_slices(slices: object, examples: int, *, where: str) -> None:
    """Refuse slices that do not say which examples they mean.

    Args:
        slices: what the factory gave: name to mask or indices.
        examples: of the split.
        where: file, function and split, for the message.

    Raises:
        InputError: not a mapping of names, or a mask or indices that do not fit the split.
    """
    if not isinstance(slices, Mapping):
        raise InputError(f"{where}: expected slices as a dict of name to mask or indices, got {type(slices).__name__}")
    for name, members in cast("Mapping[object, object]", slices).items():
        if not isinstance(name, str) or not name:
            raise InputError(f"{where}: expected a name for each slice, got {name!r}")
        _check_members(members, examples, where=f"{where}: slice {name!r}")


def check_same_slices(validation: Mapping[str, np.ndarray], test: Mapping[str, np.ndarray], *, where: str) -> None:
    """Refuse a slice that only one of the splits has: it would be held to a floor and never reported, or the reverse.

    Raises:
        InputError: both splits name slices, and not the same ones.
    """
    if validation and test and set(validation) != set(test):
        odd = sorted(set(validation) ^ set(test))
        raise InputError(f"{where}: expected the same slices in validation and test; only one of them has {odd}")


def _check_members(members: object, examples: int, *, where: str) -> None:
    if not isinstance(members, np.ndarray) or members.ndim != 1 or members.dtype.kind not in "bui":
        found = f"{members.dtype} {members.shape}" if isinstance(members, np.ndarray) else type(members).__name__
        raise InputError(f"{where}: expected a numpy array, [examples] of bool or [members] of indices, got {found}")
    if members.dtype.kind == "b":
        if len(members) != examples:
            raise InputError(f"{where}: expected a mask of {examples} examples, got {len(members)}")
        return
    if len(members) and (members.min() < 0 or members.max() >= examples):
        raise InputError(
            f"{where}: expected indices from 0 to {examples - 1}, got {int(members.min())} to {int(members.max())}"
        )
    if len(np.unique(members)) != len(members):
        raise InputError(f"{where}: expected each index once, got {len(members) - len(np.unique(members))} twice")
