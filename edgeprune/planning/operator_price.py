"""What an operator costs at any widths: a sum over its input groups times a sum over its output groups.

All comes from the table entries of a few shapes. An operator's latency goes with the blocks of its input channels times
the blocks of its output channels, so what a cut saves is nearly the same share at every width of the other side. A side
of one group has an entry for each of its widths. Of a concatenation only the total counts, and a part's own cut is
often less than the error of an entry: its share is a line, in channels, from the full widths to the entry where all of
its parts are at their narrowest.

A product of two sums is a sum over pairs: so the solver has the same price as the fit, exactly, in tables over at most
two groups, however many parts there are. No part of it is negative.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from math import prod

import numpy as np

from edgeprune.planning.allocation_problem import Group, Table
from edgeprune.records.operators import ChannelPart, OperatorShape, OperatorUse

_OF_OUTPUTS_ALONE = frozenset({"depthwise", "add"})
"""Kinds whose inputs are as wide as their outputs."""


@dataclass(frozen=True, slots=True)
class Sum:
    """What is fixed, and what each group adds at a width; none of it under 0."""

    fixed: float
    by_group: Mapping[str, Callable[[int], float]] = field(default_factory=dict)

    def at(self, widths: Mapping[str, int]) -> float:
        """At these widths, of all its groups."""
        return self.fixed + sum(of(widths[group]) for group, of in self.by_group.items())


@dataclass(frozen=True, slots=True)
class Price:
    """The sum over an operator's inputs times that over its outputs, in some unit."""

    inputs: Sum
    outputs: Sum
    unit: float = 1.0

    def at(self, widths: Mapping[str, int]) -> float:
        """At these widths, of all its groups."""
        return self.unit * self.inputs.at(widths) * self.outputs.at(widths)

    def tables(self, groups: Mapping[str, Group], full: Mapping[str, int]) -> dict[tuple[str, ...], Table]:
        """The price as a sum of tables, by the groups that are their axes: at most two.

        Args:
            groups: with the choices of each; others stay at their full width.
            full: width of each group.
        """
        found: dict[tuple[str, ...], Table] = {}
        for into, values in _values(self.inputs, groups, full).items():
            for out, factors in _values(self.outputs, groups, full).items():
                same = into == out
                axes = into if same else (*into, *out)
                table = self.unit * (values * factors if same else np.multiply.outer(values, factors))
                found[axes] = found.get(axes, 0.0) + table
        return found


def latency_price(use: OperatorUse, entry_ms: Callable[[OperatorShape], float], narrowest: Mapping[str, int]) -> Price:
    """The latency of an operator, in milliseconds of its table.

    Args:
        use: the operator.
        entry_ms: the table entry of a shape. It is asked only for the full one, for those where one group is narrower,
            and for `corner_shapes`.
        narrowest: the least width of each group.
    """
    into, out = _sides(use)
    if len(use.groups) == 1:
        # Also where it is on both sides: its entries are of both.
        group = use.groups[0]
        return Price(Sum(0.0, {group: lambda width: entry_ms(use.at({group: width}))}), Sum(1.0))
    whole = entry_ms(use.at({}))
    if whole <= 0.0:
        return Price(Sum(0.0), Sum(0.0))

    def share(shape: OperatorShape) -> float:
        return entry_ms(shape) / whole

    inputs, outputs = _share(use, into, share, narrowest), _share(use, out, share, narrowest)
    return Price(inputs, outputs, whole)


def corner_shapes(uses: Iterable[OperatorUse], narrowest: Mapping[str, int]) -> tuple[OperatorShape, ...]:
    """The operators that `latency_price` asks for besides those where one group is narrower: one side at its least."""
    sides = (side for use in uses if not use.unsupported for side in _sides(use) if _is_line(use, side))
    return tuple(dict.fromkeys(side.at(narrowest) for side in sides))


def weight_price(use: OperatorUse) -> Price:
    """Weights and biases of an operator; `weight_count` of what it is at the widths."""
    shape = use.shape
    if shape.kind == "add":
        return Price(Sum(0.0), Sum(0.0))
    outputs = _channels(shape.out_channels, use.out_parts, 1.0)
    taps = float(prod(shape.kernel))
    if shape.kind == "depthwise":
        return Price(Sum(taps + 1), outputs)
    inputs = _channels(shape.in_channels, use.in_parts, taps / shape.groups)
    return Price(replace(inputs, fixed=inputs.fixed + 1), outputs)


def weight_count(shape: OperatorShape) -> int:
    """Weights and biases of an operator; an addition has none."""
    if shape.kind == "add":
        return 0
    return shape.out_channels * (shape.in_channels // shape.groups * prod(shape.kernel) + 1)


def _sides(use: OperatorUse) -> tuple[OperatorUse, OperatorUse]:
    """The operator with its inputs alone open, and with its outputs alone."""
    in_parts = () if use.shape.kind in _OF_OUTPUTS_ALONE else use.in_parts
    return replace(use, in_parts=in_parts, out_parts=()), replace(use, in_parts=())


def _is_line(use: OperatorUse, side: OperatorUse) -> bool:
    """Whether no entry shows this side's groups one by one: there are several, or the other side changes with it."""
    into, out = _sides(use)
    alone = len(side.groups) == 1 and not set(into.groups) & set(out.groups)
    return len(use.groups) > 1 and bool(side.groups) and not alone


def _share(
    use: OperatorUse, side: OperatorUse, share: Callable[[OperatorShape], float], narrowest: Mapping[str, int]
) -> Sum:
    """What is left of the whole operator when one side is cut."""
    if not side.groups:
        return Sum(1.0)
    if not _is_line(use, side):
        group = side.groups[0]
        return Sum(0.0, {group: lambda width: share(use.at({group: width}))})
    parts = (*side.in_parts, *side.out_parts)

    def above(group: str, width: int) -> float:
        return max(0.0, sum(p.per_channel * (width - narrowest[group]) for p in parts if p.group == group))

    full = {p.group: p.width for p in parts}
    most = sum(above(group, width) for group, width in full.items())
    if most <= 0.0:
        return Sum(1.0)
    # Less work that takes longer is an error of the entries.
    least = min(1.0, share(side.at(narrowest)))

    def left(group: str) -> Callable[[int], float]:
        return lambda width: (1.0 - least) * above(group, width) / most

    return Sum(least, {group: left(group) for group in full})


def _channels(full: int, parts: Iterable[ChannelPart], each: float) -> Sum:
    per_channel: dict[str, float] = {}
    fixed = float(full)
    for part in parts:
        fixed -= part.per_channel * part.width
        per_channel[part.group] = per_channel.get(part.group, 0.0) + each * part.per_channel

    def of(group: str) -> Callable[[int], float]:
        return lambda width: per_channel[group] * width

    return Sum(each * max(0.0, fixed), {group: of(group) for group in per_channel})


def _values(summed: Sum, groups: Mapping[str, Group], full: Mapping[str, int]) -> dict[tuple[str, ...], Table]:
    """What the choices of each group add, and under no group what is fixed."""
    fixed = summed.fixed + sum(of(full[g]) for g, of in summed.by_group.items() if g not in groups)
    found: dict[tuple[str, ...], Table] = {(): np.array(fixed)} if fixed or not summed.by_group else {}
    for group, of in summed.by_group.items():
        if group in groups:
            found[group,] = np.array([of(choice.width) for choice in groups[group].choices], dtype=np.float64)
    return found
