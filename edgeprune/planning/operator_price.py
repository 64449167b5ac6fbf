"""What an operator costs at any widths of its groups, from the table entries of a few shapes.

An operator's latency goes with the blocks of its input channels times the blocks of its output channels, so what a cut
saves is about the same share at every width of the other side. Not quite: where fewer outputs take a slower kernel,
fewer inputs save less (ONNX Runtime INT8, 3x3: from 16 to 8 channels out 0.020 to 0.033 ms, then from 16 to 8 in to
0.031, not to 0.026). So the outputs y are measured at all their widths twice, with the inputs x at their full width and
at their narrowest, and what lies between is put together from both:

    price(x, y) = r(x) * ((1 - t) * entry(full, y) + t * entry(narrowest, y) / r(narrowest))

with r(x) = entry(x, full) / entry(full, full), and t the share of x's channels that is cut, of those that may be. Every
entry comes out as it was measured. Of a concatenation only the total counts, and one part's own cut is often less than
the error of an entry: along such a side the price is a line in channels, between the full width and the narrowest.

All of it is a sum of products of two sums over groups, so a sum over pairs: the solver has the same price as the fit,
exactly, in tables over at most two groups, however many parts a concatenation has. It is never under 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from math import prod

import numpy as np

from edgeprune.planning.allocation_problem import Group, Table
from edgeprune.records.operators import OF_OUTPUTS_ALONE, WEIGHTLESS, ChannelPart, OperatorShape, OperatorUse


@dataclass(frozen=True, slots=True)
class Sum:
    """What is fixed, and what each group adds at a width."""

    fixed: float
    by_group: Mapping[str, Callable[[int], float]] = field(default_factory=dict)

    def at(self, widths: Mapping[str, int]) -> float:
        """At these widths, of all its groups."""
        return self.fixed + sum(of(widths[group]) for group, of in self.by_group.items())


@dataclass(frozen=True, slots=True)
class Price:
    """A sum of products of two sums."""

    products: tuple[tuple[Sum, Sum], ...]

    def at(self, widths: Mapping[str, int]) -> float:
        """At these widths, of all its groups."""
        return sum(one.at(widths) * other.at(widths) for one, other in self.products)

    def tables(self, groups: Mapping[str, Group], full: Mapping[str, int]) -> dict[tuple[str, ...], Table]:
        """The price as a sum of tables, by the groups that are their axes: at most two.

        Args:
            groups: with the choices of each; others stay at their full width.
            full: width of each group.
        """
        found: dict[tuple[str, ...], Table] = {}
        for one, other in self.products:
            of_one, of_other = _values(one, groups, full), _values(other, groups, full)
            for (first, values), (second, factors) in product(of_one.items(), of_other.items()):
                same = first == second
                axes = first if same else (*first, *second)
                table = values * factors if same else np.multiply.outer(values, factors)
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
    whole = entry_ms(use.shape)
    if len(use.groups) == 1:
        # Also where it is on both sides: its entries are of both.
        (group,) = use.groups
        return Price(((Sum(0.0, {group: _entries(use, group, entry_ms)}), Sum(1.0)),))
    if whole <= 0.0:
        return Price(((Sum(0.0), Sum(0.0)),))
    x, y = _sides(use)
    of_full = _along(y, x.opposite(use), entry_ms, narrowest)
    if not x.groups:
        return Price(((Sum(1.0), of_full),))
    of_low = _along(y, x.opposite(use, narrowest), entry_ms, narrowest)
    left = x.left_share(narrowest)
    if not x.single:
        return Price(((left, of_full), (_line(left, 0.0, 1.0), of_low)))
    (group,) = x.groups
    least, of_x, share = entry_ms(x.use.at(narrowest)), _entries(x.use, group, entry_ms), left.by_group[group]
    near = Sum(0.0, {group: lambda width: of_x(width) / whole * share(width)})
    if least <= 0.0:
        return Price(((near, of_full),))
    far = Sum(0.0, {group: lambda width: of_x(width) / least * (1.0 - share(width))})
    return Price(((near, of_full), (far, of_low)))


def corner_shapes(
    uses: Iterable[OperatorUse], widths: Mapping[str, Iterable[int]], narrowest: Mapping[str, int]
) -> tuple[OperatorShape, ...]:
    """The operators that `latency_price` asks for besides those where one group is narrower.

    Args:
        uses: of the model; those that no table can price are left out.
        widths: of each group, that the model may have.
        narrowest: the least of each.
    """
    found: list[OperatorShape] = []
    for use in (u for u in uses if not u.unsupported and len(u.groups) > 1):
        x, y = _sides(use)
        for other in dict.fromkeys((x.opposite(use), x.opposite(use, narrowest))):
            found += [other.at(narrowest), other.shape]
            if y.single:
                found += [other.at({group: width}) for group in y.groups for width in widths[group]]
    return tuple(dict.fromkeys(found))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Side:
    """The groups of an operator's inputs, or of its outputs.

    Attributes:
        use: the operator with this side alone open.
        single: whether entries show its groups one by one: it has no more than one, and the other side has not got it.
    """

    use: OperatorUse
    single: bool

    @property
    def groups(self) -> tuple[str, ...]:
        return self.use.groups

    def opposite(self, whole: OperatorUse, narrowest: Mapping[str, int] | None = None) -> OperatorUse:
        """The operator with the other side alone open, this one at its full width or its narrowest."""
        shape = whole.shape if narrowest is None else self.use.at(narrowest)
        if self.use.in_parts or not self.use.out_parts:
            return replace(whole, shape=shape, in_parts=())
        return replace(whole, shape=shape, out_parts=())

    def left_share(self, narrowest: Mapping[str, int]) -> Sum:
        """Of the channels between the full widths and the narrowest, how many are left: 1 to 0."""
        parts = (*self.use.in_parts, *self.use.out_parts)

        def left(group: str, width: int) -> float:
            return sum(p.per_channel * max(0, width - narrowest[group]) for p in parts if p.group == group)

        most = sum(left(p.group, p.width) for p in {p.group: p for p in parts}.values())
        if most <= 0.0:
            return Sum(1.0, {group: lambda _: 0.0 for group in self.groups})

        def share(group: str) -> Callable[[int], float]:
            return lambda width: left(group, width) / most

        return Sum(0.0, {group: share(group) for group in self.groups})


def _sides(use: OperatorUse) -> tuple[_Side, _Side]:
    """The side that is taken at its ends, and the one that is measured at all its widths where that can be done.

    That is the outputs, if it can: kernels work on so many outputs at a time.
    """
    in_parts = () if use.shape.kind in OF_OUTPUTS_ALONE else use.in_parts
    into, out = replace(use, in_parts=in_parts, out_parts=()), replace(use, in_parts=())
    shared = set(into.groups) & set(out.groups)
    inputs, outputs = (_Side(use=s, single=len(s.groups) <= 1 and not shared & set(s.groups)) for s in (into, out))
    return (outputs, inputs) if inputs.single and inputs.groups and not outputs.single else (inputs, outputs)


def _along(
    side: _Side, use: OperatorUse, entry_ms: Callable[[OperatorShape], float], narrowest: Mapping[str, int]
) -> Sum:
    """The entries of an operator along one side: each, or the line between its ends."""
    if not side.groups:
        return Sum(entry_ms(use.shape))
    if side.single:
        (group,) = side.groups
        return Sum(0.0, {group: _entries(use, group, entry_ms)})
    return _line(side.left_share(narrowest), entry_ms(use.shape), entry_ms(use.at(narrowest)))


def _line(left: Sum, full: float, least: float) -> Sum:
    """Between the values at the full widths and at the narrowest."""

    def of(share: Callable[[int], float]) -> Callable[[int], float]:
        return lambda width: (full - least) * share(width)

    fixed = least + (full - least) * left.fixed
    return Sum(fixed, {group: of(share) for group, share in left.by_group.items()})


def _entries(use: OperatorUse, group: str, entry_ms: Callable[[OperatorShape], float]) -> Callable[[int], float]:
    return lambda width: entry_ms(use.at({group: width}))


def weight_price(use: OperatorUse) -> Price:
    """Weights and biases of an operator; `weight_count` of what it is at the widths."""
    shape = use.shape
    if shape.kind in WEIGHTLESS:
        return Price(((Sum(0.0), Sum(0.0)),))
    outputs = _channels(shape.out_channels, use.out_parts, 1.0)
    taps = float(prod(shape.kernel))
    if shape.kind == "depthwise":
        return Price(((Sum(taps + 1), outputs),))
    inputs = _channels(shape.in_channels, use.in_parts, taps / shape.groups)
    return Price(((replace(inputs, fixed=inputs.fixed + 1), outputs),))


def weight_count(shape: OperatorShape) -> int:
    """Weights and biases of an operator; an addition or an average has none."""
    if shape.kind in WEIGHTLESS:
        return 0
    return shape.out_channels * (shape.in_channels // shape.groups * prod(shape.kernel) + 1)


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
