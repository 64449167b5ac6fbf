"""Many micro-models as the branches of one torch module.

It is compiled and quantized once and then cut into one file a branch (`profiling/slicing/`): the kernels are those that
the real compiler and the real quantizer choose, at a tenth of the time that as many compilations take.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgeprune.profiling.micro import Company, MicroModel
from edgeprune.records.operators import OperatorShape

_HEAD_CHANNELS = 8
_HEAD_KERNEL = 2
_CONVOLUTIONS: tuple[type[nn.Conv1d | nn.Conv2d], ...] = (nn.Conv1d, nn.Conv2d)
_POOLS: tuple[type[nn.AdaptiveAvgPool1d | nn.AdaptiveAvgPool2d], ...] = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d)
_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "": lambda x: x,
    "relu": functional.relu,
    "relu6": functional.relu6,
    "gelu": functional.gelu,
    "silu": functional.silu,
    "hardswish": functional.hardswish,
    "hardsigmoid": functional.hardsigmoid,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
}


class Branches(nn.Module):
    """All micro-models of one input shape. Their outputs are joined in the order given; that is where they are cut.

    A linear layer follows, because quantizers leave the last layer's output in float, and so would leave the heads'.

    Args:
        models: at least two, of one input shape.
    """

    def __init__(self, models: Sequence[MicroModel]) -> None:
        super().__init__()
        companies = {m.company.channels: m.company for m in models if m.company.channels}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.stems = nn.ModuleDict({str(channels): _stem(c) for channels, c in sorted(companies.items())})
            self.branches = nn.ModuleList(_Branch(m) for m in models)
            self.last = nn.Linear(_HEAD_CHANNELS * len(models), _HEAD_CHANNELS)
        self._channels = tuple(m.company.channels for m in models)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """The models' input to [1, 8]."""
        made = {int(channels): functional.relu(stem(x)) for channels, stem in self.stems.items()}
        made[0] = x
        joined = zip(self._channels, self.branches, strict=True)
        output: Tensor = self.last(torch.cat([branch(made[channels]) for channels, branch in joined], dim=1))
        return output


class _Branch(nn.Module):
    def __init__(self, model: MicroModel) -> None:
        super().__init__()
        company, shape = model.company, model.shape
        channels = company.channels or company.input_channels
        self.before = _branch(company, channels) if company.added else None
        self.adds = shape is not None and shape.kind == "add"
        self.operator = None if shape is None or self.adds else _operator(shape)
        self.activation = _ACTIVATIONS[shape.activation if shape else ""]
        self.spatial = bool(company.extent)
        self.rows = 1 if company.extent else company.rows
        extent, out_channels = (shape.out_extent, shape.out_channels) if shape else (company.extent, channels)
        self.head = _head(extent, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.before is None else self.before(x)
        if self.adds:
            y = y + x
        if self.operator is not None:
            y = self.operator(y)
        y = self.activation(y)
        if self.rows > 1:
            y = y[:, 0]
        return torch.flatten(self.head(y), 1)


def _stem(company: Company) -> nn.Module:
    if company.extent:
        return _CONVOLUTIONS[len(company.extent) - 1](company.input_channels, company.channels, 3, padding=1)
    return nn.Linear(company.input_channels, company.channels)


def _branch(company: Company, channels: int) -> nn.Module:
    """Two layers: what the second one makes can be added in place to the branch's input, as that is not its own.

    A single one would have to copy it: OpenVINO INT8, 8 channels, 0.0144 ms for an addition instead of 0.0014.
    """
    return nn.Sequential(_square(company, channels), nn.ReLU(), _square(company, channels))


def _square(company: Company, channels: int) -> nn.Module:
    if company.extent:
        kernel = company.kernel
        padding = tuple(size // 2 for size in kernel)
        return _CONVOLUTIONS[len(kernel) - 1](channels, channels, kernel, padding=padding)  # type: ignore[arg-type]
    return nn.Linear(channels, channels)


def _operator(shape: OperatorShape) -> nn.Module:
    if shape.kind == "linear":
        return nn.Linear(shape.in_channels, shape.out_channels)
    if shape.kind == "average":
        return _POOLS[len(shape.extent) - 1](1)
    return _CONVOLUTIONS[len(shape.kernel) - 1](
        shape.in_channels,
        shape.out_channels,
        shape.kernel,  # type: ignore[arg-type]
        stride=shape.stride,  # type: ignore[arg-type]
        padding=shape.padding,  # type: ignore[arg-type]
        dilation=shape.dilation,  # type: ignore[arg-type]
        groups=shape.groups,
    )


def _head(extent: tuple[int, ...], channels: int) -> nn.Module:
    """Reads one small window, so that it costs next to nothing."""
    if not extent:
        return nn.Linear(channels, _HEAD_CHANNELS)
    kernel = tuple(min(_HEAD_KERNEL, size) for size in extent)
    return _CONVOLUTIONS[len(extent) - 1](
        channels,
        _HEAD_CHANNELS,
        kernel,  # type: ignore[arg-type]
        stride=extent,  # type: ignore[arg-type]
    )
