"""From a pruning ratio to the widths of the groups, at widths that the device was measured to like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil

from edgeprune.records.rung import GroupWidth


def keep_share_widths(
    widths: Mapping[str, int], ratio: float, admissible: Mapping[str, Sequence[int]]
) -> tuple[GroupWidth, ...]:
    """Keep the same share of every group, rounded up to the next admissible width.

    Rounding up keeps accuracy, and an admissible width is one that no larger width beats.

    Args:
        widths: by group name, before the cut.
        ratio: share to take out, in [0, 1).
        admissible: by group name, widths measured to be worth their time, ascending. A group without any keeps
            exactly its share.

    Returns:
        One entry a group, in the order of `widths`; `after` is between 1 and `before`.
    """
    result = []
    for group, before in widths.items():
        wanted = max(1, ceil(before * (1 - ratio) - 1e-9))
        after = next((w for w in admissible.get(group, ()) if w >= wanted), None)
        if after is None:
            after = before if admissible.get(group) else wanted
        result.append(GroupWidth(group=group, before=before, after=min(after, before)))
    return tuple(result)


def candidate_widths(widths: Sequence[int], ratios: Sequence[float], step: int = 8) -> tuple[int, ...]:
    """The widths worth probing: what the ratios ask for, rounded up to a multiple of `step`, and full widths.

    Fewer probes than every multiple, and none that no rung could use.
    """
    found = set(widths)
    for width in set(widths):
        for ratio in ratios:
            wanted = ceil(width * (1 - ratio) - 1e-9)
            found |= {min(width, _round_up(wanted, step)), min(width, _round_up(wanted, 2 * step))}
    return tuple(sorted(found))


def _round_up(value: int, step: int) -> int:
    return -(-value // step) * step
