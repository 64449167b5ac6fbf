"""Models that have never been trained: of a pruned one's shape, and what stands for training in them."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from edgeprune.errors import BuildError
from edgeprune.pruning.surgery import rebuild
from edgeprune.records.recipe import PruningRecipe
from edgeprune.steps.inputs import Target

if TYPE_CHECKING:
    from torch import Tensor, nn


def fresh_model(target: Target, example: Tensor, recipe: PruningRecipe) -> nn.Module:
    """Initial weights of the factory that nothing was trained from, cut by the recipe and scaled to what is left.

    They are drawn at another seed than the target's. Those that the dense model began with would be a lottery ticket:
    what is left of a net was chosen by where training took just these (Frankle and Carbin 2019, arXiv:1803.03635,
    section 2, whose control draws anew as well).

    Initial weights are drawn for the number of inputs that a unit has (He et al. 2015, arXiv:1502.01852, section 2.2:
    their variance goes with 1 / inputs). A layer that lost inputs would start too small, and the control with a
    handicap; so its weights are multiplied by the root of inputs before over inputs left.

    Args:
        target: its factory is asked, not its weights file.
        example: one input.
        recipe: of the pruned model.

    Raises:
        BuildError: the factory gives the same weights at any seed: they are no fresh ones.
    """
    import torch
    from torch import nn

    drawn = replace(target, spec=target.spec.model_copy(update={"seed": target.spec.seed + 1})).build_model()
    if not _differ(drawn, target.build_model()):
        raise BuildError(
            f"{target.spec.model.factory} gives the same weights at any seed, so that it has no fresh ones to give; "
            "name the pretrained weights in model.weights and let the factory draw"
        )
    fresh = rebuild(drawn, example, recipe)
    before = dict(drawn.named_modules())
    with torch.no_grad():
        for name, module in fresh.named_modules():
            if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
                module.weight.mul_(math.sqrt(_inputs(before[name]) / _inputs(module)))
    return fresh


def _differ(model: nn.Module, other: nn.Module) -> bool:
    import torch

    pairs = zip(model.parameters(), other.parameters(), strict=True)
    return any(not torch.equal(a, b) for a, b in pairs if a.dim() > 1)


def _inputs(module: nn.Module) -> float:
    """Of one unit: weights by outputs."""
    weight = module.get_parameter("weight")
    return weight.numel() / len(weight)


def draw_norms_(model: nn.Module) -> None:
    """Give norms values as training would: converters drop the identity of a fresh one, and the shape with it."""
    import torch
    from torch.nn.modules.batchnorm import _BatchNorm

    generator = torch.Generator().manual_seed(0)
    for norm in (m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats):
        for values in (norm.running_mean, norm.running_var, norm.weight, norm.bias):
            if values is not None:
                values.data.uniform_(0.5, 1.5, generator=generator)
