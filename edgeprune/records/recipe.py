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
    """What was taken out. Replayed on a fresh model it gives the same shapes.

    Attributes:
        cuts: in the order in which they were made, after the blocks had gone.
        removed_blocks: modules, as `named_modules` has them, that only pass on what they are given.
    """

    cuts: tuple[Cut, ...] = ()
    removed_blocks: tuple[str, ...] = ()
