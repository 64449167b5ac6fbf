"""What lives in memory while a model runs: tensors with the steps from which and until which they are needed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from edgeprune.units import format_mb


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveTensor:
    """A tensor of a compiled graph that is no weight.

    Attributes:
        first: the step that makes it; 0 for an input.
        last: the last step that reads it; the last step of all for inputs and outputs, which the caller holds.
    """

    name: str
    elements: int
    element_bytes: float
    first: int
    last: int

    @property
    def size_bytes(self) -> float:
        """Of all its elements."""
        return self.elements * self.element_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """The steps of a compiled graph in the order in which they run.

    Attributes:
        steps: names, one operator each.
        weight_bytes: of all constants.
    """

    steps: tuple[str, ...]
    tensors: tuple[LiveTensor, ...]
    weight_bytes: int

    def alive(self, step: int) -> tuple[LiveTensor, ...]:
        """The tensors that exist while a step runs: what it reads, what it makes, and what later steps read."""
        return tuple(t for t in self.tensors if t.first <= step <= t.last)

    @property
    def live_bytes(self) -> tuple[float, ...]:
        """By step."""
        return tuple(sum(t.size_bytes for t in self.alive(step)) for step in range(len(self.steps)))

    @property
    def peak_bytes(self) -> int:
        """The most that lives at one step: no arena for the activations can be smaller."""
        return round(max(self.live_bytes, default=0))


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenSize:
    """A number of elements that follows the widths of a model's groups.

    Attributes:
        fixed: elements, whatever the widths.
        by_group: (group, elements for each of its channels).
    """

    name: str
    fixed: float
    by_group: tuple[tuple[str, float], ...] = ()

    def elements(self, widths: Mapping[str, int]) -> float:
        """How many at these widths; a group that is not named is gone, as with a block that was removed."""
        return self.fixed + sum(each * widths.get(group, 0) for group, each in self.by_group)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenTensor(OpenSize):
    """A tensor of a model whose widths are open.

    Attributes:
        element_bytes: of one element.
        first, last: as a `LiveTensor` has them.
    """

    element_bytes: float
    first: int
    last: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenCall(OpenSize):
    """A call that no operator table prices (padding, pooling, softmax): what it reads and makes.

    Attributes:
        name: torch's, of the operation.
        layer: the module that calls, as `named_modules` has it.
    """

    layer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenSchedule:
    """The steps of a model whose widths are open, in the order in which they run.

    Attributes:
        calls: those that no operator table prices, where the schedule is of the model's own calls.
    """

    steps: tuple[str, ...]
    tensors: tuple[OpenTensor, ...]
    calls: tuple[OpenCall, ...] = ()

    def alive(self, step: int) -> tuple[OpenTensor, ...]:
        """The tensors that exist while a step runs."""
        return tuple(t for t in self.tensors if t.first <= step <= t.last)

    def peak_bytes(self, widths: Mapping[str, int]) -> float:
        """The most that lives at one step at these widths."""
        sizes = [(t, t.elements(widths) * t.element_bytes) for t in self.tensors]
        live = (sum(size for t, size in sizes if t.first <= step <= t.last) for step in range(len(self.steps)))
        return max(live, default=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryNeeds:
    """What one shape of a model needs at one place.

    Attributes:
        base_bytes: peak of the runtime's process before it loaded the artifact, measured.
        load_bytes: peak while loading, beyond the base.
        run_bytes: peak from then on, beyond the base.
        weight_bytes: of the compiled file's constants.
        activation_bytes: peak by the compiled file's schedule.
    """

    base_bytes: int
    load_bytes: int
    run_bytes: int
    weight_bytes: int
    activation_bytes: int

    @property
    def model_bytes(self) -> int:
        """The larger of the two peaks."""
        return max(self.load_bytes, self.run_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryForecast:
    """What was predicted of a shape's memory before it was compiled, and what the agent measured then.

    Attributes:
        of: whose peak: the process's, or the model's beyond the runtime's own.
        activation_bytes, measured_activation_bytes: peak of the activations alone: predicted from the model's calls,
            and by the schedule of the compiled file.
    """

    of: Literal["process", "model"]
    predicted_bytes: int
    measured_bytes: int
    activation_bytes: int
    measured_activation_bytes: int

    @property
    def error(self) -> float:
        """Of the prediction, as a share of what was measured."""
        return self.predicted_bytes / self.measured_bytes - 1 if self.measured_bytes else 0.0

    @property
    def summary(self) -> str:
        """In a line: memory predicted 41.20 MB, measured 41.90 MB (-1.7 %)."""
        return (
            f"memory predicted {format_mb(self.predicted_bytes)}, measured {format_mb(self.measured_bytes)} "
            f"({self.error:+.1%})"
        )
