"""A cost model's prediction taken apart: what each operator adds to it, and what is left to the rest."""

from __future__ import annotations

from collections import Counter

from edgeprune.graph.names import block_of
from edgeprune.planning.allocation_problem import Configuration
from edgeprune.planning.cost import CostModel, operator_kind
from edgeprune.planning.shape_problem import ShapeProblem
from edgeprune.records.breakdown import Breakdown, OperatorCost
from edgeprune.records.operators import OperatorUse


def break_down(
    problem: ShapeProblem,
    cost: CostModel,
    shape: Configuration,
    *,
    measured_ms: float | None = None,
    runtime_ms: float | None = None,
) -> Breakdown:
    """Where the milliseconds of a model in this shape go.

    Args:
        problem: has the operators and their table entries.
        cost: its prediction is what is taken apart: the sum of the parts is `cost.predict_ms(problem.terms(shape))`.
        shape: operators of its removed blocks take no time.
        measured_ms: p50 of the whole model, where it was measured.
        runtime_ms: what the smallest model that was measured at the place takes.
    """
    priced = [use for use in problem.uses if not use.unsupported]
    alike = Counter(use.at(shape.widths) for use in priced if not _is_gone(use, shape))

    def latency_ms(use: OperatorUse) -> float:
        entry_ms, weights = problem.operator_ms(use, shape.widths), problem.weights(use, shape.widths)
        code_ms = cost.code_ms / alike[use.at(shape.widths)]
        return cost.scale(operator_kind(use.shape)) * entry_ms + cost.weight_ms * weights + code_ms

    operators = tuple(
        OperatorCost(
            layer=use.layer,
            kind=operator_kind(use.shape),
            latency_ms=0.0 if _is_gone(use, shape) else latency_ms(use),
            fixed=not use.groups,
        )
        for use in priced
    )
    calls = tuple(
        OperatorCost(layer=call.layer, kind=call.name, latency_ms=cost.rate_ms(call.name) * elements, call=True)
        for call, elements in problem.elements(shape)
    )
    unpriced = dict.fromkeys(u.layer for u in problem.uses if u.unsupported and not _is_gone(u, shape))
    return Breakdown(
        operators=(*operators, *calls),
        rest_ms=cost.intercept_ms,
        observations=len(cost.observations),
        measured_ms=measured_ms,
        runtime_ms=runtime_ms,
        unpriced=tuple(unpriced),
    )


def _is_gone(use: OperatorUse, shape: Configuration) -> bool:
    return block_of(use.layer, shape.removed_blocks) is not None
