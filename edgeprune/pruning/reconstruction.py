"""Refitting the weights that are left, so that layers give what they gave before on real inputs. No training.

The weights of one layer after the other become the least-squares fit of the whole model's outputs from what the pruned
model gives that layer to read, so that each makes up for those before it. A ridge draws them to what they are, as the
data may not say enough about all of them (`least_squares.py`). Batch norms keep their statistics, as what they read is
as before: ResNet-20 with 70 % of its weights zeroed by OBC has 90.6 % right after a refit, and 87.5 % with its norms
re-estimated as well (1000 test images of CIFAR-10, 512 training images to refit by, dense 91.6 %, 2026-11-21).

Sources: for channels He et al. 2017, "Channel Pruning for Accelerating Very Deep Neural Networks", section 3.1,
arXiv:1707.06168. For single weights the objective of Frantar and Alistarh 2022, "Optimal Brain
Compression", section 3, equation 1, arXiv:2208.11580, solved for a mask that is given, as in their "SparseGPT", section
3.1, arXiv:2301.00774, here exactly (conjugate gradients), not column by column.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from edgeprune.graph.slicing import ChannelEdit, Side, all_headwise_, output_first
from edgeprune.pruning.least_squares import Moments, best_step
from edgeprune.pruning.rows import input_rows, output_rows, row_count

if TYPE_CHECKING:
    from edgeprune.pruning.masks import WeightMasks

_ROWS_EACH_EXAMPLE = 64
"""Drawn at random: neighbouring positions say nearly the same."""

_BATCH = 64
_FOLDS = 4


@torch.no_grad()
def reconstruct_channels_(
    pruned: nn.Module, whole: nn.Module, edits: Sequence[ChannelEdit], inputs: Tensor, *, seed: int = 0
) -> None:
    """Refit the layers of a pruned model that lost input channels; others are left alone.

    Args:
        pruned: changed in place.
        whole: the same model before the cut; left alone.
        edits: that the cut consists of, in the coordinates of the whole model.
        inputs: [examples, ...], preprocessed; some hundred at least.
        seed: of the positions that are looked at.
    """
    lost = {e.layer for e in edits if e.side is Side.IN}
    gone: dict[str, set[int]] = {}
    for edit in edits:
        if edit.side is Side.OUT:
            gone.setdefault(edit.layer, set()).update(edit.indices)
    fit = _Fit(pruned, whole, inputs, seed)
    for name in fit.order:
        if name in lost:
            fit.refit_(name, removed=gone.get(name, set()))


@torch.no_grad()
def reconstruct_weights_(
    pruned: nn.Module, whole: nn.Module, masks: WeightMasks, inputs: Tensor, *, seed: int = 0
) -> None:
    """Refit the weights that masks keep, layer by layer, the zeros held.

    Args:
        pruned: changed in place; its masks have been applied.
        whole: the same model before; left alone.
        masks: of the pruned model.
        inputs: [examples, ...], preprocessed; some hundred at least.
        seed: of the positions that are looked at.
    """
    kept = masks.kept
    fit = _Fit(pruned, whole, inputs, seed)
    for name in fit.order:
        if name in kept and not bool(kept[name].all()):
            fit.refit_(name, kept=kept[name])


class _Fit:
    def __init__(self, pruned: nn.Module, whole: nn.Module, inputs: Tensor, seed: int) -> None:
        self._pruned, self._whole, self._inputs, self._seed = _watchable(pruned), _watchable(whole), inputs, seed
        self.order = _called(self._whole, inputs[:1])

    def refit_(self, name: str, *, removed: set[int] | None = None, kept: Tensor | None = None) -> None:
        """Refit one layer in place, all of its weights or those that a mask keeps."""
        layer = self._pruned.get_submodule(name)
        if not isinstance(layer, _ConvNd | nn.Linear):
            return
        fitted, held = self._moments(name, layer, removed or set())
        rows = None if kept is None else output_first(layer, kept).flatten(1)
        allowed = None if rows is None else torch.unflatten(rows, 0, (len(fitted.inner), -1))
        step = best_step(fitted, held, allowed).reshape(output_first(layer, layer.weight).shape)
        layer.weight += output_first(layer, step).to(layer.weight.dtype)

    def _moments(self, name: str, layer: _ConvNd | nn.Linear, removed: set[int]) -> tuple[Moments, Moments]:
        """Of the examples that are fitted to, and of every fourth part of them, held out to choose the ridge by."""
        drawn = torch.Generator().manual_seed(self._seed)
        groups = layer.groups if isinstance(layer, _ConvNd) else 1
        weight = torch.unflatten(output_first(layer, layer.weight).flatten(1), 0, (groups, -1))
        outputs = weight.shape[0] * weight.shape[1]
        stays = [i for i in range(outputs + len(removed)) if i not in removed]
        found = (Moments.none(weight), Moments.none(weight))
        for number, part in enumerate(torch.split(self._inputs, min(_BATCH, max(1, len(self._inputs) // _FOLDS)))):
            (given, made), wanted = _seen(self._pruned, name, part), _seen(self._whole, name, part)[1]
            count = min(row_count(layer, wanted), _ROWS_EACH_EXAMPLE * len(part))
            chosen = torch.randperm(row_count(layer, wanted), generator=drawn)[:count]
            rows = input_rows(layer, given, made, chosen).transpose(0, 1)
            targets = output_rows(layer, wanted, chosen)[:, stays] - (0.0 if layer.bias is None else layer.bias)
            missing = torch.unflatten(targets, 1, (groups, -1)).transpose(0, 1) - rows @ weight.transpose(1, 2)
            found[number % _FOLDS == _FOLDS - 1].add_(rows, missing)
        return found


class _Enough(Exception):  # noqa: N818
    """Ends a forward pass where what was wanted is seen."""


def _watchable(model: nn.Module) -> nn.Module:
    """The model's own tensors in modules of which each is called by itself, in evaluation mode."""
    shared = {id(t): t for t in (*model.parameters(), *model.buffers())}
    watched = copy.deepcopy(model, shared).eval()
    all_headwise_(watched)
    return watched


def _called(model: nn.Module, inputs: Tensor) -> tuple[str, ...]:
    """The convolutions and linear layers in the order in which they are called."""
    order: list[str] = []
    weighted = {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Linear | _ConvNd)}
    handles = [
        layer.register_forward_pre_hook(lambda *_, name=name: order.append(name)) for name, layer in weighted.items()
    ]
    try:
        model(inputs)
    finally:
        for handle in handles:
            handle.remove()
    return tuple(dict.fromkeys(order))


def _seen(model: nn.Module, name: str, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """What a layer reads and gives at its first call."""
    found: list[tuple[Tensor, Tensor]] = []

    def hook(_layer: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
        found.append((given[0], output))
        raise _Enough

    handle = model.get_submodule(name).register_forward_hook(hook)
    try:
        model(inputs)
    except _Enough:
        return found[0]
    finally:
        handle.remove()
    raise RuntimeError(f"layer {name!r} was not called")
