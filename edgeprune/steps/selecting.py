"""Widths by a rule of the literature in the planner's place: at the least share of channels that meets the limits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

from edgeprune.graph.groups import ChannelGraph
from edgeprune.planning.allocation_problem import Configuration
from edgeprune.planning.feasibility import ShapeFigures, over_budget
from edgeprune.pruning.selection import Room, global_widths, sensitivity_widths, told_widths, uniform_widths
from edgeprune.records.rung import Limits
from edgeprune.steps.open_model import OpenModel
from edgeprune.steps.sensitivity import GroupLosses
from edgeprune.units import format_ms

_TRIPS = 6
"""Halvings of the share: to 1.2 % of the channels where three quarters may go."""


@dataclass(frozen=True, slots=True)
class Selected:
    """What a rule came to: the shape that fits, if one does, and how it ended."""

    figures: ShapeFigures | None
    ended: str


@dataclass(frozen=True)
class SelectedWidths:
    """The widths of `pruning.selection` for one model at one place.

    Attributes:
        model: its groups, and how far each may be cut.
        loss: what a group loses at a width; with the dense model that channels are scored in.
        measure: of a shape, untrained, on the device.
    """

    model: OpenModel
    loss: GroupLosses
    measure: Callable[[Configuration], ShapeFigures]

    def search(self, limits: Limits) -> Selected:
        """The least share of channels whose widths were measured to fit, by bisection; blocks all stay.

        Latency is no monotone function of widths, so what is found is one share that fits next to one that does not.

        Args:
            limits: to come in under, with the headroom that is wanted.

        Raises:
            BuildError: a shape cannot be compiled.
            MeasurementError: a shape cannot be run there.
        """
        full = sum(self.model.full.values())
        high = 1 - sum(room.lowest for room in self._rooms.values()) / full if full else 0.0
        best, low = self._try(high, limits), 0.0
        if best is None:
            return Selected(None, f"{self._name} widths do not fit with {high:.0%} of the channels out, the most")
        for _ in range(_TRIPS):
            middle = (low + high) / 2
            found = self._try(middle, limits)
            low, high, best = (low, middle, found) if found else (middle, high, best)
        return Selected(best, f"{self._name} widths fit with {high:.1%} of the channels out, and not with {low:.1%}")

    def told(self) -> Configuration:
        """The widths of `pruning.group_ratios`.

        Raises:
            InputError: a name there matches no group.
        """
        ratios = self.model.bench.target.spec.pruning.group_ratios
        return Configuration(widths=dict(told_widths(self._rooms, ratios)))

    def at(self, share: float) -> Configuration:
        """The rule's widths with a share of the channels out, as far as the groups' least widths allow."""
        return Configuration(widths=dict(self._rule(min(1.0, share))))

    def _try(self, share: float, limits: Limits) -> ShapeFigures | None:
        shape = self.at(share)
        # The full widths are measured already, and are over: else nobody would search.
        if shape.widths == self.model.full:
            return None
        figures = self.measure(shape)
        over = over_budget(figures, limits)
        told = "fits" if over is None else over
        self.model.bench.note(f"{self._name} widths, {share:.1%} out: p50 {format_ms(figures.p50_ms)}, {told}")
        return figures if over is None else None

    @property
    def _name(self) -> str:
        return self.model.bench.target.spec.pruning.selection

    @cached_property
    def _rooms(self) -> dict[str, Room]:
        return {
            name: Room(width=group.width, unit=group.unit, least=self.model.minimum(name))
            for name, group in self.model.groups.items()
        }

    @cached_property
    def _rule(self) -> Callable[[float], Mapping[str, int]]:
        if self._name == "sensitivity":
            return lambda share: sensitivity_widths(self._rooms, self.loss, share)
        if self._name == "global" and self.loss.measurable:
            return self._by_rank()
        if self._name == "global":
            self.model.bench.note(
                "the dense model is not trained yet: its channels cannot be ranked, and the plan takes the same share "
                "of every group; a build ranks them"
            )
        return lambda share: uniform_widths(self._rooms, share)

    def _by_rank(self) -> Callable[[float], Mapping[str, int]]:
        compressor = self.loss.compressor
        dense = compressor.dense_module
        graph = ChannelGraph(dense, self.model.bench.example)
        scores = compressor.scorer.channels(dense, graph, list(self._rooms))
        units = {group: graph.units(group) for group in self._rooms}
        return lambda share: global_widths(self._rooms, scores, share, units)
