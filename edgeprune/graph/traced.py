"""One operation as it ran: its arguments, its outputs, and the labels of both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from edgeprune.graph.labels import Labels

Tracks = tuple[Tensor, ...]
"""Labels of one tensor, each with as many dimensions as it and size 1 where they do not change."""

LayerAxes = Callable[[Labels], tuple[Tensor, Tensor]]
"""The labels of a convolution's input and output channels; input ones are joined as its groups ask for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One operation, and the ways to the labels.

    Attributes:
        name: of the operation, without overload.
        modules: that were running, the outermost first.
        tracks: of any tensor.
        of_input: whether the model's input had a say in a tensor; else it is made of weights alone, or a constant.
        convolution: of the layer that a weight belongs to; None where it is no convolution's own weight.
        norm_axes: labels of the norm that is running, as many as asked for; empty outside of one.
    """

    name: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    named: dict[str, Any]
    outputs: tuple[Tensor, ...]
    modules: tuple[str, ...]
    tracks: Callable[[Tensor], Tracks]
    of_input: Callable[[Tensor], bool]
    convolution: Callable[[Tensor], LayerAxes | None]
    norm_axes: Callable[[int], list[Tensor]]

    @property
    def operands(self) -> tuple[Tensor, ...]:
        """All tensors among the arguments, in order."""
        return tuple(tensors((self.arguments, self.named)))

    def argument(self, position: int, name: str, default: object) -> Any:  # noqa: ANN401
        """By position or name."""
        if len(self.arguments) > position:
            return self.arguments[position]
        return self.named.get(name, default)

    def again(self, first: Tensor) -> tuple[Tensor, ...]:
        """The same operation on another first argument, such as labels that are to move as the values did."""
        return tuple(tensors((self.function(first, *self.arguments[1:], **self.named),)))


def tensors(values: Sequence[object]) -> list[Tensor]:
    """Tensors in nested tuples, lists and dicts."""
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, tuple | list):
            found += tensors(value)
        elif isinstance(value, dict):
            found += tensors(tuple(value.values()))
    return found


def sizes(tensor: Tensor) -> list[int]:
    """Its shape, with 1 where it is only expanded: that follows another tensor's width."""
    return [1 if stride == 0 else size for size, stride in zip(tensor.shape, tensor.stride(), strict=True)]
