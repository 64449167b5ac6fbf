"""Asks HiGHS, first for the relaxation: its reduced costs say which variables no optimum can use.

The relaxation of an allocation is nearly whole, and takes a fraction of a second where the whole program takes many.
A variable of reduced cost r at 0 makes any solution that uses it cost at least the relaxed optimum + r. So a program
over the variables of low reduced cost is solved; what it finds, or a bound on all that it left out, tells when to stop.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import inf
from time import monotonic
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgeprune.planning.allocation_problem import Table

if TYPE_CHECKING:
    from scipy.sparse import csr_array

SCALE = 1e3
"""Rows and objective are scaled to this size. HiGHS accepts what is over by 1e-6 absolute, so by 1e-9 of a limit."""

_FIRST_CELLS = 3000
_MORE = 2
"""How many variables the first part has, and by what factor the next is larger."""

_ERROR = 1e-5
"""By how much reduced costs may be wrong, from HiGHS's dual tolerance of 1e-7 for each of the variables at 1."""

_INFEASIBLE = 2


@dataclass(slots=True)
class Rows:
    """Rows of a sparse matrix, with their bounds."""

    columns: list[NDArray[np.intp]] = field(default_factory=list)
    values: list[Table] = field(default_factory=list)
    low: list[float] = field(default_factory=list)
    high: list[float] = field(default_factory=list)

    def add(
        self, columns: Sequence[int] | NDArray[np.intp], values: Sequence[float] | Table, low: float, high: float
    ) -> None:
        """One row: low <= sum of values over columns <= high."""
        self.columns.append(np.asarray(columns, dtype=np.intp))
        self.values.append(np.asarray(values, dtype=np.float64))
        self.low.append(low)
        self.high.append(high)

    def copy(self) -> Rows:
        """One that can be added to by itself."""
        return Rows(list(self.columns), list(self.values), list(self.low), list(self.high))

    def matrix(self, columns: int) -> csr_array:
        """[rows, columns]."""
        from scipy.sparse import csr_array

        starts = np.concatenate([[0], np.cumsum([len(row) for row in self.columns])])
        parts = (np.concatenate(self.values), np.concatenate(self.columns), starts)
        return csr_array(parts, shape=(len(self.columns), columns))


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedProgram:
    """Minimise `costs` over columns within their bounds, such that the rows hold.

    Attributes:
        whole: the first so many columns are integers.
        cells: the first so many have bounds 0 and 1, and can be left out by an upper bound of 0.
    """

    costs: Table
    rows: Rows
    lower: Table
    upper: Table
    whole: int
    cells: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Solution:
    """Values of the columns, or None; no solution costs less than `bound`; `complete` unless the time ended first."""

    values: Table | None
    cost: float
    bound: float
    complete: bool


_NONE = Solution(values=None, cost=inf, bound=-inf, complete=True)


def minimise(program: MixedProgram, *, relative_gap: float, time_limit_s: float) -> Solution:
    """Solve over ever more variables, until those left out cannot matter."""
    deadline = monotonic() + time_limit_s
    relaxed = _relax(program, time_limit_s)
    if relaxed is None:
        return _NONE
    floor, reduced = relaxed
    ordered = np.sort(reduced)
    count = _FIRST_CELLS
    needed = inf
    while True:
        reach = min(needed, ordered[count] if count < len(ordered) else inf)
        left_out = reduced > reach
        upper = program.upper.copy()
        upper[: program.cells][left_out] = 0.0
        found = _solve(replace(program, upper=upper), relative_gap, deadline - monotonic())
        if not left_out.any():
            return found
        if found.values is not None:
            bound = min(found.bound, floor + reach - _ERROR)
            if not found.complete or found.cost - bound <= max(relative_gap * abs(found.cost), _ERROR):
                return replace(found, bound=bound)
            needed = found.cost - floor + 2 * _ERROR
        elif not found.complete:
            return found
        count *= _MORE


def _relax(program: MixedProgram, time_limit_s: float) -> tuple[float, Table] | None:
    """The optimum without whole numbers, and the reduced costs of the cells at 0; None when infeasible.

    When the time ends first, or HiGHS fails, nothing is known, so no variable is to be left out.
    """
    from scipy.optimize import linprog
    from scipy.sparse import vstack

    matrix = program.rows.matrix(len(program.costs))
    low, high = np.array(program.rows.low), np.array(program.rows.high)
    same = low == high
    above, below = ~same & np.isfinite(high), ~same & np.isfinite(low)
    result = linprog(
        program.costs,
        A_ub=vstack([matrix[above], -matrix[below]]),
        b_ub=np.concatenate([high[above], -low[below]]),
        A_eq=matrix[same],
        b_eq=high[same],
        bounds=list(zip(program.lower.tolist(), program.upper.tolist(), strict=True)),
        method="highs-ds",
        options={"time_limit": max(time_limit_s, 0.01)},
    )
    if result.status == _INFEASIBLE:
        return None
    if result.status != 0 or result.fun is None:
        return -inf, np.zeros(program.cells)
    return float(result.fun), np.asarray(result.lower.marginals)[: program.cells]


def _solve(program: MixedProgram, relative_gap: float, time_limit_s: float) -> Solution:
    from scipy.optimize import Bounds, LinearConstraint, milp

    columns = len(program.costs)
    result = milp(
        program.costs,
        integrality=(np.arange(columns) < program.whole).astype(np.intp),
        bounds=Bounds(program.lower, program.upper),
        constraints=LinearConstraint(program.rows.matrix(columns), program.rows.low, program.rows.high),
        options={"mip_rel_gap": relative_gap, "time_limit": max(time_limit_s, 0.01)},
    )
    if result.x is None:
        # Status 4 is for the rest, "unbounded or infeasible" among it, and nothing here is unbounded.
        infeasible = result.status == _INFEASIBLE or "infeasible" in result.message.lower()
        return replace(_NONE, complete=infeasible)
    bound = -inf if result.mip_dual_bound is None else float(result.mip_dual_bound)
    return Solution(values=result.x, cost=float(result.fun), bound=bound, complete=result.status == 0)
