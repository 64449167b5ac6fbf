"""How what is taken is spread: channels over groups by several rules, zeros over layers by sensitivity.

The planner chooses widths otherwise: by what each costs and loses (`planning/allocation.py`). These are the rules of
the literature, for `pruning.selection` of a target and for Python.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import accumulate
from math import fsum
from typing import TYPE_CHECKING

from edgeprune.errors import InputError
from edgeprune.registry import suggest

if TYPE_CHECKING:
    from torch import Tensor


_STEPS = 200
"""Of a layer's share of zeros."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """How far a group may be cut.

    Attributes:
        width: its channels.
        unit: channels that only go together, such as those of an attention head; the width is a multiple of it.
        least: channels that it keeps at least; one unit stays always.
    """

    width: int
    unit: int = 1
    least: int = 1

    @property
    def lowest(self) -> int:
        """The narrowest width of whole units."""
        return min(self.width, max(1, -(-self.least // self.unit)) * self.unit)

    def without(self, ratio: float) -> int:
        """The width of whole units that is nearest to a share less of channels."""
        return max(self.lowest, round(self.width * (1 - ratio) / self.unit) * self.unit)


def uniform_widths(rooms: Mapping[str, Room], ratio: float) -> dict[str, int]:
    """The same share of channels out of every group, in whole units.

    Args:
        rooms: by group.
        ratio: share to take out, in [0, 1].

    Raises:
        InputError: a ratio out of range.
    """
    _check(ratio)
    return {group: room.without(ratio) for group, room in rooms.items()}


def told_widths(rooms: Mapping[str, Room], ratios: Mapping[str, float]) -> dict[str, int]:
    """Each group's own share; groups that no pattern matches keep their width, the first pattern that matches counts.

    Args:
        rooms: by group.
        ratios: shares to take out by name of the group; `*` is a wildcard.

    Raises:
        InputError: a ratio out of range, or a pattern that matches no group.
    """
    for pattern, ratio in ratios.items():
        _check(ratio)
        if not any(fnmatchcase(group, pattern) for group in rooms):
            raise InputError(
                f"pruning.group_ratios: no group is named {pattern!r}{suggest(pattern, tuple(rooms))}", name=pattern
            )
    return {
        group: room.without(next((r for pattern, r in ratios.items() if fnmatchcase(group, pattern)), 0.0))
        for group, room in rooms.items()
    }


def global_widths(
    rooms: Mapping[str, Room],
    scores: Mapping[str, Tensor],
    ratio: float,
    units: Mapping[str, Sequence[Sequence[int]]] | None = None,
) -> dict[str, int]:
    """The lowest-ranked units of all groups together; of equal ones those of the first group and index go.

    A unit counts as the mean of its channels, as when it is cut.

    Args:
        rooms: by group.
        scores: by group, [width], as `scoring.channel_scores` gives them: in units of the group's mean.
        ratio: share of all channels to take out, in [0, 1]: at least so many, unless the groups' least is in the way.
        units: by group, its channels by what only goes together (`ChannelGraph.units`); without, each is by itself.

    Raises:
        InputError: a ratio out of range.
    """
    _check(ratio)
    widths = {group: room.width for group, room in rooms.items()}
    left = round(ratio * sum(widths.values()))
    ranked = sorted(
        (fsum(values[channel] for channel in unit) / len(unit), number, group, len(unit))
        for number, group in enumerate(rooms)
        for values in (scores[group].tolist(),)
        for unit in (units[group] if units else [[channel] for channel in range(len(values))])
    )
    for _, _, group, size in ranked:
        if left <= 0:
            break
        if widths[group] - size >= rooms[group].lowest:
            widths[group] -= size
            left -= size
    return widths


def sensitivity_widths(rooms: Mapping[str, Room], loss: Callable[[str, int], float], ratio: float) -> dict[str, int]:
    """Every group is cut until it loses the same: the least loss a group at which the share of all channels is out.

    Args:
        rooms: by group.
        loss: of (group, width): what the model loses with that group alone at that width. Where it falls again with
            fewer channels, the highest loss on the way counts.
        ratio: share of all channels to take out, in [0, 1]; the groups' least may leave less to take.

    Raises:
        InputError: a ratio out of range.

    Source: Li et al. 2017, "Pruning Filters for Efficient ConvNets", section 3.2, arXiv:1608.08710.
    """
    _check(ratio)
    full = {group: room.width for group, room in rooms.items()}
    curves = {
        g: list(accumulate((loss(g, w) for w in range(r.width - r.unit, r.lowest - 1, -r.unit)), max))
        for g, r in rooms.items()
    }
    wanted = round(ratio * sum(full.values()))
    wanted = min(wanted, sum(room.width - room.lowest for room in rooms.values()))

    def at(limit: float) -> dict[str, int]:
        return {g: w - rooms[g].unit * sum(1 for value in curves[g] if value <= limit) for g, w in full.items()}

    limits = sorted({value for curve in curves.values() for value in curve})
    taken = bisect_left(limits, wanted, key=lambda limit: sum(full.values()) - sum(at(limit).values()))
    return at(limits[taken]) if wanted else full


def sensitivity_shares(
    weights: Mapping[str, int], loss: Callable[[str, float], float], sparsity: float, *, most: float
) -> dict[str, float]:
    """Every layer gets zeros until it loses the same: by layer, the share of its weights.

    Args:
        weights: of each layer, how many.
        loss: of (layer, share): what the model loses with so many zeros in that layer alone. Where it falls again with
            more zeros, the highest loss on the way counts.
        sparsity: share of all weights to zero, in [0, most]; met to rounding.
        most: share of zeros that no layer has more than, in (0, 1].

    Raises:
        InputError: a share out of range.

    Source: Han et al. 2015, "Learning both Weights and Connections for Efficient Neural Networks", section 5,
        arXiv:1506.02626: thresholds by layer, from each layer's sensitivity.
    """
    if not 0 <= sparsity <= most <= 1:
        raise InputError(f"sparsity: expected a number from 0 to {most:g}, got {sparsity}")
    grid = [most * step / _STEPS for step in range(_STEPS + 1)]
    curves = {layer: list(accumulate((loss(layer, share) for share in grid[1:]), max)) for layer in weights}
    total = sum(weights.values())

    def at(limit: float) -> dict[str, float]:
        return {layer: grid[bisect_right(curve, limit)] for layer, curve in curves.items()}

    def reached(shares: Mapping[str, float]) -> float:
        return fsum(weights[layer] * share for layer, share in shares.items()) / max(1, total)

    limits = sorted({value for curve in curves.values() for value in curve})
    place = bisect_left(limits, sparsity, hi=max(0, len(limits) - 1), key=lambda limit: reached(at(limit)))
    below = at(limits[place - 1]) if place else dict.fromkeys(weights, 0.0)
    above = at(limits[place]) if limits else below
    room = reached(above) - reached(below)
    # Of the step that goes past what is wanted, a part.
    part = (sparsity - reached(below)) / room if room > 0 else 0.0
    return {layer: below[layer] + part * (above[layer] - below[layer]) for layer in weights}


def _check(ratio: float) -> None:
    if not 0 <= ratio <= 1:
        raise InputError(f"pruning ratio: expected a number from 0 to 1, got {ratio}")
