"""A cost model's prediction taken apart: what each operator adds to it, and what is left to the rest."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from edgeprune.planning.cost import CostModel, operator_kind
from edgeprune.planning.shape_problem import ShapeProblem
from edgeprune.records.breakdown import Breakdown, OperatorCost
from edgeprune.records.operators import OperatorUse


def break_down(
    problem: ShapeProblem,
    cost: CostModel,
    widths: Mapping[str, int],
    *,
    measured_ms: float | None = None,
    runtime_ms: float | None = None,
    gone: Collection[str] = (),
) -> Breakdown:
    """Where the milliseconds of a model at these widths go.

    Args:
        problem: has the operators and their table entries.
        cost: its prediction is what is taken apart: the sum of the parts is `cost.predict_ms(problem.terms(widths))`,
            less what the operators that are gone would take.
        widths: by group; one that is not named keeps its full width, and 0 is that of a group whose block is gone.
        measured_ms: p50 of the whole model, where it was measured.
        runtime_ms: what the smallest model that was measured at the place takes.
        gone: layers that are taken out with their block, and with all that is named under them.
    """
    kept = {group: width for group, width in widths.items() if width}
    priced = [use for use in problem.uses if not use.unsupported]
    latencies_ms = (
        0.0 if _is_gone(use, gone) else cost.operator_ms(use.shape, problem.operator_ms(use, kept)) for use in priced
    )
    operators = tuple(
        OperatorCost(layer=use.layer, kind=operator_kind(use.shape), latency_ms=latency_ms, fixed=not use.groups)
        for use, latency_ms in zip(priced, latencies_ms, strict=True)
    )
    unpriced = dict.fromkeys(u.layer for u in problem.uses if u.unsupported and not _is_gone(u, gone))
    return Breakdown(
        operators=operators,
        rest_ms=cost.intercept_ms,
        observations=len(cost.observations),
        measured_ms=measured_ms,
        runtime_ms=runtime_ms,
        unpriced=tuple(unpriced),
    )


def _is_gone(use: OperatorUse, gone: Collection[str]) -> bool:
    return any(use.layer == name or use.layer.startswith(f"{name}.") for name in gone)
