"""What is to be allocated for one model at one place: each group's width among its knees, and which blocks stay.

Prices come from operator tables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

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
from edgeprune.records.operators import OperatorShape, OperatorUse

LATENCY = "latency_ms"
WEIGHTS = "weights"

_MOST_AXES = 2
"""A table over three groups has thousands of entries; the parts of a concatenation are priced one by one instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapeProblem:
    """A model whose widths are open.

    Attributes:
        uses: its operators, as `graph.operators.model_operators` found them.
        full: width of each group before any cut.
        choices: by group, the widths that are worth choosing, with what each loses.
        entry_ms: the table entry of an operator. It is asked only for operators where one group has one of its
            choices and every other group its full width: a trip measures so many, not the product of all.
        blocks: modules that can be removed whole, with what that loses. What lies in a block goes with it.
        memory: what was measured at the place so far, where memory is to be a resource too.
    """

    uses: tuple[OperatorUse, ...]
    full: Mapping[str, int]
    choices: Mapping[str, tuple[Choice, ...]]
    entry_ms: Callable[[OperatorShape], float]
    blocks: tuple[Block, ...] = ()
    memory: MemoryBook | None = None

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
        """The table entry of an operator; where two of its groups are cut, the product of what each cut saves.

        An operator's latency goes with the blocks of its input channels times the blocks of its output channels, so
        what half the inputs save is nearly the same share at every number of outputs.
        """
        cut = [g for g in use.groups if widths.get(g, self.full[g]) != self.full[g]]
        if len(cut) <= 1:
            return self.entry_ms(use.at(widths))
        whole = self.entry_ms(use.at({}))
        if whole <= 0:
            return 0.0
        return whole * prod(self.entry_ms(use.at({g: widths[g]})) / whole for g in cut)

    def _terms(self, name: str, use: OperatorUse, groups: Mapping[str, Group], cost: CostModel) -> Iterable[Term]:
        involved = [groups[g] for g in use.groups if g in groups]
        block = self._block_of(use.layer)

        def price(widths: Mapping[str, int]) -> dict[str, float]:
            entry = self.operator_ms(use, widths)
            return {LATENCY: cost.operator_ms(use.shape, entry), WEIGHTS: float(weight_count(use.at(widths)))}

        if len(involved) <= _MOST_AXES:
            axes = [g.name for g in involved]
            return [tabulate(name, involved, lambda *widths: price(dict(zip(axes, widths, strict=True))), block=block)]
        return _one_by_one(name, involved, price, block)


def _one_by_one(
    name: str,
    involved: Sequence[Group],
    price: Callable[[Mapping[str, int]], dict[str, float]],
    block: str | None,
) -> list[Term]:
    """A sum over the groups of what each cut saves by itself; measured whole models correct what that misses."""
    whole = price({})
    terms = [tabulate(name, (), lambda: whole, block=block)]
    for group in involved:

        def saved(width: int, group: Group = group) -> dict[str, float]:
            alone = price({group.name: width})
            return {resource: alone[resource] - whole[resource] for resource in whole}

        terms.append(tabulate(f"{name} by {group.name}", (group,), saved, block=block))
    return terms


def weight_count(shape: OperatorShape) -> int:
    """Weights and biases of an operator; an addition has none."""
    if shape.kind == "add":
        return 0
    return shape.out_channels * (shape.in_channels // shape.groups * prod(shape.kernel) + 1)
