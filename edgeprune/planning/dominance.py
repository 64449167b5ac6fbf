"""Widths that no allocation needs, because another one of the group is at least as good in every respect."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edgeprune.planning.allocation_problem import AllocationProblem, Group, Step, Table, Term

_Kept = Mapping[str, NDArray[np.intp]]


@dataclass(frozen=True, slots=True, kw_only=True)
class DominatedWidth:
    """A width that was dropped, and one that is never worse: no more loss, no more cost beside any neighbour."""

    group: str
    width: int
    beaten_by: int


def drop_dominated(
    problem: AllocationProblem, resources: Collection[str]
) -> tuple[AllocationProblem, tuple[DominatedWidth, ...]]:
    """The same problem without the widths that another one of the group equals or beats in everything.

    Everything is the loss, and every resource of `resources` in every term and step, for every choice of the other
    groups of the term. Whoever has such a width can take the other one and loses nothing, so the optimum stays. Of two
    that are equal in everything the wider stays. What goes from one group can make a width of its neighbour dominated,
    so this is done until nothing changes.
    """
    kept = {group.name: np.arange(len(group.choices)) for group in problem.groups}
    terms: dict[str, list[Term]] = {group.name: [] for group in problem.groups}
    for term in problem.all_terms:
        for name in term.groups:
            terms[name].append(term)
    dropped: list[DominatedWidth] = []
    changed = True
    while changed:
        changed = False
        for group in problem.groups:
            beaten = _beaten(group, kept, _aspects(group, terms[group.name], kept, resources))
            dropped += beaten
            changed |= bool(beaten)
            gone = {found.width for found in beaten}
            kept[group.name] = np.array([i for i in kept[group.name] if group.choices[i].width not in gone])
    return _restrict(problem, kept), tuple(dropped)


def _aspects(group: Group, terms: list[Term], kept: _Kept, resources: Collection[str]) -> Table:
    """[kept choices, aspects]: all by which two choices of the group can differ; lower is better."""
    parts = [np.array([[group.choices[i].loss] for i in kept[group.name]])]
    for term in terms:
        axis = term.groups.index(group.name)
        for table in (table for resource, table in term.costs.items() if resource in resources):
            remaining = table[np.ix_(*(kept[name] for name in term.groups))]
            parts.append(np.moveaxis(remaining, axis, 0).reshape(len(kept[group.name]), -1))
    return np.concatenate(parts, axis=1)


def _beaten(group: Group, kept: _Kept, aspects: Table) -> list[DominatedWidth]:
    widths = np.array([group.choices[i].width for i in kept[group.name]])
    # [i, j]: j is nowhere worse than i, and better somewhere or, where all is equal, wider.
    no_worse = np.array([(aspects <= row).all(axis=1) for row in aspects])
    beats = no_worse & (~no_worse.T | (widths[None, :] > widths[:, None]))
    survives = np.logical_not(beats.any(axis=1))
    # The relation is transitive, so each that goes is beaten by one that stays.
    return [
        DominatedWidth(group=group.name, width=int(widths[i]), beaten_by=int(widths[np.flatnonzero(row & survives)[0]]))
        for i, row in enumerate(beats)
        if not survives[i]
    ]


def _restrict(problem: AllocationProblem, kept: _Kept) -> AllocationProblem:
    """The problem over the choices with these indices."""
    return AllocationProblem(
        groups=tuple(replace(g, choices=tuple(g.choices[i] for i in kept[g.name])) for g in problem.groups),
        terms=tuple(_restrict_term(term, kept) for term in problem.terms),
        steps=tuple(
            Step(name=step.name, terms=tuple(_restrict_term(term, kept) for term in step.terms))
            for step in problem.steps
        ),
        blocks=problem.blocks,
    )


def _restrict_term(term: Term, kept: _Kept) -> Term:
    index = np.ix_(*(kept[name] for name in term.groups))
    return replace(term, costs={resource: np.asarray(table[index]) for resource, table in term.costs.items()})
