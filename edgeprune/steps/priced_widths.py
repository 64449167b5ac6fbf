"""The widths of a model as a problem at one place, from operator tables; and what is shown of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import chain
from typing import Protocol

from edgeprune.planning.allocation import Infeasible, allocate
from edgeprune.planning.allocation_problem import Block, Choice, Configuration
from edgeprune.planning.breakdown import break_down
from edgeprune.planning.cost import CostModel, Observation
from edgeprune.planning.feasibility import ShapeFigures
from edgeprune.planning.operator_price import corner_shapes
from edgeprune.planning.shape_problem import ShapeProblem
from edgeprune.profiling.widths import group_shapes, group_staircase
from edgeprune.records.breakdown import Breakdown, GroupSteps, PlaceSurvey
from edgeprune.records.rung import Rung, kept_widths
from edgeprune.steps.open_model import OpenModel
from edgeprune.steps.tables import OperatorTables


class Losses(Protocol):
    """What `GroupLosses` tells."""

    def __call__(self, group: str, width: int, /) -> float:
        """Of a group at a width."""
        ...

    def block(self, name: str, /) -> float:
        """Of the model without a block."""
        ...


class NoLosses:
    """Nothing is lost by anything: enough to ask whether any widths are fast enough."""

    def __call__(self, *_: object) -> float:
        """Of any group."""
        return 0.0

    def block(self, *_: object) -> float:
        """Of any block."""
        return 0.0


@dataclass(frozen=True)
class PricedWidths:
    """Prices the widths of one model on one device.

    Attributes:
        loss: what a group loses at a width, and the model without a block.
        blocks: that may be removed.
    """

    model: OpenModel
    loss: Losses
    tables: OperatorTables
    blocks: tuple[str, ...]

    def problem(self, place: Rung, narrow: ShapeFigures, *, every_width: bool = False) -> ShapeProblem:
        """The model's widths as a problem, from tables that are measured now where they are missing.

        Args:
            place: runtime, precision and threads.
            narrow: the fastest admissible shape there; its widths are priced too.
            every_width: choose among all widths that are measured, not among knees alone: a width that saves no time
                may save memory.

        Raises:
            BuildError: the runtime's compiler or the runtime refuses an operator.
            MeasurementError: the device is busy or went away.
        """
        tables = self.tables
        measured = {g: self.model.widths_worth_a_look(g) for g in self.model.full}
        ends = {g: {w} for g, w in kept_widths(narrow.widths).items()}
        narrowest = {g: min(ends.get(g, set()).union(widths)) for g, widths in measured.items()}
        tables.ensure(
            chain(
                (
                    s
                    for g, widths in measured.items()
                    for s in group_shapes(self.model.uses, g, ends.get(g, set()).union(widths))
                ),
                (u.shape for u in self.model.uses if not u.unsupported),
                corner_shapes(self.model.uses, measured, narrowest),
            ),
            place,
        )
        choices = {}
        for group, widths in measured.items():
            staircase = group_staircase(
                self.model.uses, group, widths, lambda shape: tables.latency_ms(shape, place), context=place.name
            )
            # The full width is always there: not to cut costs nothing in accuracy.
            kept = dict.fromkeys((*(sorted(widths) if every_width else staircase.admissible), self.model.full[group]))
            choices[group] = tuple(Choice(width=w, loss=self.loss(group, w)) for w in kept)
        return ShapeProblem(
            uses=self.model.uses,
            full=self.model.full,
            choices=choices,
            entry_ms=lambda shape: tables.latency_ms(shape, place),
            blocks=tuple(Block(name=b, loss=self.loss.block(b)) for b in self.blocks),
            narrowest=narrowest,
            calls=self.model.schedule.calls,
        )

    def predicted_no(
        self, dense: ShapeFigures, narrow: ShapeFigures, wanted: Mapping[str, float], *, every_width: bool
    ) -> tuple[PlaceSurvey, Breakdown] | None:
        """What is shown of a place where the tables say that no widths are within limits; None where some may be.

        No loss is asked for: that may take a training first.

        Args:
            dense: the full widths there.
            narrow: the narrowest.
            wanted: limits, by resource.
            every_width: as for `problem`.

        Raises:
            BuildError, MeasurementError: as for `problem`.
        """
        free = replace(self, loss=NoLosses())
        problem = free.problem(dense.rung, narrow, every_width=every_width)
        whole, least = (self.model.shape(figures) for figures in (dense, narrow))
        known = Observation(problem.terms(whole), dense.p50_ms), Observation(problem.terms(least), narrow.p50_ms)
        cost = CostModel().updated(*known)
        if not isinstance(allocate(problem.allocation(cost), wanted), Infeasible):
            return None
        where = free.breakdown(dense.rung, problem, cost, least, narrow.p50_ms)
        return free.survey(problem, cost, dense), where

    def survey(self, problem: ShapeProblem, cost: CostModel, dense: ShapeFigures) -> PlaceSurvey:
        """The staircases that the choices were made from, and the model at its full widths."""
        place = dense.rung
        stairs = (
            group_staircase(self.model.uses, g, self.model.widths_worth_a_look(g), problem.entry_ms, context=place.name)
            for g in self.model.full
        )
        groups = tuple(GroupSteps(group=g, staircase=s) for g, s in zip(self.model.full, stairs, strict=True))
        full = self.breakdown(place, problem, cost, problem.whole(), dense.p50_ms)
        return PlaceSurvey(place=place.place, full=full, groups=groups)

    def breakdown(
        self,
        place: Rung,
        problem: ShapeProblem,
        cost: CostModel,
        shape: Configuration,
        measured_ms: float | None = None,
    ) -> Breakdown:
        """Where the milliseconds of a shape go, as predicted and, where it was, as measured."""
        least_ms = self.tables.least_ms(place)
        return break_down(problem, cost, shape, measured_ms=measured_ms, runtime_ms=least_ms)
