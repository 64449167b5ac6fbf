"""What is to be allocated for one model at one place: each group's width among its knees, and which blocks stay.

Prices come from operator tables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from edgeprune.graph.names import block_of
from edgeprune.planning.allocation_problem import (
    AllocationProblem,
    Block,
    Choice,
    Configuration,
    Group,
    Term,
    tabulate,
)
from edgeprune.planning.cost import CostModel, Terms, operator_kind
from edgeprune.planning.memory import MemoryBook
from edgeprune.planning.operator_price import Price, latency_price, weight_price
from edgeprune.records.memory import OpenCall
from edgeprune.records.operators import OperatorShape, OperatorUse

LATENCY = "latency_ms"
WEIGHTS = "weights"

_AVERAGING = frozenset({"mean", "avg_pool1d", "avg_pool2d", "adaptive_avg_pool2d"})
"""Calls that may be what the tables have as an average of each channel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapeProblem:
    """A model whose widths are open.

    Attributes:
        uses: its operators, as `graph.operators.model_operators` found them.
        full: width of each group before any cut.
        choices: by group, the widths that are worth choosing, with what each loses.
        entry_ms: the table entry of an operator. It is asked only for operators where one group has one of its
            choices and every other group its full width, and for `corner_shapes`: a trip measures so many, not the
            product of all.
        blocks: modules that can be removed whole, with what that loses. What lies in a block goes with it.
        memory: what was measured at the place so far, where memory is to be a resource too.
        narrowest: the widths that `corner_shapes` were measured at; a group that is not named, at its least choice;
            one without choices, at its full width.
        calls: those that no table prices; averages may be among them, and count where the tables have not got them all.
    """

    uses: tuple[OperatorUse, ...]
    full: Mapping[str, int]
    choices: Mapping[str, tuple[Choice, ...]]
    entry_ms: Callable[[OperatorShape], float]
    blocks: tuple[Block, ...] = ()
    memory: MemoryBook | None = None
    narrowest: Mapping[str, int] = field(default_factory=dict)
    calls: tuple[OpenCall, ...] = ()

    def allocation(self, cost: CostModel) -> AllocationProblem:
        """The problem at the prices of a cost model."""
        groups = {
            name: Group(name=name, choices=choices, block=self._block_of(name))
            for name, choices in self.choices.items()
        }
        terms = [tabulate("the rest", (), lambda: {LATENCY: cost.rest_ms})]
        for number, use in enumerate(self.uses):
            if not use.unsupported:
                terms += self._terms(f"{number} {use.layer}", use, groups, cost)
        terms += (term for call in self._unpriced if call.by_group for term in self._call_terms(call, groups, cost))
        problem = AllocationProblem(groups=tuple(groups.values()), terms=tuple(terms), blocks=self.blocks)
        return self.memory.added_to(problem, WEIGHTS) if self.memory else problem

    def terms(self, shape: Configuration) -> Terms:
        """What the cost model is fitted to: table entries by kind of operator, and what whole models add to them."""
        left = [u for u in self.uses if not u.unsupported and self._block_of(u.layer) not in shape.removed_blocks]
        sums: dict[str, float] = {}
        for use in left:
            kind = operator_kind(use.shape)
            sums[kind] = sums.get(kind, 0.0) + self.operator_ms(use, shape.widths)
        weights = sum(self.weights(use, shape.widths) for use in left)
        distinct = len({use.at(shape.widths) for use in left})
        return Terms(tuple(sorted(sums.items())), self.by_call(shape), weights, distinct)

    def by_call(self, shape: Configuration) -> tuple[tuple[str, float], ...]:
        """What `Terms` have of calls; no table is asked."""
        sums: dict[str, float] = {}
        for call, count in self.elements(shape):
            sums[call.name] = sums.get(call.name, 0.0) + count
        return tuple(sorted(sums.items()))

    def elements(self, shape: Configuration) -> Iterator[tuple[OpenCall, float]]:
        """What each call that a group narrows reads and makes, without those of removed blocks."""
        left = {g: w for g, w in {**self.full, **shape.widths}.items() if self._block_of(g) not in shape.removed_blocks}
        for call in self._unpriced:
            if call.by_group and self._block_that_calls(call) not in shape.removed_blocks:
                yield call, call.elements(left)

    def whole(self) -> Configuration:
        """Nothing cut, nothing removed."""
        return Configuration(widths=self.full)

    @property
    def _unpriced(self) -> tuple[OpenCall, ...]:
        averages = sum(call.name in _AVERAGING for call in self.calls)
        if averages != sum(use.shape.kind == "average" for use in self.uses):
            return self.calls
        return tuple(call for call in self.calls if call.name not in _AVERAGING)

    def _block_of(self, layer: str) -> str | None:
        return block_of(layer, (block.name for block in self.blocks))

    def _block_that_calls(self, call: OpenCall) -> str | None:
        # The block itself may be what calls.
        return self._block_of(f"{call.layer}.")

    def operator_ms(self, use: OperatorUse, widths: Mapping[str, int]) -> float:
        """What an operator takes at these widths, by the tables; a group that is not named keeps its full one."""
        # What is 0 may come out as less by rounding.
        return max(0.0, self._latency(use).at({**self.full, **widths}))

    def weights(self, use: OperatorUse, widths: Mapping[str, int]) -> float:
        """How many an operator has at these widths."""
        return weight_price(use).at({**self.full, **widths})

    def _latency(self, use: OperatorUse) -> Price:
        least = {g: self.narrowest.get(g, min(c.width for c in choices)) for g, choices in self.choices.items()}
        return latency_price(use, self.entry_ms, {**self.full, **least})

    def _call_terms(self, call: OpenCall, groups: Mapping[str, Group], cost: CostModel) -> Iterable[Term]:
        """What a call takes whatever the widths, and for each group's."""
        name, rate_ms = f"{call.layer} {call.name}", cost.rate_ms(call.name)
        fixed = call.elements({g: w for g, w in self.full.items() if g not in groups})
        block = self._block_that_calls(call)
        yield tabulate(name, (), lambda: {LATENCY: rate_ms * fixed}, block=block)
        for group, each in call.by_group:
            if group in groups:
                widths = np.array([choice.width for choice in groups[group].choices], dtype=np.float64)
                # Also where another module reads what the block makes.
                goes_with = block or groups[group].block
                costs = {LATENCY: rate_ms * each * widths}
                yield Term(name=f"{name} by {group}", groups=(group,), costs=costs, block=goes_with)

    def _terms(self, name: str, use: OperatorUse, groups: Mapping[str, Group], cost: CostModel) -> Iterable[Term]:
        """The price of an operator in tables over one group or two."""
        latency, weights = self._latency(use).tables(groups, self.full), weight_price(use).tables(groups, self.full)
        scale, block = cost.scale(operator_kind(use.shape)), self._block_of(use.layer)
        for axes in dict.fromkeys((*latency, *weights)):
            none = np.zeros([len(groups[group].choices) for group in axes])
            count = weights.get(axes, none)
            costs = {LATENCY: scale * latency.get(axes, none) + cost.weight_ms * count, WEIGHTS: count}
            yield Term(name=" by ".join((name, *axes)), groups=axes, costs=costs, block=block)
