"""A model whose widths and blocks are still open: what may be chosen, and what follows from a choice."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

from edgeprune.errors import BuildError
from edgeprune.graph.activations import model_activations
from edgeprune.graph.groups import ChannelGroup
from edgeprune.graph.names import block_of
from edgeprune.graph.operators import model_operators
from edgeprune.planning.allocation_problem import Configuration
from edgeprune.planning.feasibility import ShapeFigures
from edgeprune.planning.operator_price import weight_count
from edgeprune.records.memory import OpenSchedule
from edgeprune.records.operators import OperatorUse
from edgeprune.records.rung import GroupWidth, kept_widths
from edgeprune.steps.workbench import Workbench

VECTOR = 8
"""What vector kernels work on at a time."""

_FINE = 64
"""Groups of more channels are measured at every second multiple: a step of 8 is then a small part of them."""


@dataclass(frozen=True)
class OpenModel:
    """The target's model, its channel groups at any widths and its removable blocks in or out."""

    bench: Workbench

    @cached_property
    def groups(self) -> dict[str, ChannelGroup]:
        """The channel groups by name, in the model's order."""
        return {g.name: g for g in self.bench.groups.groups}

    @cached_property
    def full(self) -> dict[str, int]:
        """The width of each group as the factory makes it, in the model's order."""
        return {name: group.width for name, group in self.groups.items()}

    @cached_property
    def uses(self) -> tuple[OperatorUse, ...]:
        """Its operators, their widths open."""
        return model_operators(self.bench.fresh_model(), self.bench.example, self.bench.groups.groups)

    @cached_property
    def schedule(self) -> OpenSchedule:
        """Its activations and calls, their widths open; empty, with a warning, where they cannot be followed."""
        try:
            return model_activations(self.bench.fresh_model(), self.bench.example, self.bench.groups.groups)
        except BuildError as error:
            self.bench.note(
                f"activations and calls without a table count at full widths, whatever is cut: {error.message}",
                "warning",
            )
            return OpenSchedule(steps=(), tensors=())

    @property
    def most(self) -> float:
        """The largest share that a group may lose."""
        return self.bench.target.spec.pruning.ratios[-1]

    def minimum(self, group: str) -> int:
        """The narrowest that a group may be."""
        return self.groups[group].at_least(max(1, math.ceil(self.full[group] * (1 - self.most) - 1e-9)))

    def narrowest(self) -> tuple[Configuration, ...]:
        """All groups as narrow as may be and without all blocks that may go: exactly, and rounded up for vectors."""
        blocks = frozenset(self.bench.blocks.removable)
        exact = {g: self.minimum(g) for g in self.full if block_of(g, blocks) is None}
        rounded = {g: self.groups[g].at_least(-(-w // VECTOR) * VECTOR) for g, w in exact.items()}
        both = [exact] if exact == rounded else [exact, rounded]
        return tuple(Configuration(widths=widths, removed_blocks=blocks) for widths in both)

    def widths_worth_a_look(self, group: str) -> tuple[int, ...]:
        """Multiples of what vector kernels work on at a time, from the narrowest allowed to the full width."""
        full, least = self.full[group], self.minimum(group)
        step = VECTOR if full <= _FINE else 2 * VECTOR
        # The narrowest is there although it may be no multiple: it can be the only one that is fast enough.
        found = {*range(-(-least // step) * step, full + 1, step), least, full}
        return tuple(sorted({self.groups[group].at_least(width) for width in found}))

    def shape(self, figures: ShapeFigures) -> Configuration:
        """Of what was measured."""
        widths = kept_widths(figures.widths) if figures.widths else self.full
        return Configuration(widths=widths, removed_blocks=frozenset(figures.removed_blocks))

    def cut(self, shape: Configuration) -> tuple[tuple[GroupWidth, ...], tuple[str, ...]]:
        """Widths and removed blocks as records have them, in the model's order."""
        after = shape.widths
        widths = tuple(GroupWidth(group=g, before=full, after=after.get(g, 0)) for g, full in self.full.items())
        return widths, tuple(b for b in self.bench.blocks.removable if b in shape.removed_blocks)

    def weights(self, shape: Configuration) -> int:
        """How many weights the operators of a shape have."""
        uses = (u for u in self.uses if not u.unsupported and not block_of(u.layer, shape.removed_blocks))
        return sum(weight_count(use.at(shape.widths)) for use in uses)
