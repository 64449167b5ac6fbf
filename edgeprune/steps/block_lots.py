"""Other blocks in the place of those that a result is without, for its control by lot."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from edgeprune.graph.names import block_of
from edgeprune.records.rung import PlannedRung


def draw_blocks(removed: Sequence[str], removable: Sequence[str], seed: int) -> tuple[str, ...]:
    """As many blocks by lot, each choice but the result's own as likely as any other: that one would say nothing.

    Args:
        removed: from the result; fewer than there are.
        removable: all that can be removed, in the model's order.
        seed: the same one draws the same blocks.

    Returns:
        In the model's order.
    """
    # Blocks that are drawn make no secret.
    lot = random.Random(seed)  # noqa: S311
    drawn = set(removed)
    while drawn == set(removed):
        drawn = set(lot.sample(removable, len(removed)))
    return tuple(block for block in removable if block in drawn)


def with_blocks_out(planned: PlannedRung, drawn: Sequence[str]) -> PlannedRung:
    """The rung without other blocks: groups that both have keep the result's widths.

    A group of a block that comes back has none there. It takes that of the group in the same place of a block that
    goes in its stead, where both are as wide in the dense model, so that blocks of one shape are swapped at equal
    size; else it stays whole.
    """
    after = {w.group: w.after for w in planned.widths}
    twins = _twins(planned, drawn)

    def width(group: str, before: int) -> int:
        if block_of(group, drawn) is not None:
            return 0
        if group not in twins:
            return after[group]
        return after.get(twins[group], before)

    widths = tuple(replace(w, after=width(w.group, w.before)) for w in planned.widths)
    return replace(planned, removed_blocks=tuple(drawn), widths=widths)


def left_whole(planned: PlannedRung, drawn: Sequence[str]) -> tuple[str, ...]:
    """The groups of blocks that come back and that no group of the result tells a width for."""
    return tuple(group for group, twin in _twins(planned, drawn).items() if not twin)


def _twins(planned: PlannedRung, drawn: Sequence[str]) -> dict[str, str]:
    """By group of a block that comes back: the one in its place in a block that goes; empty where there is none."""
    back = [block for block in planned.removed_blocks if block not in drawn]
    gone = [block for block in drawn if block not in planned.removed_blocks]
    stead = dict(zip(back, gone, strict=True))
    before = {w.group: w.before for w in planned.widths}
    twins: dict[str, str] = {}
    for w in planned.widths:
        block = block_of(w.group, back)
        if block is not None:
            twin = stead[block] + w.group.removeprefix(block)
            twins[w.group] = twin if before.get(twin) == w.before else ""
    return twins
