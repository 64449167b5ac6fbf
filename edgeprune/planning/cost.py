"""Latency of a whole model from the tables of its operators, corrected by whole models that were measured.

    predicted = intercept + sum over kinds of operators of scale(kind) * sum of the table entries of that kind
                          + sum over calls that no table prices of rate(call) * elements that it reads and makes
                          + weight rate * weights of all operators
                          + code rate * how many of them are different

The intercept holds what is the same at all widths, such as the runtime's own time. A scale holds what differs between
an operator in its micro-model and in the model: caches, conversions of layout between neighbours. A rate holds what a
runtime takes for paddings, pooling, softmax, products of attention: far from nothing where its kernel is a plain one
(TFLite INT8 spends about a fifth of a ResNet-20 on its two padded shortcuts). Two rates stand for what a micro-model is
thought to have in the nearest cache and a whole model has not: weights, and the code that a runtime makes for each
shape (OpenVINO INT8, fitted to the two ends, whose layers are alike: an encoder with unlike layers takes 4 % longer
than predicted). All are fitted in relative error, so that small models count as much as large ones. The scales are
drawn to 1 and the rates to 0 by a prior, so few measurements suffice, and none at all gives the plain sum.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from edgeprune.errors import InputError
from edgeprune.planning.operator_price import weight_count
from edgeprune.records.operators import OperatorShape, OperatorUse

NOISE = 0.02
"""Relative error of a whole model's quick measurement, one standard deviation."""

SPREAD = 0.25
"""How far from 1 a scale may well be, one standard deviation."""

CALL_SPREAD = 0.5
"""What all calls of a name may well take, as a share of a model's latency, one standard deviation."""

WEIGHT_SPREAD = 0.05
"""The same of fetching weights; with 0.1 and more, what paddings take is put down to weights after two whole models."""

CODE_SPREAD = 0.1
"""The same of fetching code."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What a model's latency is made of.

    Attributes:
        by_kind: the sum of table entries by kind of operator, as (kind, ms), sorted by kind.
        by_call: the elements that calls read and make which no table prices, as (name, elements), sorted by name.
        weights: of all operators that tables price.
        distinct: how many of those operators are different from one another.
    """

    by_kind: tuple[tuple[str, float], ...]
    by_call: tuple[tuple[str, float], ...] = ()
    weights: float = 0.0
    distinct: int = 0


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
    shapes = [use.at(widths) for use in uses if not use.unsupported]
    for shape in shapes:
        kind = operator_kind(shape)
        sums[kind] = sums.get(kind, 0.0) + latency_ms(shape)
    return Terms(tuple(sorted(sums.items())), weights=sum(map(weight_count, shapes)), distinct=len(set(shapes)))


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
        return self._fitted.intercept_ms

    def scale(self, kind: str) -> float:
        """What a table entry of this kind of operator counts, not under 0; 1 for a kind not seen in any observation."""
        return self._fitted.scales.get(kind, 1.0)

    def rate_ms(self, call: str) -> float:
        """What an element costs that calls of this name read or make, not under 0; 0 where none was in a model."""
        return self._fitted.rates.get(call, 0.0)

    @property
    def weight_ms(self) -> float:
        """What a weight costs in a whole model more than in a table, not under 0."""
        return self._fitted.weight_ms

    @property
    def code_ms(self) -> float:
        """What each operator that is different from the others costs for its code, not under 0."""
        return self._fitted.code_ms

    @property
    def rest_ms(self) -> float:
        """What a solver takes for the same at all widths: the intercept, and the code of what was measured last.

        How many operators are different is no sum over groups. So its prices are right at the narrowest shape before a
        search, and then at what was proposed last: shapes nearby have about as many.
        """
        distinct = self.observations[-1].terms.distinct if self.observations else 0
        return self.intercept_ms + self.code_ms * distinct

    def predict_ms(self, terms: Terms) -> float:
        """p50 of a whole model."""
        of_tables = sum(self.scale(kind) * ms for kind, ms in terms.by_kind)
        of_calls = sum(self.rate_ms(name) * size for name, size in terms.by_call)
        of_caches = self.weight_ms * terms.weights + self.code_ms * terms.distinct
        return self.intercept_ms + of_tables + of_calls + of_caches

    @cached_property
    def _fitted(self) -> _Fitted:
        return _fit(self.observations) if self.observations else _Fitted(0.0, {}, {}, 0.0, 0.0)


@dataclass(frozen=True, slots=True)
class _Fitted:
    intercept_ms: float
    scales: Mapping[str, float]
    rates: Mapping[str, float]
    weight_ms: float
    code_ms: float


def _fit(observations: Sequence[Observation]) -> _Fitted:
    """Non-negative least squares of the relative errors, with a row more for each scale and rate: its prior."""
    import numpy as np
    from scipy.optimize import nnls

    measured = np.array([o.latency_ms for o in observations])
    # All columns in units of a latency, so that they are alike in size.
    unit_ms = float(measured.mean())
    kinds, of_kinds = _columns([o.terms.by_kind for o in observations])
    names, of_calls = _columns([o.terms.by_call for o in observations])
    of_caches = [(o.terms.weights, o.terms.distinct) for o in observations]
    sizes = np.array([*of_calls, *zip(*of_caches, strict=True)])
    means = sizes.mean(axis=1)
    units = unit_ms / np.where(means > 0.0, means, 1.0)
    columns = [np.full(len(observations), unit_ms), *map(np.array, of_kinds), *(units[:, None] * sizes)]
    spreads = np.array([np.inf] + [SPREAD] * len(kinds) + [CALL_SPREAD] * len(names) + [WEIGHT_SPREAD, CODE_SPREAD])
    drawn_to = np.array([0.0] + [1.0] * len(kinds) + [0.0] * len(sizes))
    matrix = np.vstack([np.stack(columns, axis=1) / measured[:, None], np.diag(NOISE / spreads)])
    solution, _ = nnls(matrix, np.concatenate([np.ones(len(observations)), NOISE / spreads * drawn_to]))
    scales, rates = np.split(solution[1:], [len(kinds)])
    *of_names, weight_ms, code_ms = (rates * units).tolist()
    return _Fitted(
        float(solution[0]) * unit_ms,
        dict(zip(kinds, scales.tolist(), strict=True)),
        dict(zip(names, of_names, strict=True)),
        weight_ms,
        code_ms,
    )


def _columns(rows: Sequence[tuple[tuple[str, float], ...]]) -> tuple[list[str], list[list[float]]]:
    """The names in all rows, and for each its values; 0 in a row that has none."""
    names = sorted({name for row in rows for name, _ in row})
    return names, [[dict(row).get(name, 0.0) for row in rows] for name in names]
