"""Which modules of a torch model the layers of its compiled file are, by marks in the weights of a copy.

Names do not tell: those of an ONNX node or an IR operator are numbers, and converters split, fuse and reorder modules.
So a copy is compiled in which all weights of a module have one magnitude, another one in each module, and the file's
weights are looked at. Layouts, transposes and splits leave a magnitude as it is; norms are made to change nothing.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from edgeprune.quantization.fake_quantization import rounded_weights

if TYPE_CHECKING:
    from torch import nn

_STEPS = 4096
"""Mantissas that are told apart: float32 has 2048 numbers between two of them, more than folding a norm is off by."""

_NEAR = 0.05
"""Of such a step."""


@torch.no_grad()
def marked_copy(model: nn.Module) -> tuple[nn.Module, tuple[str, ...]]:
    """A copy with marks for weights, and the modules that have one each, in the order of `named_modules`.

    The mark is in the mantissa, so that a factor of two does not change it; sizes are those of a fresh model's weights,
    and signs are drawn, so that what comes out are numbers like any. Of more than 4,095 modules the rest has no mark.
    """
    marked, names = copy.deepcopy(model).cpu().eval(), list[str]()
    drawn, seen = torch.Generator().manual_seed(0), set[int]()
    for name, module in marked.named_modules():
        _neutralize_(module)
        # Another module's weights as well: an attention's output projection is a module of its own.
        own = [p for p in rounded_weights(module) if id(p) not in seen]
        if not own or len(names) + 1 == _STEPS:
            continue
        names.append(name)
        for parameter in own:
            seen.add(id(parameter))
            size = 2.0 ** -round(np.log2(parameter[0].numel()) / 2)
            signs = torch.randint(0, 2, parameter.shape, generator=drawn) * 2 - 1
            parameter.copy_(signs * size * (1 + len(names) / _STEPS))
    return marked, tuple(names)


def marked_module(weights: np.ndarray, names: Sequence[str]) -> str | None:
    """Whose mark all these weights of a compiled file have; None where they have no mark, or more than one.

    Args:
        weights: of one layer, of any shape.
        names: what `marked_copy` told.
    """
    mantissas, _ = np.frexp(np.abs(weights.astype(np.float64)))
    marks = (2 * mantissas - 1) * _STEPS
    number = round(float(marks.flat[0])) if marks.size else 0
    if not 1 <= number <= len(names) or np.abs(marks - number).max() > _NEAR:
        return None
    return names[number - 1]


def modules_in_float(
    marked: nn.Module, names: Sequence[str], layers: Iterable[tuple[np.ndarray, bool]]
) -> tuple[str, ...]:
    """The modules that are in float as a whole; where part of one was not found, or is not in float, it is none.

    Args:
        marked: from `marked_copy`.
        names: likewise.
        layers: of the compiled copy: their weights, and whether they stay in float.
    """
    elements: dict[tuple[str | None, bool], int] = {}
    for weights, in_float in layers:
        key = (marked_module(weights, names), in_float)
        elements[key] = elements.get(key, 0) + weights.size
    sizes = {n: sum(p.numel() for p in rounded_weights(marked.get_submodule(n))) for n in names}
    # More than all where a module runs twice.
    return tuple(n for n in names if elements.get((n, True), 0) >= sizes[n] and (n, False) not in elements)


def _neutralize_(module: nn.Module) -> None:
    """What may be folded into the weights before or behind it shall not change them."""
    if isinstance(module, _BatchNorm) and module.running_mean is not None and module.running_var is not None:
        module.running_mean.zero_()
        module.running_var.fill_(1 - module.eps)
    if isinstance(module, _BatchNorm | torch.nn.LayerNorm | torch.nn.GroupNorm) and module.weight is not None:
        module.weight.fill_(1.0)
        if module.bias is not None:
            module.bias.zero_()
