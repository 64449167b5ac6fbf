"""What is allocated: the widths of groups, what operators cost at them, and blocks that can go as a whole.

Knows nothing of models: a cost is a table over the choices of the groups that it depends on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from math import fsum, isfinite
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Table: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One width that a group may have; `loss` is what keeping only this many costs, lower is better."""

    width: int
    loss: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Channels that have one width. With a `block`, the group goes when that block is removed."""

    name: str
    choices: tuple[Choice, ...]
    block: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Term:
    """What one operator or tensor costs, by the widths of its groups.

    Attributes:
        name: such as the layer's, for reports.
        groups: names, all different. None for a fixed cost; two for an operator whose in and out widths both vary;
            more are possible, at the price of a table over all of them.
        costs: by resource, [choices of the first group, choices of the second, ...].
        block: it costs nothing when this block is removed.
    """

    name: str
    groups: tuple[str, ...]
    costs: Mapping[str, Table]
    block: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What is needed at one moment only, such as the tensors that live while an operator runs.

    Of all steps the most expensive counts, on top of the terms that always count.
    """

    name: str
    terms: tuple[Term, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Something that can be removed as a whole; `loss` then replaces the losses of the groups inside."""

    name: str
    loss: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """One way to answer: a width for every group, but those of the removed blocks."""

    widths: Mapping[str, int]
    removed_blocks: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AllocationProblem:
    """Groups, and what their widths cost.

    A resource is used by the sum over `terms`, plus the largest of the sums over the terms of a step. Costs and losses
    may be negative (a correction), but not infinite.

    Raises:
        ValueError: names that are unknown or twice there, tables of another shape than the choices, a term that stays
            when a group that it depends on goes.
    """

    groups: tuple[Group, ...]
    terms: tuple[Term, ...]
    steps: tuple[Step, ...] = ()
    blocks: tuple[Block, ...] = ()

    def __post_init__(self) -> None:
        _check(self)

    @property
    def all_terms(self) -> Iterator[Term]:
        """Those that always count, then those of the steps."""
        return chain(self.terms, *(step.terms for step in self.steps))

    @property
    def resources(self) -> tuple[str, ...]:
        """All that any term costs, in order of appearance."""
        return tuple(dict.fromkeys(resource for term in self.all_terms for resource in term.costs))

    def loss(self, configuration: Configuration) -> float:
        """Sum of the losses of the chosen widths and of the removed blocks."""
        chosen = (g.choices[_index(g, configuration)].loss for g in self.groups if g.name in configuration.widths)
        return fsum([*chosen, *(b.loss for b in self.blocks if b.name in configuration.removed_blocks)])

    def used(self, configuration: Configuration, resource: str) -> float:
        """How much of the resource, as the float nearest to the exact sum."""
        indices = {g.name: _index(g, configuration) for g in self.groups if g.name in configuration.widths}

        def costs(terms: Sequence[Term]) -> list[float]:
            counted = (t for t in terms if resource in t.costs and t.block not in configuration.removed_blocks)
            return [float(t.costs[resource][tuple(indices[name] for name in t.groups)]) for t in counted]

        always = costs(self.terms)
        steps = [step for step in self.steps if any(resource in term.costs for term in step.terms)]
        return max((fsum([*always, *costs(step.terms)]) for step in steps), default=fsum(always))


def tabulate(
    name: str, groups: Sequence[Group], cost: Callable[..., Mapping[str, float]], *, block: str | None = None
) -> Term:
    """A term from a function of the groups' widths, which gives the same resources at every width.

    A group that stands there twice (an operator whose in and out widths are the same group) becomes one axis.
    """
    axes = {group.name: group for group in groups}
    shape = tuple(len(group.choices) for group in axes.values())
    costs: dict[str, Table] = {}
    for index in np.ndindex(*shape):
        widths = {axis: axes[axis].choices[i].width for axis, i in zip(axes, index, strict=True)}
        for resource, value in cost(*(widths[group.name] for group in groups)).items():
            costs.setdefault(resource, np.full(shape, np.nan))[index] = value
    return Term(name=name, groups=tuple(axes), costs=costs, block=block)


def _index(group: Group, configuration: Configuration) -> int:
    width = configuration.widths[group.name]
    return next(i for i, choice in enumerate(group.choices) if choice.width == width)


def _check(problem: AllocationProblem) -> None:
    blocks = [block.name for block in problem.blocks]
    _check_unique("blocks", blocks)
    _check_unique("groups", [group.name for group in problem.groups])
    for block in problem.blocks:
        _check_finite(f"block {block.name}: loss", np.array(block.loss))
    for group in problem.groups:
        if not group.choices:
            raise ValueError(f"group {group.name}: no choices; a fixed group has one")
        _check_unique(f"group {group.name}: widths", [choice.width for choice in group.choices])
        _check_finite(f"group {group.name}: losses", np.array([choice.loss for choice in group.choices]))
        if group.block is not None and group.block not in blocks:
            raise ValueError(f"group {group.name}: unknown block {group.block}")
    groups = {group.name: group for group in problem.groups}
    for term in problem.all_terms:
        if term.block is not None and term.block not in blocks:
            raise ValueError(f"term {term.name}: unknown block {term.block}")
        _check_term(term, groups)


def _check_term(term: Term, groups: Mapping[str, Group]) -> None:
    where = f"term {term.name}"
    _check_unique(f"{where}: groups", term.groups)
    unknown = [name for name in term.groups if name not in groups]
    if unknown:
        raise ValueError(f"{where}: unknown group {unknown[0]}")
    stays = [name for name in term.groups if groups[name].block not in {None, term.block}]
    if stays:
        raise ValueError(f"{where}: group {stays[0]} goes with block {groups[stays[0]].block}, but the term does not")
    shape = tuple(len(groups[name].choices) for name in term.groups)
    for resource, table in term.costs.items():
        if np.shape(table) != shape:
            raise ValueError(f"{where}: {resource} is a table of {np.shape(table)}, but the choices are {shape}")
        _check_finite(f"{where}: {resource}", table)


def _check_unique(what: str, names: Sequence[object]) -> None:
    twice = [name for i, name in enumerate(names) if name in names[:i]]
    if twice:
        raise ValueError(f"{what}: {twice[0]} is there twice")


def _check_finite(what: str, values: Table) -> None:
    if not all(isfinite(value) for value in np.ravel(values)):
        raise ValueError(f"{what}: not all finite")
