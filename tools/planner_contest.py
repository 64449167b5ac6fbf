"""What all methods of `bench_planner.py` share: one place on one device, and trips that are counted alike for all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from edgeprune.planning.allocation_problem import Configuration
from edgeprune.planning.feasibility import ShapeFigures
from edgeprune.planning.shape_problem import ShapeProblem
from edgeprune.records.rung import GroupWidth, Limits, PlannedRung, Precision, Rung, RungStatus
from edgeprune.runtimes import RUNTIMES
from edgeprune.steps.compressing import Compressor
from edgeprune.steps.narrowing import Narrower, structured_rung
from edgeprune.steps.open_model import OpenModel
from edgeprune.steps.sensitivity import GroupLosses
from edgeprune.steps.shapes import ShapeBench, settled
from edgeprune.steps.workbench import Workbench

_HOPELESS = 1.1
"""A little wider can be a little faster."""


@dataclass
class Counted:
    """What a method asked the device for, whether it had to be measured now or was kept.

    Attributes:
        shapes: whole models, each once.
        tables: trips for operators of a model.
    """

    shapes: set[tuple[Rung, tuple[GroupWidth, ...], tuple[str, ...]]] = field(default_factory=set)
    tables: int = 0


@dataclass(frozen=True)
class _CountedShapes(ShapeBench):
    counted: Counted

    def measure(
        self, rung: Rung, widths: tuple[GroupWidth, ...] = (), removed_blocks: tuple[str, ...] = ()
    ) -> ShapeFigures:
        self.counted.shapes.add((rung, widths, removed_blocks))
        return super().measure(rung, widths, removed_blocks)


@dataclass(frozen=True)
class _CountedNarrower(Narrower):
    counted: Counted = field(default_factory=Counted)

    def problem(self, place: Rung, narrow: ShapeFigures, *, every_width: bool = False) -> ShapeProblem:
        self.counted.tables += 1
        return super().problem(place, narrow, every_width=every_width)


@dataclass
class Contest:
    """One workbench, and what all methods share.

    Attributes:
        precision: of the place where all widths are searched for.
        steps: how many strengths of a method are tried.
    """

    bench: Workbench
    precision: Precision
    steps: int = 32
    counted: Counted = field(default_factory=Counted)
    compressor: Compressor = field(init=False)
    narrower: Narrower = field(init=False)

    def __post_init__(self) -> None:
        self.compressor = Compressor(self.bench)
        losses = GroupLosses(self.compressor, may_train=False)
        self.narrower = _CountedNarrower(_CountedShapes(self.bench, self.counted), losses, counted=self.counted)

    @cached_property
    def model(self) -> OpenModel:
        """The model with its widths open."""
        return OpenModel(self.bench)

    @cached_property
    def dense_ms(self) -> float:
        """p50 of dense float32 in the fastest runtime."""
        return min(self._unpruned(name, Precision.FLOAT32).p50_ms for name in self._runtimes)

    @cached_property
    def whole(self) -> ShapeFigures:
        """The full widths where they are fastest in the contest's precision: the place of the contest."""
        return min((self._unpruned(name, self.precision) for name in self._runtimes), key=lambda f: f.p50_ms)

    @property
    def most(self) -> float:
        """The largest share that a group may lose."""
        return self.model.most

    def take_losses(self) -> None:
        """Take the sensitivity curves now, on this host: what asks for them first would else take longer."""
        for group in self.model.full:
            for width in self.model.widths_worth_a_look(group):
                self.narrower.loss(group, width)
        for block in self.bench.blocks.removable:
            self.narrower.loss.block(block)

    def widths(self, wanted: Mapping[str, float]) -> Configuration:
        """The nearest widths that the target allows; nothing is removed."""
        groups, full = self.model.groups, self.model.full
        widths = {g: groups[g].at_least(max(self.model.minimum(g), min(full[g], round(w)))) for g, w in wanted.items()}
        return Configuration(widths=widths)

    def measure(self, shape: Configuration, limit_ms: float) -> float:
        """p50 of the whole untrained model, in ms; a trip. Near the limit by as many processes as the planner takes."""
        return settled(self.narrower.shapes, self.figures(shape), Limits(p50_ms=limit_ms)).p50_ms

    def figures(self, shape: Configuration) -> ShapeFigures:
        """What the device shows for a shape."""
        planned = self.planned(shape)
        return self.narrower.shapes.measure(planned.rung, planned.widths, planned.removed_blocks)

    def planned(self, shape: Configuration) -> PlannedRung:
        """A shape as a plan has it; the rung of full widths where nothing is cut."""
        widths, blocks = self.model.cut(shape)
        cut = bool(blocks) or any(w.after < w.before for w in widths)
        return PlannedRung(
            rung=structured_rung(self.whole.rung, widths, blocks) if cut else self.whole.rung,
            status=RungStatus.PLANNED,
            reason="contest",
            accuracy_cost=0.0,
            widths=widths if cut else (),
            removed_blocks=blocks,
        )

    def weakest(self, at: Callable[[float], Configuration], limit_ms: float) -> Configuration | None:
        """What a method cuts at the least strength whose shape is measured to meet the limit.

        One by one, from the weakest on: neither latency nor what a method cuts need fall evenly with its strength, so a
        bisection can miss the best that a method has. The strongest comes first: where that is far over the limit, so
        are the others.

        Args:
            at: the shape at a strength in (0, 1].
            limit_ms: for p50.
        """
        strongest = at(1.0)
        if self.measure(strongest, limit_ms) > _HOPELESS * limit_ms:
            return None
        tried = list[Configuration]()
        for step in range(1, self.steps + 1):
            shape = at(step / self.steps)
            if shape not in tried:
                tried.append(shape)
                if self.measure(shape, limit_ms) <= limit_ms:
                    return shape
        return None

    @property
    def _runtimes(self) -> list[str]:
        return [r for r in self.bench.profile.runtimes if r in RUNTIMES.names()]

    def _unpruned(self, runtime: str, precision: Precision) -> ShapeFigures:
        return self.narrower.shapes.measure(Rung(runtime=runtime, precision=precision))
