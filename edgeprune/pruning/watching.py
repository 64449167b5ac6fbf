"""What layers read and make while a model runs, and which part of it belongs to which example.

Not every layer has the examples along its first axis: torch's own encoder reads tokens first, windows of images and
flattened tokens share an axis with the examples. How a layer has them is seen by running one example, then two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING

import torch
from torch.nn.modules.conv import _ConvNd

from edgeprune.data.parts import Tensors, mapped
from edgeprune.protocols import ScoringData

if TYPE_CHECKING:
    from torch import Tensor, nn


@contextmanager
def watched(
    model: nn.Module, layers: Iterable[str], *, separate: bool = False, opened: bool = False
) -> Iterator[dict[str, list[tuple[Tensor, Tensor]]]]:
    """Keeps (input, output) of each call of some layers while the model runs.

    Args:
        model: that runs.
        layers: by name.
        separate: what follows gets a copy of the output, as it may change it in place.
        opened: what is read takes a gradient, also where no weight has made it.
    """
    calls: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in layers}

    def hook_for(name: str) -> Callable[..., Tensor | None]:
        def hook(_: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor], output: Tensor) -> Tensor | None:
            calls[name].append((_read(args, kwargs), output))
            return output.clone() if separate else None

        return hook

    def open_hook(_: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
        _read(args, kwargs).requires_grad_()

    with ExitStack() as stack:
        for name in calls:
            layer = model.get_submodule(name)
            stack.callback(layer.register_forward_hook(hook_for(name), with_kwargs=True).remove)
            if opened:
                stack.callback(layer.register_forward_pre_hook(open_hook, with_kwargs=True).remove)
        yield calls


def _read(args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> Tensor:
    return args[0] if args else next(iter(kwargs.values()))


@dataclass(frozen=True, slots=True)
class ExampleAxis:
    """The axis of a tensor along which there is `size` for each example.

    Attributes:
        place: of the axis.
        size: such as the windows of an image; 1 where the axis is the examples'.
        inner: whether examples change faster along it than what each has of it.
    """

    place: int
    size: int
    inner: bool

    def apart(self, values: Tensor) -> Tensor:
        """[examples, size, ...the other axes]."""
        moved = values.movedim(self.place, 0)
        if self.inner:
            return torch.unflatten(moved, 0, (self.size, -1)).transpose(0, 1)
        return torch.unflatten(moved, 0, (-1, self.size))


@dataclass(frozen=True, slots=True)
class Piece:
    """Examples that run together.

    Attributes:
        inputs: [examples, ...].
        labels: of them.
        axes: by layer, one for each call; None in a piece of one example, to which all belongs.
    """

    inputs: Tensor
    labels: Tensors
    axes: Mapping[str, tuple[ExampleAxis | None, ...]]

    def apart(self, name: str, call: int, values: Tensor) -> Tensor:
        """What a layer reads or makes at a call: [examples, parts, ...], of a linear layer or a convolution."""
        axis = self.axes[name][call]
        return values[None] if axis is None else axis.apart(values)


def pieces(model: nn.Module, layers: Iterable[str], data: ScoringData) -> Iterator[Piece]:
    """All examples for each layer that the model calls: in whole batches, or one by one where no axis is theirs."""
    together: dict[str, tuple[ExampleAxis | None, ...]] = {}
    alone: dict[str, tuple[ExampleAxis | None, ...]] = {}
    for name, axes in _example_axes(model, layers, data).items():
        (alone if None in axes else together)[name] = axes
    alone = {name: (None,) * len(axes) for name, axes in alone.items()}
    for inputs, labels in data.batches:
        if together:
            yield Piece(inputs, labels, together)
        for number in range(len(inputs) if alone else 0):
            one = slice(number, number + 1)
            yield Piece(inputs[one], mapped(itemgetter(one), labels), alone)


@torch.no_grad()
def _example_axes(
    model: nn.Module, layers: Iterable[str], data: ScoringData
) -> dict[str, tuple[ExampleAxis | None, ...]]:
    """By called layer, the axis at each call; None where none is the examples'."""
    inputs = max((inputs for inputs, _ in data.batches), key=len)
    seen: list[dict[str, list[Tensor]]] = []
    for part in (inputs[:1], inputs[:2]):
        with watched(model, layers) as calls:
            model(part)
        seen.append({name: [given for given, _ in pairs] for name, pairs in calls.items() if pairs})
    found: dict[str, tuple[ExampleAxis | None, ...]] = {}
    for name, reads in seen[0].items():
        channels = 1 if isinstance(model.get_submodule(name), _ConvNd) else -1
        others = seen[1].get(name, [])
        if len(others) != len(reads):
            found[name] = (None,) * len(reads)
        else:
            found[name] = tuple(_axis(*pair, channels) for pair in zip(reads, others, strict=True))
    return found


def _axis(one: Tensor, two: Tensor, channels: int) -> ExampleAxis | None:
    """The only axis that is twice as long with two examples, where the first of them has what it has alone."""
    if one.dim() != two.dim():
        return None
    longer = [place for place, (a, b) in enumerate(zip(one.shape, two.shape, strict=True)) if a != b]
    if len(longer) != 1 or longer[0] >= channels % one.dim() or two.shape[longer[0]] != 2 * one.shape[longer[0]]:
        return None
    size = one.shape[longer[0]]
    axes = [ExampleAxis(longer[0], size, inner) for inner in ((False, True) if size > 1 else (False,))]
    near = 1e-4 * float(one.abs().max())
    fitting = [a for a in axes if torch.allclose(a.apart(two)[0], a.apart(one)[0], rtol=1e-3, atol=near)]
    return fitting[0] if len(fitting) == 1 else None
