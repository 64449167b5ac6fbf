"""Layers by name, with wildcards."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from edgeprune.errors import InputError
from edgeprune.registry import suggest

if TYPE_CHECKING:
    from torch import nn


def match_layers(model: nn.Module, patterns: Sequence[str], *, key: str) -> frozenset[str]:
    """Names of the layers with weights of their own that match any pattern; `*`, `?` and `[]` are wildcards.

    Args:
        model: its layers are named as `named_modules` names them.
        patterns: as a person wrote them.
        key: where the patterns stand in the target's file, for the message.

    Raises:
        InputError: a pattern matches no layer: a misspelt name would be cut in silence.
    """
    names = tuple(n for n, m in model.named_modules() if any(True for _ in m.parameters(recurse=False)))
    found: set[str] = set()
    for pattern in patterns:
        matches = {n for n in names if fnmatchcase(n, pattern)}
        if not matches:
            inside = any(n.startswith(f"{pattern}.") for n in names)
            hint = f"; did you mean {pattern + '.*'!r}?" if inside else suggest(pattern, names)
            raise InputError(f"{key}: no layer is named {pattern!r}{hint}", name=pattern)
        found |= matches
    return frozenset(found)


def block_of(layer: str, blocks: Iterable[str]) -> str | None:
    """The block that a layer lies in; None for none of them."""
    return next((b for b in blocks if layer.startswith(f"{b}.")), None)
