"""Gates that learn to close: hard concrete variables on the weights of a copy of a model."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor
from torch.func import functional_call

from edgeprune.graph.slicing import output_first
from edgeprune.protocols import Granularity, ScoringTask
from edgeprune.pruning.passes import data_of, working_copy
from edgeprune.pruning.weights import input_width, weighted_layers

if TYPE_CHECKING:
    from torch import nn

_BETA: Final = 2 / 3
_GAMMA: Final = -0.1
_ZETA: Final = 1.1
"""Temperature and stretch, as in the paper."""

_STEPS = 100
_RATE = 0.1
_PENALTY = 1.0
"""On the share of gates that are open, beside a loss of about 1."""

_OPEN = 2.0
"""log alpha in the beginning: all gates are very likely open."""


def learned_gates(task: ScoringTask) -> dict[str, Tensor]:
    """How likely each gate is open after training; see `criteria/hard_concrete.py`.

    Returns:
        By layer, [out_channels, in_channels, *kernel] or [in_channels], float32, in (0, 1).
    """
    data, model = data_of(task), working_copy(task.model).requires_grad_(requires_grad=False)
    layers = weighted_layers(model, task.layers)
    gates = {name: torch.full(_shape(name, layer, task), _OPEN, requires_grad=True) for name, layer in layers.items()}
    drawn = {name: torch.Generator().manual_seed(task.seed ^ zlib.crc32(name.encode())) for name in gates}
    if not gates:
        return {}
    count = sum(g.numel() for g in gates.values())
    optimizer = torch.optim.Adam(gates.values(), lr=_RATE)
    steps = len(data.batches) * max(1, math.ceil(_STEPS / len(data.batches)))
    with torch.enable_grad():
        for step in range(steps):
            inputs, labels = data.batches[step % len(data.batches)]
            samples = {name: _sample(gate, drawn[name]) for name, gate in gates.items()}
            outputs = functional_call(model, _gated(model, samples), (inputs,))
            share_open = torch.stack([_likely_open(gates[name]).sum() for name in sorted(gates)]).sum() / count
            optimizer.zero_grad(set_to_none=True)
            (data.loss(outputs, labels) + _PENALTY * share_open).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return {name: _likely_open(gate.detach()) for name, gate in gates.items()}


def _sample(log_alpha: Tensor, generator: torch.Generator) -> Tensor:
    """Equations 10 and 11: differentiable, and exactly 0 or 1 much of the time."""
    drawn = torch.rand(log_alpha.shape, generator=generator).clamp(1e-6, 1 - 1e-6)
    soft = torch.sigmoid((drawn.log() - (1 - drawn).log() + log_alpha) / _BETA)
    return (soft * (_ZETA - _GAMMA) + _GAMMA).clamp(0, 1)


def _likely_open(log_alpha: Tensor) -> Tensor:
    """Equation 12: the probability that the gate is not 0."""
    return torch.sigmoid(log_alpha - _BETA * math.log(-_GAMMA / _ZETA))


def _gated(model: nn.Module, samples: Mapping[str, Tensor]) -> dict[str, Tensor]:
    weighted = weighted_layers(model, tuple(samples))
    found: dict[str, Tensor] = {}
    for name, sample in samples.items():
        layer = weighted[name]
        weight = output_first(layer, layer.weight)
        gate = sample if sample.dim() == weight.dim() else _before_channels(sample, weight)
        found[f"{name}.weight"] = output_first(layer, weight * gate)
    return found


def _before_channels(gate: Tensor, weight: Tensor) -> Tensor:
    """A gate for each input channel as one for each weight that reads it; those of a group read its own channels."""
    out_channels, of_group = weight.shape[:2]
    groups = len(gate) // of_group
    rows = gate.reshape(groups, 1, of_group).expand(groups, out_channels // groups, of_group).flatten(0, 1)
    return rows.reshape(out_channels, of_group, *[1] * (weight.dim() - 2))


def _shape(name: str, layer: nn.Module, task: ScoringTask) -> tuple[int, ...]:
    if task.granularity is Granularity.IN_CHANNEL:
        return (input_width(task, name),)
    return tuple(output_first(layer, layer.weight).shape)  # type: ignore[arg-type]
