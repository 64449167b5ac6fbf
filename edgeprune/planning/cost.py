"""Latency of a whole model from the tables of its operators, corrected by whole models that were measured.

    predicted = intercept + sum over kinds of operators of scale(kind) * sum of the table entries of that kind

The intercept holds what no table has: the runtime's own time, pooling, attention's products. A scale holds what differs
between an operator in its micro-model and in the model: caches, conversions of layout between neighbours. Both are
fitted in relative error, so that small models count as much as large ones. The scales are drawn to 1 by a prior, so few
measurements suffice, and none at all gives the plain sum.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from edgeprune.errors import InputError
from edgeprune.records.operators import OperatorShape, OperatorUse

NOISE = 0.02
"""Relative error of a whole model's quick measurement, one standard deviation."""

SPREAD = 0.25
"""How far from 1 a scale may well be, one standard deviation."""


@dataclass(frozen=True, slots=True)
class Terms:
    """The sum of table entries of a model by kind of operator, as (kind, ms), sorted by kind."""

    by_kind: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class Observation:
    """A whole model that was measured: its terms, and its p50."""

    terms: Terms
    latency_ms: float


def operator_kind(shape: OperatorShape) -> str:
    """What shares a scale: `conv3x3`, `depthwise3x3`, `linear`, `add`."""
    return shape.kind + "x".join(map(str, shape.kernel))


def cost_terms(
    uses: Iterable[OperatorUse], widths: Mapping[str, int], latency_ms: Callable[[OperatorShape], float]
) -> Terms:
    """Add up the table entries of a model whose groups have these widths.

    Args:
        uses: of the model; those that no table can price are left to the intercept.
        widths: by group name; a group that is not named keeps its full width.
        latency_ms: the table entry of a shape.
    """
    sums: dict[str, float] = {}
    for use in uses:
        if not use.unsupported:
            shape = use.at(widths)
            kind = operator_kind(shape)
            sums[kind] = sums.get(kind, 0.0) + latency_ms(shape)
    return Terms(tuple(sorted(sums.items())))


@dataclass(frozen=True)
class CostModel:
    """A fitted cost model; immutable, `updated` gives the next one."""

    observations: tuple[Observation, ...] = ()

    def updated(self, *more: Observation) -> CostModel:
        """The model with these whole models too.

        Raises:
            InputError: a latency is not a number above 0.
        """
        for observation in more:
            if not 0.0 < observation.latency_ms < float("inf"):
                raise InputError(f"a measured latency: expected a number > 0, got {observation.latency_ms}")
        return CostModel((*self.observations, *more))

    @property
    def intercept_ms(self) -> float:
        """What every model of the kind pays; not under 0."""
        return self._fitted[0]

    def scale(self, kind: str) -> float:
        """What a table entry of this kind of operator counts, not under 0; 1 for a kind not seen in any observation."""
        return self._fitted[1].get(kind, 1.0)

    def predict_ms(self, terms: Terms) -> float:
        """p50 of a whole model."""
        return self.intercept_ms + sum(self.scale(kind) * ms for kind, ms in terms.by_kind)

    def operator_ms(self, shape: OperatorShape, entry_ms: float) -> float:
        """What one operator adds to the prediction."""
        return self.scale(operator_kind(shape)) * entry_ms

    @cached_property
    def _fitted(self) -> tuple[float, dict[str, float]]:
        return _fit(self.observations)


def _fit(observations: Sequence[Observation]) -> tuple[float, dict[str, float]]:
    """Non-negative least squares of the relative errors, with one more row a scale that draws it to 1."""
    import numpy as np
    from scipy.optimize import nnls

    if not observations:
        return 0.0, {}
    kinds = sorted({kind for o in observations for kind, _ in o.terms.by_kind})
    rows = len(observations)
    matrix = np.zeros((rows + len(kinds), 1 + len(kinds)))
    wanted = np.ones(rows + len(kinds))
    # In units of a latency, so that the intercept's column is as large as the others.
    unit_ms = float(np.mean([o.latency_ms for o in observations]))
    for row, observation in enumerate(observations):
        matrix[row, 0] = unit_ms / observation.latency_ms
        for kind, ms in observation.terms.by_kind:
            matrix[row, 1 + kinds.index(kind)] = ms / observation.latency_ms
    for number in range(len(kinds)):
        matrix[rows + number, 1 + number] = NOISE / SPREAD
        wanted[rows + number] = NOISE / SPREAD
    solution, _ = nnls(matrix, wanted)
    return float(solution[0]) * unit_ms, dict(zip(kinds, map(float, solution[1:]), strict=True))
