"""Residual blocks that can be taken out whole: what is left is the shortcut around them.

A block is a module of the model whose output is its input when everything that it learned is switched off. That holds
for blocks of a ResNet that keep extent and channels, inverted residuals of a MobileNet, and transformer layers (after a
closing norm the input comes back up to shift and scale). Source of the choice to drop such blocks and train on: Fan et
al. 2020, "Reducing Transformer Depth on Demand", arXiv:1909.11556; Wu et al. 2018, "BlockDrop", arXiv:1711.08393.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from edgeprune.errors import BuildError, InputError
from edgeprune.graph.groups import ChannelGroup
from edgeprune.graph.names import block_of, match_layers
from edgeprune.graph.trial import run
from edgeprune.registry import suggest

_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedBlock:
    """A block that must stay, with the reason in a sentence."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocks:
    """Names of the blocks that can go, as `named_modules` has them, in the model's order; none lies in another."""

    removable: tuple[str, ...] = ()
    refused: tuple[RefusedBlock, ...] = ()


class PassThrough(nn.Module):
    """Stands where a block was, and gives on what the block was given first."""

    def forward(self, *values: Tensor, **named: Tensor) -> Tensor:
        """The first value, whatever came with it (masks, positions)."""
        return next(iter((*values, *named.values())))


def find_blocks(
    model: nn.Module,
    example: Tensor,
    groups: Iterable[ChannelGroup] = (),
    ignored: Sequence[str] = (),
    *,
    needed: Mapping[str, str] | None = None,
) -> Blocks:
    """Find the residual blocks; each one found was taken out of a copy, which still ran.

    Args:
        model: left alone.
        example: one input, with its batch dimension.
        groups: the channels that can be cut. A group that starts in a block must end in it: otherwise it would lose the
            layer that it is named by.
        ignored: layers that must stay; `*` is a wildcard.
        needed: layers that must stay, by name, with the key of the target's file that names them.

    Raises:
        InputError: a name in `ignored` matches no layer, or the model does not run on the example.
    """
    held = dict.fromkeys(match_layers(model, ignored, key="pruning.ignored"), "pruning.ignored keeps")
    held |= {layer: f"{key} names" for layer, key in (needed or {}).items()}
    whole = [tuple(o.shape) for o in run(copy.deepcopy(model).eval(), example)]
    removable: list[str] = []
    refused: list[RefusedBlock] = []
    for name in _innermost(_residual(model, example)):
        reason = _obstacle(name, groups, held) or _trial(model, example, name, whole)
        if reason:
            refused.append(RefusedBlock(name=name, reason=reason))
        else:
            removable.append(name)
    return Blocks(removable=tuple(removable), refused=tuple(refused))


def remove_blocks(model: nn.Module, names: Iterable[str]) -> nn.Module:
    """A copy without these blocks.

    Raises:
        BuildError: there is no such module.
    """
    rest = copy.deepcopy(model)
    modules = dict(rest.named_modules())
    for name in names:
        if name not in modules or not name:
            raise BuildError(f"no block {name!r} in the model{suggest(name, tuple(modules))}", block=name)
        rest.set_submodule(name, PassThrough())
    return rest


@dataclass(slots=True)
class _Call:
    """One run of a module that could be a block."""

    values: tuple[object, ...]
    named: dict[str, object]
    given: Tensor
    times: int = 1


def _residual(model: nn.Module, example: Tensor) -> list[str]:
    """Modules that give their input back when what they learned is switched off."""
    watched = copy.deepcopy(model).eval()
    calls: dict[str, _Call] = {}
    hooks = [
        module.register_forward_hook(_recorder(name, calls), with_kwargs=True)
        for name, module in watched.named_modules()
        if name and _has_layers(module)
    ]
    fast_path = torch.backends.mha.get_fastpath_enabled()
    # An encoder's fast path runs none of its layers.
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        run(watched, example)
        for hook in hooks:
            hook.remove()
        return [name for name, call in calls.items() if call.times == 1 and _gives_back(watched, name, call)]
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)


def _has_layers(module: nn.Module) -> bool:
    return any(isinstance(m, _ConvNd | nn.Linear) for m in module.modules() if m is not module)


def _recorder(name: str, calls: dict[str, _Call]) -> Callable[..., None]:
    def record(_module: nn.Module, values: tuple[object, ...], named: dict[str, object], output: object) -> None:
        given = next(iter((*values, *named.values())), None)
        if name in calls:
            calls[name].times += 1
        elif isinstance(given, Tensor) and isinstance(output, Tensor) and given.shape == output.shape:
            calls[name] = _Call(values, named, given.clone())

    return record


@torch.no_grad()
def _gives_back(watched: nn.Module, name: str, call: _Call) -> bool:
    silent = copy.deepcopy(watched.get_submodule(name))
    for module in silent.modules():
        if isinstance(module, _NormBase | nn.LayerNorm | nn.GroupNorm):
            module.reset_parameters()
        else:
            for parameter in module.parameters(recurse=False):
                parameter.zero_()
    output = silent(*call.values, **call.named)
    return isinstance(output, Tensor) and (_same(output, call.given) or _same(_normed(output), _normed(call.given)))


def _same(output: Tensor, given: Tensor) -> bool:
    scale = float(given.abs().max()) if given.numel() else 0.0
    return scale > 0 and bool(((output - given).abs() <= _TOLERANCE * scale).all())


def _normed(values: Tensor) -> Tensor:
    """Over the last dimension, as a transformer's norms do."""
    return nn.functional.layer_norm(values, values.shape[-1:])


def _innermost(names: Sequence[str]) -> list[str]:
    """Without a stage that is made of blocks: its blocks can go one by one."""
    return [n for n in names if not any(other.startswith(f"{n}.") for other in names)]


def _obstacle(name: str, groups: Iterable[ChannelGroup], held: Mapping[str, str]) -> str:
    inside = sorted(layer for layer in held if block_of(layer, [name]))
    if inside:
        return f"{held[inside[0]]} its layer {inside[0]!r}"
    for group in groups:
        ends = (*group.layers, *group.consumers)
        if block_of(group.name, [name]) and not all(block_of(layer, [name]) for layer in ends):
            return f"the channels of {group.name!r} start in it and go on outside"
    return ""


def _trial(model: nn.Module, example: Tensor, name: str, whole: list[tuple[int, ...]]) -> str:
    try:
        found = run(remove_blocks(model, [name]).eval(), example)
    except InputError as error:
        return f"without it {error.message}"
    return "" if [tuple(o.shape) for o in found] == whole else "without it the output has another shape"
