"""Unstructured and N:M pruning: single weights held at zero while the rest is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Self

import torch
from torch.nn.modules.conv import _ConvNd

from edgeprune.errors import BuildError, InputError
from edgeprune.graph.names import match_layers

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerSparsity:
    """Zeros in one layer's weight, as a share in [0, 1]; 0 for a layer that was left dense."""

    layer: str
    weights: int
    sparsity: float


class WeightMasks:
    """Which weights of a model must be zero. Made by `unstructured` or `n_m`; the model is changed by `apply_` only.

    Attributes:
        left_dense: layers that could have been masked and were not, with no zeros to hold.
    """

    def __init__(self, model: nn.Module, kept: dict[str, Tensor], left_dense: tuple[str, ...]) -> None:
        self._model = model
        self._kept = kept
        self.left_dense = left_dense

    @classmethod
    def unstructured(
        cls,
        model: nn.Module,
        sparsity: float,
        *,
        scope: Literal["global", "layer", "adaptive"] = "global",
        ignored: Sequence[str] = (),
        with_last: bool = False,
    ) -> Self:
        """Mask the smallest magnitudes of convolutions and linear layers, the last such layer kept dense.

        Args:
            model: whose weights are looked at, and held by the other methods.
            sparsity: share of the maskable weights to zero, in [0, 1]; met exactly, rounded to a whole weight.
            scope: `global` ranks all weights together by magnitude, `layer` gives each layer the same share, `adaptive`
                ranks them together by what zeroing one, and all smaller ones, takes from its layer: the scale of a
                layer, which a norm behind it undoes, does not count, and no layer loses all.
            ignored: layers to keep dense; `*` is a wildcard.
            with_last: mask the last layer too, for kernels by whose rule its zeros count.

        Raises:
            InputError: a sparsity out of range, or an ignored name that matches no layer.

        Source: `adaptive` is LAMP, Lee et al. 2021, "Layer-adaptive sparsity for the magnitude-based pruning",
        arXiv:2010.07611.
        """
        if not 0 <= sparsity <= 1:
            raise InputError(f"sparsity: expected a number from 0 to 1, got {sparsity}")
        weights, dense = _maskable(model, ignored, with_last=with_last)
        if scope == "layer" or not weights:
            kept = {name: _largest(w.abs(), sparsity) for name, w in weights.items()}
        else:
            score = _adaptive_scores if scope == "adaptive" else torch.abs
            everything = torch.cat([score(w).flatten() for w in weights.values()])
            parts = torch.split(_largest(everything, sparsity), [w.numel() for w in weights.values()])
            kept = {n: part.reshape(w.shape) for (n, w), part in zip(weights.items(), parts, strict=True)}
        return cls(model, kept, dense)

    @classmethod
    def n_m(cls, model: nn.Module, n: int, m: int, *, ignored: Sequence[str] = (), with_last: bool = False) -> Self:
        """Keep the `n` largest magnitudes of every `m` consecutive weights along the input channels.

        The weights of one output channel are taken in the order [*kernel, in_channels], as channels-last kernels read
        them. Layers where that length is no multiple of `m` are left dense, the last unless `with_last`.

        Raises:
            InputError: not 0 < n <= m, or an ignored name that matches no layer.
        """
        if not 0 < n <= m:
            raise InputError(f"N:M sparsity: expected 0 < N <= M, got {n}:{m}")
        weights, dense = _maskable(model, ignored, with_last=with_last)
        kept: dict[str, Tensor] = {}
        for name, weight in weights.items():
            if weight[0].numel() % m:
                dense = (*dense, name)
            else:
                kept[name] = _n_of_m(weight, n, m)
        return cls(model, kept, dense)

    @torch.no_grad()
    def apply_(self) -> None:
        """Set the masked weights to zero; to be called after each step of the optimizer."""
        for name, kept in self._kept.items():
            weight = _weight(self._model, name)
            # Not a product with the mask: NaN and infinity must go too, and -0.0 must not appear.
            weight.masked_fill_(~kept, 0.0)

    def verify(self) -> None:
        """Make sure that the masks hold.

        Raises:
            BuildError: a masked weight is not zero, or a layer has another shape than its mask.
        """
        for name, kept in self._kept.items():
            weight = _weight(self._model, name)
            if weight.shape != kept.shape:
                raise BuildError(
                    f"layer {name!r}: its weight is {tuple(weight.shape)}, its mask {tuple(kept.shape)}", layer=name
                )
            alive = int(weight[~kept].count_nonzero())
            if alive:
                raise BuildError(f"layer {name!r}: {alive} masked weights are not zero", layer=name)

    def make_permanent(self) -> None:
        """Zero the masked weights one last time, check them, and hold them no longer."""
        self.apply_()
        self.verify()
        self._kept = {}

    def sparsities(self) -> tuple[LayerSparsity, ...]:
        """Masked share of each maskable layer, in the model's order."""
        known = {*self._kept, *self.left_dense}
        return tuple(
            LayerSparsity(layer=name, weights=w.numel(), sparsity=self._share(name))
            for name, w in _all_weights(self._model).items()
            if name in known
        )

    @property
    def sparsity(self) -> float:
        """Masked share of all maskable weights, those left dense included; 0 where there are none."""
        layers = self.sparsities()
        total = sum(x.weights for x in layers)
        return sum(x.sparsity * x.weights for x in layers) / total if total else 0.0

    def _share(self, name: str) -> float:
        kept = self._kept.get(name)
        return 0.0 if kept is None else 1.0 - int(kept.count_nonzero()) / kept.numel()


def _all_weights(model: nn.Module) -> dict[str, Tensor]:
    """Weights of convolutions and linear layers by layer, in the model's order; a shared one under its first name."""
    found: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, layer in model.named_modules():
        if isinstance(layer, _ConvNd | torch.nn.Linear) and id(layer.weight) not in seen:
            seen.add(id(layer.weight))
            found[name] = layer.weight.detach()
    return found


def _maskable(
    model: nn.Module, ignored: Sequence[str], *, with_last: bool
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The weights that may be masked, and the layers that the caller wants dense. The last layer may be in neither."""
    weights = _all_weights(model)
    if weights and not with_last:
        weights.popitem()
    kept = match_layers(model, ignored, key="pruning.ignored")
    dense = tuple(n for n in weights if n in kept)
    return {n: w for n, w in weights.items() if n not in kept}, dense


def _weight(model: nn.Module, name: str) -> Tensor:
    weight = model.get_submodule(name).weight
    if not isinstance(weight, torch.Tensor):
        raise BuildError(f"layer {name!r}: its weight is no tensor", layer=name)
    return weight.detach()


def _largest(magnitudes: Tensor, sparsity: float) -> Tensor:
    """True for all but the smallest `sparsity` share; of equal ones the later stay."""
    zeros = round(sparsity * magnitudes.numel())
    kept = torch.ones(magnitudes.numel(), dtype=torch.bool)
    # Stable, so that equal magnitudes are chosen alike on every machine.
    kept[torch.argsort(magnitudes.flatten(), stable=True)[:zeros]] = False
    return kept.reshape(magnitudes.shape)


def _adaptive_scores(weight: Tensor) -> Tensor:
    """Each weight's square over the sum of the squares that are not smaller, in its own layer; 1 for the largest."""
    squares = weight.double().flatten().square()
    order = torch.argsort(squares, stable=True)
    not_smaller = squares[order].flip(0).cumsum(0).flip(0)
    scores = torch.zeros_like(squares)
    scores[order] = squares[order] / not_smaller.clamp_min(torch.finfo(torch.float64).tiny)
    return scores


def _n_of_m(weight: Tensor, n: int, m: int) -> Tensor:
    """True for the n largest of every m along [*kernel, in_channels]."""
    channels_last = weight.movedim(1, -1)
    blocks = channels_last.abs().reshape(-1, m)
    order = torch.argsort(blocks, dim=1, descending=True, stable=True)[:, :n]
    kept = torch.zeros_like(blocks, dtype=torch.bool).scatter_(1, order, value=True)
    return kept.reshape(channels_last.shape).movedim(-1, 1).contiguous()
