"""What is to be allocated for one model at one place: each group's width among its knees, and which blocks stay.

Prices come from operator tables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

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
from edgeprune.records.operators import OperatorShape, OperatorUse

LATENCY = "latency_ms"
WEIGHTS = "weights"


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
    """

    uses: tuple[OperatorUse, ...]
    full: Mapping[str, int]
    choices: Mapping[str, tuple[Choice, ...]]
    entry_ms: Callable[[OperatorShape], float]
    blocks: tuple[Block, ...] = ()
    memory: MemoryBook | None = None
    narrowest: Mapping[str, int] = field(default_factory=dict)

    def allocation(self, cost: CostModel) -> AllocationProblem:
        """The problem at the prices of a cost model."""
        groups = {
            name: Group(name=name, choices=choices, block=self._block_of(name))
            for name, choices in self.choices.items()
        }
        terms = [tabulate("the rest", (), lambda: {LATENCY: cost.intercept_ms})]
        for number, use in enumerate(self.uses):
            if not use.unsupported:
                terms += self._terms(f"{number} {use.layer}", use, groups, cost)
        problem = AllocationProblem(groups=tuple(groups.values()), terms=tuple(terms), blocks=self.blocks)
        return self.memory.added_to(problem, WEIGHTS) if self.memory else problem

    def terms(self, shape: Configuration) -> Terms:
        """What the cost model is fitted to: the sum of the table entries of a shape, by kind of operator."""
        sums: dict[str, float] = {}
        for use in self.uses:
            if not use.unsupported and self._block_of(use.layer) not in shape.removed_blocks:
                kind = operator_kind(use.shape)
                sums[kind] = sums.get(kind, 0.0) + self.operator_ms(use, shape.widths)
        return Terms(tuple(sorted(sums.items())))

    def whole(self) -> Configuration:
        """Nothing cut, nothing removed."""
        return Configuration(widths=self.full)

    def _block_of(self, layer: str) -> str | None:
        return block_of(layer, (block.name for block in self.blocks))

    def operator_ms(self, use: OperatorUse, widths: Mapping[str, int]) -> float:
        """What an operator takes at these widths, by the tables; a group that is not named keeps its full one."""
        # What is 0 may come out as less by rounding.
        return max(0.0, self._latency(use).at({**self.full, **widths}))

    def _latency(self, use: OperatorUse) -> Price:
        least = {g: self.narrowest.get(g, min(c.width for c in choices)) for g, choices in self.choices.items()}
        return latency_price(use, self.entry_ms, {**self.full, **least})

    def _terms(self, name: str, use: OperatorUse, groups: Mapping[str, Group], cost: CostModel) -> Iterable[Term]:
        """The price of an operator in tables over one group or two."""
        latency, weights = self._latency(use).tables(groups, self.full), weight_price(use).tables(groups, self.full)
        scale, block = cost.scale(operator_kind(use.shape)), self._block_of(use.layer)
        for axes in dict.fromkeys((*latency, *weights)):
            costs = {LATENCY: scale * latency[axes]} if axes in latency else {}
            costs |= {WEIGHTS: weights[axes]} if axes in weights else {}
            yield Term(name=" by ".join((name, *axes)), groups=axes, costs=costs, block=block)
