"""Exact allocation: the widths that lose the least within the limits, and proof that none loses less."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import fsum, inf, nextafter
from time import monotonic

from edgeprune.planning.allocation_problem import AllocationProblem, Configuration, Term
from edgeprune.planning.allocation_program import Program
from edgeprune.planning.dominance import DominatedWidth, drop_dominated

RELATIVE_GAP = 1e-6
TIME_LIMIT_S = 30.0

GAIN = 1e-6
"""Share of a loss by which another one must be lower to count as better."""

_CUTS, _CUTS_SHARE = 60, 0.25
"""So many solutions that are over a limit by less than HiGHS's tolerance are cut out one by one, within this share of
the time."""

_FIRST_MARGIN, _LAST_MARGIN = 2e-9, 1e-4
"""After that the limits are tightened by this share, then by more; the bound stays that of the limits as given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Allocation:
    """Widths that fit.

    Attributes:
        widths: by group; the groups of removed blocks are not there.
        loss: sum over the chosen widths and removed blocks.
        used: by resource, whether limited or not.
        bound: no solution is better than this in what was minimised.
        gap: (minimised - bound) / |minimised|, proven.
        proven_optimal: the gap is at most the one asked for.
        seconds: that it took.
        variables: of the program after dominated widths were dropped.
        dominated: the widths that were dropped, and by what they are beaten.
    """

    widths: Mapping[str, int]
    removed_blocks: frozenset[str]
    loss: float
    used: Mapping[str, float]
    bound: float
    gap: float
    proven_optimal: bool
    seconds: float
    variables: int
    dominated: tuple[DominatedWidth, ...]

    @property
    def configuration(self) -> Configuration:
        """What was chosen, such as to exclude it in the next search."""
        return Configuration(widths=self.widths, removed_blocks=self.removed_blocks)

    @property
    def doubt(self) -> str:
        """What is not proven of it; empty where it is the best there is."""
        if self.proven_optimal:
            return ""
        return f"not proven to be the best: the solver's time ended at a gap of {self.gap:.2%}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Infeasible:
    """No allocation is within the limits.

    Attributes:
        proven: False when the time ended before one was found; also when more configurations than can be cut out one by
            one are over a limit by less than a part in 1e9.
        least: by limited resource, the allocation that uses the least of it when nothing else is limited.
            None where the time ended.
    """

    proven: bool
    least: Mapping[str, Allocation | None]
    seconds: float

    @property
    def doubt(self) -> str:
        """That it is not proven, as `Absent.doubt`."""
        return Absent(proven=self.proven).doubt


@dataclass(frozen=True, slots=True, kw_only=True)
class Absent:
    """There is no such allocation; or none was found, where that is not `proven`, for the reasons of `Infeasible`."""

    proven: bool

    @property
    def doubt(self) -> str:
        """That it is not proven; empty where it is."""
        return "" if self.proven else "not proven: the solver ended before it found any"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Question:
    problem: AllocationProblem
    minimised: str | None
    limits: Mapping[str, float]
    loss_limit: float | None
    excluding: tuple[Configuration, ...]
    relative_gap: float
    time_limit_s: float

    def fits(self, configuration: Configuration) -> bool:
        """Exactly, not within a solver's tolerance."""
        problem = self.problem
        if self.loss_limit is not None and problem.loss(configuration) > self.loss_limit:
            return False
        return all(problem.used(configuration, resource) <= limit for resource, limit in self.limits.items())

    def value(self, configuration: Configuration) -> float:
        """What is minimised."""
        return (
            self.problem.loss(configuration)
            if self.minimised is None
            else self.problem.used(configuration, self.minimised)
        )


def allocate(
    problem: AllocationProblem,
    limits: Mapping[str, float],
    *,
    excluding: Sequence[Configuration] = (),
    relative_gap: float = RELATIVE_GAP,
    time_limit_s: float = TIME_LIMIT_S,
) -> Allocation | Infeasible:
    """The configuration with the least loss of those within the limits.

    No dominated width is used (`dominance.py`, by the limited resources): there is an optimum without one. That is also
    kept to with `excluding`: the answer is then the best of those without dominated widths that are not excluded.

    Args:
        problem: what to choose from, and what it costs.
        limits: by resource, inclusive; what is used is checked in exact sums, not within a solver's tolerance.
        excluding: configurations that are not to be returned, such as what the device measured to be over budget.
        relative_gap: the search ends when no solution can be better by more than this share of the loss.
        time_limit_s: of one search. An infeasible problem takes one more a limited resource.

    Raises:
        ValueError: a limit on a resource that nothing costs, or an excluded configuration without all groups.
    """
    started = monotonic()
    found = _search(
        _Question(
            problem=problem,
            minimised=None,
            limits=limits,
            loss_limit=None,
            excluding=tuple(excluding),
            relative_gap=relative_gap,
            time_limit_s=time_limit_s,
        )
    )
    if isinstance(found, Allocation):
        return found
    least: dict[str, Allocation | None] = {}
    for resource in limits:
        lowest = cheapest(
            problem, resource, {}, excluding=excluding, relative_gap=relative_gap, time_limit_s=time_limit_s
        )
        least[resource] = lowest if isinstance(lowest, Allocation) else None
    return Infeasible(proven=found, least=least, seconds=monotonic() - started)


def cheapest(
    problem: AllocationProblem,
    resource: str,
    limits: Mapping[str, float],
    *,
    loss_limit: float | None = None,
    excluding: Sequence[Configuration] = (),
    relative_gap: float = RELATIVE_GAP,
    time_limit_s: float = TIME_LIMIT_S,
) -> Allocation | Absent:
    """The configuration that uses the least of the resource, within limits and with at most `loss_limit`.

    Arguments and errors are those of `allocate`.
    """
    found = _search(
        _Question(
            problem=problem,
            minimised=resource,
            limits=limits,
            loss_limit=loss_limit,
            excluding=tuple(excluding),
            relative_gap=relative_gap,
            time_limit_s=time_limit_s,
        )
    )
    return found if isinstance(found, Allocation) else Absent(proven=found)


def next_better(
    problem: AllocationProblem,
    allocation: Allocation,
    resource: str,
    limits: Mapping[str, float],
    *,
    excluding: Sequence[Configuration] = (),
    relative_gap: float = RELATIVE_GAP,
    time_limit_s: float = TIME_LIMIT_S,
) -> Allocation | Absent:
    """The cheapest configuration whose loss is lower than the allocation's by more than `GAIN` of it.

    When the allocation is optimal, this one is over its limit of the resource: by how much, says what the next better
    one would take. Of `limits`, the one on `resource` itself does not count. The other arguments and the errors are
    those of `allocate`.
    """
    if allocation.loss <= _floor(problem, None):
        return Absent(proven=True)
    return cheapest(
        problem,
        resource,
        {other: limit for other, limit in limits.items() if other != resource},
        loss_limit=min(allocation.loss - GAIN * abs(allocation.loss), nextafter(allocation.loss, -inf)),
        excluding=(*excluding, allocation.configuration),
        relative_gap=relative_gap,
        time_limit_s=time_limit_s,
    )


def _search(question: _Question) -> Allocation | bool:
    """An allocation; or that there is none, which is True when proven.

    HiGHS takes what is over a limit by its tolerance for a solution. Such a one is cut out and the rest asked again;
    when that does not end, the limits are tightened by more than the tolerance, and the gap is told against the bound
    that holds for the limits as they are.
    """
    started = monotonic()
    _check(question)
    resources = {*question.limits, *([question.minimised] if question.minimised is not None else [])}
    reduced, dominated = drop_dominated(question.problem, resources)
    if any(_floor(reduced, resource) > limit for resource, limit in question.limits.items()):
        return True
    program = Program(reduced, resources)
    cuts = list(question.excluding)
    bound, margin, rejected = _floor(reduced, question.minimised), 0.0, 0
    while margin <= _LAST_MARGIN:
        answer = program.solve(
            question.minimised,
            {resource: _tightened(limit, margin) for resource, limit in question.limits.items()},
            loss_limit=None if question.loss_limit is None else _tightened(question.loss_limit, margin),
            excluding=cuts,
            relative_gap=question.relative_gap,
            time_limit_s=started + question.time_limit_s - monotonic(),
        )
        if margin == 0:
            bound = max(bound, answer.bound)
        if answer.configuration is None:
            if margin == 0 or not answer.complete:
                return margin == 0 and answer.complete
        elif question.fits(answer.configuration):
            return _allocation(question, answer.configuration, bound, monotonic() - started, program.size, dominated)
        else:
            cuts.append(answer.configuration)
        rejected += 1
        if rejected >= _CUTS or monotonic() - started > _CUTS_SHARE * question.time_limit_s:
            margin = max(_FIRST_MARGIN, margin * 8)
    return False


def _tightened(limit: float, margin: float) -> float:
    return limit - margin * abs(limit)


def _floor(problem: AllocationProblem, minimised: str | None) -> float:
    """What no configuration can be below, whatever is limited: each part at its best by itself."""
    if minimised is None:
        losses = {block.name: 0.0 for block in problem.blocks}
        always = []
        for group in problem.groups:
            least = min(choice.loss for choice in group.choices)
            if group.block is None:
                always.append(least)
            else:
                losses[group.block] += least
        return fsum([*always, *(min(block.loss, losses[block.name]) for block in problem.blocks)])

    def least_of(terms: Iterable[Term]) -> list[float]:
        tables = ((term, term.costs[minimised]) for term in terms if minimised in term.costs)
        return [float(table.min(initial=inf if term.block is None else 0.0)) for term, table in tables]

    always = least_of(problem.terms)
    steps = (step.terms for step in problem.steps if any(minimised in term.costs for term in step.terms))
    # Rounded once, as what a configuration uses is: a limit may be just that.
    return max((fsum([*always, *least_of(terms)]) for terms in steps), default=fsum(always))


def _check(question: _Question) -> None:
    known = question.problem.resources
    for resource in [*question.limits, *([question.minimised] if question.minimised is not None else [])]:
        if resource not in known:
            raise ValueError(f"resource {resource}: nothing costs it; known are {', '.join(known)}")
    for configuration in question.excluding:
        expected = {g.name for g in question.problem.groups if g.block not in configuration.removed_blocks}
        if set(configuration.widths) != expected:
            wrong = ", ".join(sorted(expected ^ set(configuration.widths)))
            raise ValueError(f"excluded configuration: groups missing, unknown, or of a removed block: {wrong}")


def _allocation(
    question: _Question,
    configuration: Configuration,
    bound: float,
    seconds: float,
    variables: int,
    dominated: tuple[DominatedWidth, ...],
) -> Allocation:
    problem = question.problem
    value = question.value(configuration)
    missing = max(0.0, value - bound)
    gap = missing / abs(value) if value else (inf if missing else 0.0)
    return Allocation(
        widths=configuration.widths,
        removed_blocks=configuration.removed_blocks,
        loss=problem.loss(configuration),
        used={resource: problem.used(configuration, resource) for resource in problem.resources},
        bound=bound,
        gap=gap,
        proven_optimal=gap <= question.relative_gap,
        seconds=seconds,
        variables=variables,
        dominated=dominated,
    )
