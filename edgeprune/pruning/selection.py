"""How the channels to take are spread over the groups: evenly, by rank over all, as told, or by sensitivity."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from itertools import accumulate
from typing import TYPE_CHECKING

from edgeprune.errors import InputError
from edgeprune.registry import suggest

if TYPE_CHECKING:
    from torch import Tensor


def uniform_widths(widths: Mapping[str, int], ratio: float) -> dict[str, int]:
    """The same share of channels out of every group; each keeps at least one.

    Args:
        widths: present, by group.
        ratio: share to take out, in [0, 1].

    Raises:
        InputError: a ratio out of range.
    """
    _check(ratio)
    return {group: max(1, round(width * (1 - ratio))) for group, width in widths.items()}


def told_widths(widths: Mapping[str, int], ratios: Mapping[str, float]) -> dict[str, int]:
    """Each group's own share; groups that no pattern matches keep their width, the first pattern that matches counts.

    Args:
        widths: present, by group.
        ratios: shares to take out by name of the group; `*` is a wildcard.

    Raises:
        InputError: a ratio out of range, or a pattern that matches no group.
    """
    for pattern, ratio in ratios.items():
        _check(ratio)
        if not any(fnmatchcase(group, pattern) for group in widths):
            raise InputError(f"no group is named {pattern!r}{suggest(pattern, tuple(widths))}", name=pattern)
    found: dict[str, int] = {}
    for group, width in widths.items():
        ratio = next((r for pattern, r in ratios.items() if fnmatchcase(group, pattern)), 0.0)
        found[group] = max(1, round(width * (1 - ratio)))
    return found


def global_widths(scores: Mapping[str, Tensor], ratio: float, *, least: int = 1) -> dict[str, int]:
    """The lowest-ranked channels of all groups together; of equal scores those of the first group and index go.

    Args:
        scores: by group, [width], as `scoring.channel_scores` gives them: in units of the group's mean.
        ratio: share of all channels to take out, in [0, 1]; less is taken where groups would fall under `least`.
        least: channels that every group keeps.

    Raises:
        InputError: a ratio out of range.
    """
    _check(ratio)
    widths = {group: len(s) for group, s in scores.items()}
    left = round(ratio * sum(widths.values()))
    ranked = sorted((score, number, group) for number, (group, s) in enumerate(scores.items()) for score in s.tolist())
    for _, _, group in ranked:
        if not left:
            break
        if widths[group] > least:
            widths[group] -= 1
            left -= 1
    return widths


def sensitivity_widths(widths: Mapping[str, int], loss: Callable[[str, int], float], ratio: float) -> dict[str, int]:
    """Every group is cut until it loses the same: the least loss a group at which the share of all channels is out.

    Args:
        widths: present, by group.
        loss: of (group, width): what the model loses with that group alone at that width. Where it falls again with
            fewer channels, the highest loss on the way counts.
        ratio: share of all channels to take out, in [0, 1]; a group keeps at least one, so the most is less than 1.

    Raises:
        InputError: a ratio out of range.

    Source: Li et al. 2017, "Pruning Filters for Efficient ConvNets", section 3.2, arXiv:1608.08710.
    """
    _check(ratio)
    curves = {g: list(accumulate((loss(g, w - n) for n in range(1, w)), max)) for g, w in widths.items()}
    wanted = round(ratio * sum(widths.values()))
    wanted = min(wanted, sum(len(curve) for curve in curves.values()))

    def at(limit: float) -> dict[str, int]:
        return {g: w - sum(1 for value in curves[g] if value <= limit) for g, w in widths.items()}

    limits = sorted({value for curve in curves.values() for value in curve})
    taken = bisect_left(limits, wanted, key=lambda limit: sum(widths.values()) - sum(at(limit).values()))
    return at(limits[taken]) if wanted else dict(widths)


def _check(ratio: float) -> None:
    if not 0 <= ratio <= 1:
        raise InputError(f"pruning ratio: expected a number from 0 to 1, got {ratio}")
