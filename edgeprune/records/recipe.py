"""How a pruned model differs from what its factory makes: enough to rebuild it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """Output channels of one group taken out at once.

    Attributes:
        group: name of the group's root layer, as `named_modules` has it.
        removed: indices into the root layer's outputs as they were before this cut, ascending.
    """

    group: str
    removed: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PruningRecipe:
    """The cuts, in the order in which they were made. Replayed on a fresh model they give the same shapes."""

    cuts: tuple[Cut, ...] = ()
