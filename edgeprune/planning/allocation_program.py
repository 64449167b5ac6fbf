"""The allocation as a mixed-integer linear program, for HiGHS.

Every choice of a group is a binary variable. A table over several groups has a variable a cell, whose sums along each
axis are the choice variables (the local polytope): with the choices whole, exactly one cell is 1, so cells need no
branching; and the relaxation is tight: over a chain or tree of groups it is exact but for the limits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgeprune.planning.allocation_problem import AllocationProblem, Configuration, Table, Term
from edgeprune.planning.allocation_solver import SCALE, MixedProgram, Rows, minimise

_Cells: TypeAlias = tuple[tuple[str, ...], str | None]

_SLACK = 1e-9
"""Share by which limits are loosened in the program, so that no solution that fits exactly is lost to rounding."""

_LEAST = 1e-200
"""What is below counts as zero."""

_HALF = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What HiGHS found.

    Attributes:
        configuration: None when there is none, or none was found in time.
        bound: no solution is better than this, in units of what was minimised.
        complete: False when the time ended first.
    """

    configuration: Configuration | None
    bound: float
    complete: bool


@dataclass(slots=True)
class _Linear:
    """A linear expression over the columns; `signed` when a column that it is over can be negative."""

    coefficients: Table
    constant: float = 0.0
    signed: bool = False


@dataclass(frozen=True, slots=True)
class _Objective:
    """What is minimised is `costs / scale + constant`."""

    costs: Table
    scale: float
    constant: float


class Program:
    """One allocation problem, to be solved under changing limits and cuts.

    Args:
        problem: what to choose from.
        resources: those that are limited or minimised; the costs of others are left out.
    """

    def __init__(self, problem: AllocationProblem, resources: Iterable[str]) -> None:
        self._problem = problem
        self._groups = {group.name: group for group in problem.groups}
        self._gone = {block.name: i for i, block in enumerate(problem.blocks)}
        self._choice: dict[str, NDArray[np.intp]] = {}
        self._cells: dict[_Cells, NDArray[np.intp]] = {}
        self._structure = Rows()
        self._whole = self._size = len(problem.blocks)
        self._declare_choices()
        wanted = set(resources)
        for term in problem.all_terms:
            if wanted & set(term.costs) and not self._is_direct(term):
                self._declare_cells(_cells_of(term))
        self._bounded = self._size
        self._always = {resource: self._declare_always(resource) for resource in wanted if self._steps(resource)}

    @property
    def size(self) -> int:
        """Number of variables."""
        return self._size

    def solve(
        self,
        minimised: str | None,
        limits: Mapping[str, float],
        *,
        loss_limit: float | None = None,
        excluding: Iterable[Configuration] = (),
        relative_gap: float,
        time_limit_s: float,
    ) -> Answer:
        """Minimise a resource, or the loss when `minimised` is None.

        What comes back is within the limits as far as HiGHS's tolerances go, which the caller checks exactly.
        """
        rows = self._structure.copy()
        upper = np.concatenate([np.ones(self._bounded), np.full(self._size - self._bounded, np.inf), [0.0]])
        for resource, limit in limits.items():
            for expression in self._used(resource):
                _add_limit(rows, upper[: self._bounded], expression, limit)
        if loss_limit is not None:
            _add_limit(rows, upper[: self._bounded], self._loss(), loss_limit)
        for configuration in excluding:
            self._add_exclusion(rows, configuration)
        objective = self._add_objective(rows, upper, [self._loss()] if minimised is None else self._used(minimised))
        return self._ask(objective, rows, upper, relative_gap, time_limit_s)

    def _declare_choices(self) -> None:
        for group in self._problem.groups:
            columns = self._new(len(group.choices))
            self._choice[group.name] = columns
            if group.block is None:
                self._structure.add(columns, np.ones(len(columns)), 1, 1)
            else:
                self._structure.add([*columns, self._gone[group.block]], np.ones(len(columns) + 1), 1, 1)
        self._whole = self._size

    def _is_direct(self, term: Term) -> bool:
        """Whether the choices themselves tell what it costs."""
        return not term.groups or (len(term.groups) == 1 and self._groups[term.groups[0]].block == term.block)

    def _declare_cells(self, key: _Cells) -> None:
        """One variable a cell; its sums along an axis are the choices there, if the block that it is in stays."""
        if key in self._cells:
            return
        names, block = key
        shape = tuple(len(self._groups[name].choices) for name in names)
        cells = self._new(int(np.prod(shape))).reshape(shape)
        self._cells[key] = cells.ravel()
        if block is not None:
            self._structure.add([*cells.ravel(), self._gone[block]], np.ones(cells.size + 1), 1, 1)
        for axis, name in enumerate(names):
            low = -np.inf if self._groups[name].block != block else 0.0
            for i, choice in enumerate(self._choice[name]):
                part = np.take(cells, i, axis=axis).ravel()
                self._structure.add([*part, choice], [*np.ones(part.size), -1.0], low, 0)

    def _declare_always(self, resource: str) -> _Linear:
        """A variable for the sum of what always counts: it stands in the row of every step, in place of all cells."""
        total = self._sum(resource, self._problem.terms)
        used = np.flatnonzero(total.coefficients)
        scale = _scale(float(np.abs(total.coefficients).max()))
        column = int(self._new(1)[0])
        self._structure.add([*used, column], [*(total.coefficients[used] * scale), -1.0], 0, 0)
        coefficients = np.zeros(column + 1)
        coefficients[column] = 1 / scale
        return _Linear(coefficients, total.constant, signed=bool((total.coefficients < 0).any()))

    def _steps(self, resource: str) -> list[tuple[Term, ...]]:
        """The terms of the steps that need the resource."""
        return [step.terms for step in self._problem.steps if any(resource in term.costs for term in step.terms)]

    def _new(self, count: int) -> NDArray[np.intp]:
        self._size += count
        return np.arange(self._size - count, self._size)

    def _loss(self) -> _Linear:
        total = _Linear(np.zeros(self._size + 1))
        for group in self._problem.groups:
            total.coefficients[self._choice[group.name]] += [choice.loss for choice in group.choices]
        for block in self._problem.blocks:
            total.coefficients[self._gone[block.name]] += block.loss
        return total

    def _used(self, resource: str) -> list[_Linear]:
        """What is used at each step that needs the resource; the largest of them counts."""
        if resource not in self._always:
            return [self._sum(resource, self._problem.terms)]
        always = self._always[resource]
        expressions = [self._sum(resource, terms) for terms in self._steps(resource)]
        for expression in expressions:
            expression.constant += always.constant
            expression.signed = always.signed
            expression.coefficients[: len(always.coefficients)] += always.coefficients
        return expressions

    def _sum(self, resource: str, terms: Iterable[Term]) -> _Linear:
        total = _Linear(np.zeros(self._size + 1))
        for term in (term for term in terms if resource in term.costs):
            table = np.asarray(term.costs[resource], dtype=np.float64)
            if not self._is_direct(term):
                order = np.argsort(np.array(term.groups))
                total.coefficients[self._cells[_cells_of(term)]] += table.transpose(order).ravel()
            elif term.groups:
                total.coefficients[self._choice[term.groups[0]]] += table
            else:
                total.constant += float(table)
                if term.block is not None:
                    total.coefficients[self._gone[term.block]] -= float(table)
        return total

    def _add_exclusion(self, rows: Rows, configuration: Configuration) -> None:
        """Not all as in the configuration; nothing to say when it has a width that is no choice any more."""
        columns: list[int] = []
        for name, width in configuration.widths.items():
            found = [i for i, choice in enumerate(self._groups[name].choices) if choice.width == width]
            if not found:
                return
            columns.append(int(self._choice[name][found[0]]))
        columns += [column for name, column in self._gone.items() if name in configuration.removed_blocks]
        staying = [column for name, column in self._gone.items() if name not in configuration.removed_blocks]
        signs = [*np.ones(len(columns)), *-np.ones(len(staying))]
        rows.add([*columns, *staying], signs, -np.inf, len(columns) - 1)

    def _add_objective(self, rows: Rows, upper: Table, expressions: Sequence[_Linear]) -> _Objective:
        """The only expression, or a further variable that is no less than any of them."""
        largest = max(float(np.abs(e.coefficients).max()) for e in expressions)
        scale = _scale(largest)
        if len(expressions) == 1:
            return _Objective(expressions[0].coefficients * scale, scale, expressions[0].constant)
        for expression in expressions:
            used = np.flatnonzero(expression.coefficients)
            values = [*(expression.coefficients[used] * scale), -1.0]
            rows.add([*used, self._size], values, -np.inf, -expression.constant * scale)
        upper[-1] = np.inf
        costs = np.zeros(self._size + 1)
        costs[-1] = 1.0
        return _Objective(costs, scale, 0.0)

    def _ask(self, objective: _Objective, rows: Rows, upper: Table, relative_gap: float, time_limit_s: float) -> Answer:
        solution = minimise(
            MixedProgram(
                costs=objective.costs,
                rows=rows,
                lower=np.where(np.isinf(upper), -np.inf, 0.0),
                upper=upper,
                whole=self._whole,
                cells=self._bounded,
            ),
            relative_gap=relative_gap,
            time_limit_s=time_limit_s,
        )
        return Answer(
            configuration=None if solution.values is None else self._read(solution.values),
            bound=solution.bound / objective.scale + objective.constant,
            complete=solution.complete,
        )

    def _read(self, values: Table) -> Configuration:
        removed = frozenset(name for name, column in self._gone.items() if values[column] > _HALF)
        widths = {
            group.name: group.choices[int(np.argmax(values[self._choice[group.name]]))].width
            for group in self._problem.groups
            if group.block not in removed
        }
        return Configuration(widths=widths, removed_blocks=removed)


def _cells_of(term: Term) -> _Cells:
    return tuple(sorted(term.groups)), term.block


def _scale(largest: float) -> float:
    return SCALE / largest if largest > _LEAST else 1.0


def _add_limit(rows: Rows, upper: Table, expression: _Linear, limit: float) -> None:
    """Keep the expression within the limit; `upper` are the bounds of the choices and cells.

    Where no cost is negative, rule out each variable that breaks the limit alone: only small ones set the scale.
    """
    coefficients = expression.coefficients.copy()
    room = limit - expression.constant
    room += _SLACK * max(abs(room), abs(limit))
    cells = coefficients[: len(upper)]
    if room >= 0 and not expression.signed and (coefficients >= 0).all():
        upper[cells > room] = 0.0
        cells[cells > room] = 0.0
    used = np.flatnonzero(coefficients)
    scale = _scale(max(abs(room), float(np.abs(cells).max(initial=0.0))))
    rows.add(used, coefficients[used] * scale, -np.inf, room * scale)
