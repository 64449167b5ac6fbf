"""Where the milliseconds of a model go: operator by operator, and what no operator explains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgeprune.records.staircase import Staircase
from edgeprune.units import format_ms

_OF_ANOTHER = {"add": "add to", "average": "average of"}


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorCost:
    """What one operator adds to the predicted latency of its model.

    Attributes:
        layer: as `named_modules` has it; of an addition, the layer that makes one of its operands; of a call, the
            module that calls.
        kind: such as `conv3x3`, `depthwise3x3`, `linear`, `add`; of a call torch's name.
        latency_ms: the cost model's scale times the table's entry, with its weights and its share of the code;
            0 for one that is taken out.
        fixed: no group can narrow it.
        call: no table prices it: its latency is what whole models tell.
    """

    layer: str
    kind: str
    latency_ms: float
    fixed: bool = False
    call: bool = False

    @property
    def title(self) -> str:
        """The layer's name; an addition, an average or a call has none of its own."""
        if self.call:
            return f"{self.kind} in {self.layer}" if self.layer else self.kind
        return f"{_OF_ANOTHER[self.kind]} {self.layer}" if self.kind in _OF_ANOTHER else self.layer


@dataclass(frozen=True, slots=True, kw_only=True)
class Breakdown:
    """The latency of one whole model at one place, taken apart.

    Attributes:
        operators: in the order in which they run, then the calls.
        rest_ms: what is left: the runtime's own time, the `unpriced` layers, and all calls where none is taken apart.
        observations: whole models that the prediction was corrected by; with few of them the rest is little more than
            what the sum of the tables lacks of one measurement.
        measured_ms: p50 of the whole model on the device; None where it was not measured.
        runtime_ms: what the smallest model that was measured there takes, a layer or two: the runtime's own time is
            at most this. None where it is not known.
        unpriced: layers that no table can price; their time is part of the rest.
    """

    operators: tuple[OperatorCost, ...]
    rest_ms: float
    observations: int
    measured_ms: float | None = None
    runtime_ms: float | None = None
    unpriced: tuple[str, ...] = ()

    @property
    def predicted_ms(self) -> float:
        """What the cost model predicts for the whole model: the operators and the rest."""
        return self.rest_ms + sum(o.latency_ms for o in self.operators)

    @property
    def fixed_ms(self) -> float:
        """Of the operators that no group can narrow: with the rest, what no cut of channels can win."""
        return sum(o.latency_ms for o in self.operators if o.fixed)

    def share(self, latency_ms: float) -> float:
        """A part of the prediction, in [0, 1]; 0 where nothing takes any time."""
        return latency_ms / self.predicted_ms if self.predicted_ms > 0 else 0.0

    def largest(self, count: int = 3) -> tuple[OperatorCost, ...]:
        """The operators that take most, the slowest first; those that take no time are left out."""
        ordered = sorted(self.operators, key=lambda o: o.latency_ms, reverse=True)
        return tuple(o for o in ordered[:count] if o.latency_ms > 0)

    @property
    def summary(self) -> str:
        """In a line: what takes most, what no cut of channels can win, and how the runtime's own time is known."""
        largest = ", ".join(f"{o.title} ({o.kind}) {self.share(o.latency_ms):.0%}" for o in self.largest())
        said = [f"most goes to {largest}"] if largest else []
        said.append(f"{self.share(self.fixed_ms):.0%} to layers that no group can narrow")
        said.append(f"{self.share(self.rest_ms):.0%} to what no layer explains")
        if self.runtime_ms is not None:
            bound = f"the runtime's own time is at most {format_ms(self.runtime_ms)}"
            said.append(f"{bound}, which a model of a layer or two took there")
        return ", ".join(said)


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupSteps:
    """The staircase of one group: `staircase.admissible` are its knees."""

    group: str
    staircase: Staircase


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceSurvey:
    """What was learned of one place (runtime, precision, threads and their cores) where widths were searched for.

    Attributes:
        place: as `Rung.place` names it.
        full: the model at its full widths there.
        groups: the steps of each group, in the model's order.
    """

    place: str
    full: Breakdown
    groups: tuple[GroupSteps, ...] = ()

    @property
    def staircases(self) -> Mapping[str, Staircase]:
        """By group."""
        return {g.group: g.staircase for g in self.groups}
