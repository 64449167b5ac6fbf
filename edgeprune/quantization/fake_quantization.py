"""Training that knows of rounding: INT8 weights and activations in the forward pass, float32 weights behind them.

Source: Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference", section 3, arXiv:1712.05877: weights per output channel, activations per tensor with ranges that follow a
moving average. What reads an activation rounds it, as the runtimes do before each layer. A batch norm that is folded
later scales whole channels, and so does a channel's step: weights need not be folded to be rounded as they will be.
NNCF and torchao train so too, and export to some of the three runtimes; the float weights that this leaves behind go
through any of them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from edgeprune.quantization.rounding import channel_axis, rounded_activation, rounded_weight

Greatest = Callable[[Tensor], Tensor]
"""From a worker's tensor to the greatest of all workers, element by element, the same in each."""

_ROUNDED = (_ConvNd, nn.Linear, nn.MultiheadAttention)

_KEEP = 0.99
"""Of a range, in each training step; the rest comes from the batch: section 3.1 of the paper."""


def rounded_weights(module: nn.Module) -> list[nn.Parameter]:
    """The weights that are rounded where this module itself runs: attention's with those of its output projection."""
    own = _weights(module) if isinstance(module, _ROUNDED) else []
    found = (owner._parameters.get(name) for owner, name in own)  # noqa: SLF001 - as they are swapped
    return [parameter for parameter in found if parameter is not None]


class FakeQuantization:
    """Rounds what convolutions, linear layers and attention read, weights and activations, until it is closed.

    Parameters stay where they are, in float32, so that masks, optimizers and checkpoints see what they always saw; a
    weight of zero is rounded to zero. Ranges are learnt in training mode and kept in eval mode. It is a context, too.

    Args:
        model: has hooks until `close`.
        greatest: from this process's values to the greatest of all processes that train together, element by element;
            all must come to each layer in the same order. None for one process.
        in_float: modules that are left alone, by name: those whose layers ship in float.
    """

    def __init__(self, model: nn.Module, greatest: Greatest | None = None, *, in_float: Collection[str] = ()) -> None:
        self._handles = []
        self._layers: dict[str, _Rounding] = {}
        for name, module in model.named_modules():
            if isinstance(module, _ROUNDED) and name not in in_float:
                rounding = self._layers[name] = _Rounding(greatest)
                self._handles.append(module.register_forward_pre_hook(rounding.before))
                self._handles.append(module.register_forward_hook(rounding.after, always_call=True))

    def ranges(self) -> dict[str, Tensor]:
        """Float64 [2] of each layer that has seen a batch: the least and the largest value of its input."""
        found = {name: layer.range.bounds for name, layer in self._layers.items()}
        return {name: torch.tensor(b, dtype=torch.float64) for name, b in found.items() if b is not None}

    def set_ranges(self, ranges: Mapping[str, Tensor]) -> None:
        """Go on from what `ranges` told of the same model."""
        for name, bounds in ranges.items():
            low, high = bounds.tolist()
            self._layers[name].range.bounds = (low, high)

    def close(self) -> None:
        """Take the hooks from the model."""
        for handle in self._handles:
            handle.remove()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(slots=True)
class _Range:
    """A moving average of least and largest values; None before the first batch."""

    greatest: Greatest | None
    bounds: tuple[float, float] | None = None

    def follow(self, values: Tensor) -> tuple[float, float]:
        """The range with one more training batch in it, the whole one where others have shares of it."""
        least, largest = torch.aminmax(values.detach())
        outermost = torch.stack([-least, largest]).double()
        if self.greatest is not None:
            outermost = self.greatest(outermost)
        low, high = -float(outermost[0]), float(outermost[1])
        if self.bounds is not None:
            low = _KEEP * self.bounds[0] + (1 - _KEEP) * low
            high = _KEEP * self.bounds[1] + (1 - _KEEP) * high
        self.bounds = (low, high)
        return self.bounds


class _Rounding:
    """Swaps a layer's weights for rounded ones while it runs, and rounds its input."""

    def __init__(self, greatest: Greatest | None) -> None:
        self.range = _Range(greatest)
        self._kept: list[tuple[nn.Module, str, nn.Parameter]] = []

    def before(self, module: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        """The arguments, the first one rounded."""
        for owner, name in _weights(module):
            parameter = owner._parameters[name]  # noqa: SLF001 - setattr would refuse what is no Parameter
            if parameter is not None:
                self._kept.append((owner, name, parameter))
                owner._parameters[name] = rounded_weight(parameter, channel_axis(owner))  # type: ignore[assignment]  # noqa: SLF001
        if not arguments or not arguments[0].is_floating_point():
            return arguments
        rounded = self._rounded(arguments[0], training=module.training)
        # Attention is given one tensor three times, and takes a shorter way where they are the same.
        return tuple(rounded if argument is arguments[0] else argument for argument in arguments)

    def after(self, *_: object) -> None:
        """Put the parameters back."""
        while self._kept:
            owner, name, parameter = self._kept.pop()
            owner._parameters[name] = parameter  # noqa: SLF001

    def _rounded(self, values: Tensor, *, training: bool) -> Tensor:
        bounds = self.range.follow(values) if training else self.range.bounds
        return values if bounds is None else rounded_activation(values.float(), *bounds)


def _weights(module: nn.Module) -> list[tuple[nn.Module, str]]:
    """(owner, name) of the weights that a layer multiplies with."""
    if isinstance(module, nn.MultiheadAttention):
        names = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")
        return [*((module, name) for name in names), (module.out_proj, "weight")]
    return [(module, "weight")]
