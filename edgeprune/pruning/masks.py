"""Unstructured, N:M and block pruning: single weights held at zero while the rest is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Self

import torch
from torch.nn.modules.conv import _ConvNd

from edgeprune.errors import BuildError, InputError
from edgeprune.graph.names import match_layers
from edgeprune.graph.slicing import output_first
from edgeprune.pruning.patterns import block_sums, highest, n_of_m, of_blocks
from edgeprune.registry import suggest

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerSparsity:
    """Zeros in one layer's weight, as a share in [0, 1]; 0 for a layer that was left dense."""

    layer: str
    weights: int
    sparsity: float


class WeightMasks:
    """Which weights of a model must be zero.

    Made by `unstructured`, `n_m` or `blocks`; the model is changed by `apply_` only. All three take scores by layer,
    as a criterion gives them for `maskable_layers` (each [out_channels, in_channels, *kernel]); without any, the
    weights' magnitudes are taken.

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
        sparsity: float | Mapping[str, float],
        *,
        scores: Mapping[str, Tensor] | None = None,
        scope: Literal["global", "layer"] = "global",
        ignored: Sequence[str] = (),
        with_last: bool = False,
    ) -> Self:
        """Mask the lowest scores of convolutions and linear layers, the last such layer kept dense.

        Args:
            model: whose weights are held by the other methods.
            sparsity: share of the maskable weights to zero, in [0, 1]; met exactly, rounded to a whole weight. By
                layer, each has its own share, and layers that are not named stay dense.
            scores: by layer.
            scope: `global` ranks all weights together, `layer` gives each layer the same share.
            ignored: layers to keep dense; `*` is a wildcard.
            with_last: mask the last layer too, for kernels by whose rule its zeros count.

        Raises:
            InputError: a sparsity out of range, an ignored name that matches no layer, or a layer without scores.
            BuildError: scores that are not finite.
        """
        found, dense = _scored(model, scores, ignored, with_last=with_last)
        kept = _kept_of(found, sparsity, scope)
        return cls(model, _stored(model, {n: k.reshape(found[n].shape) for n, k in kept.items()}), dense)

    @classmethod
    def n_m(
        cls,
        model: nn.Module,
        n: int,
        m: int,
        *,
        scores: Mapping[str, Tensor] | None = None,
        ignored: Sequence[str] = (),
        with_last: bool = False,
    ) -> Self:
        """Keep the `n` highest scores of every `m` consecutive weights along the input channels.

        The weights of one output channel are taken in the order [*kernel, in_channels], as channels-last kernels read
        them. Layers where that length is no multiple of `m` are left dense, the last unless `with_last`.

        Raises:
            InputError: not 0 < n <= m, an ignored name that matches no layer, or a layer without scores.
            BuildError: scores that are not finite.
        """
        if not 0 < n <= m:
            raise InputError(f"N:M sparsity: expected 0 < N <= M, got {n}:{m}")
        found, dense = _scored(model, scores, ignored, with_last=with_last)
        uneven = tuple(name for name, s in found.items() if s[0].numel() % m)
        kept = {name: n_of_m(s, n, m) for name, s in found.items() if name not in uneven}
        return cls(model, _stored(model, kept), (*dense, *uneven))

    @classmethod
    def blocks(
        cls,
        model: nn.Module,
        sparsity: float,
        shape: tuple[int, int],
        *,
        scores: Mapping[str, Tensor] | None = None,
        scope: Literal["global", "layer"] = "global",
        ignored: Sequence[str] = (),
        with_last: bool = False,
    ) -> Self:
        """Mask whole blocks of weights, those with the lowest sum of scores.

        A block is `shape` consecutive output channels times inputs, the inputs of an output channel in the order
        [*kernel, in_channels]: (1, 4) is four weights that one output reads one after the other, (4, 1) the weight that
        four outputs have for the same input. Layers that are no whole number of blocks are left dense.

        Args:
            model: whose weights are held by the other methods.
            sparsity: share of the blocks to zero, in [0, 1]; met exactly, rounded to a whole block where all layers
                have blocks of the same size.
            shape: (output channels, inputs), each at least 1.
            scores: by layer.
            scope: `global` ranks all blocks together, `layer` gives each layer the same share.
            ignored: layers to keep dense; `*` is a wildcard.
            with_last: mask the last layer too.

        Raises:
            InputError: a sparsity or shape out of range, an ignored name that matches no layer, or a layer without
                scores.
            BuildError: scores that are not finite.
        """
        if min(shape) < 1:
            raise InputError(f"block sparsity: expected a shape of at least 1x1, got {shape[0]}x{shape[1]}")
        found, dense = _scored(model, scores, ignored, with_last=with_last)
        uneven = tuple(n for n, s in found.items() if len(s) % shape[0] or s[0].numel() % shape[1])
        even = {n: s for n, s in found.items() if n not in uneven}
        kept = _kept_of({n: block_sums(s, shape) for n, s in even.items()}, sparsity, scope)
        masks = {n: of_blocks(kept[n], s.shape, shape) for n, s in even.items()}
        return cls(model, _stored(model, masks), (*dense, *uneven))

    @property
    def kept(self) -> Mapping[str, Tensor]:
        """By masked layer, of its weight's shape as the layer stores it: True for what stays."""
        return dict(self._kept)

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


def maskable_layers(model: nn.Module, ignored: Sequence[str] = (), *, with_last: bool = False) -> tuple[str, ...]:
    """The layers whose weights may be masked, in the model's order: what a criterion is asked about.

    Raises:
        InputError: an ignored name that matches no layer.
    """
    return tuple(_maskable(model, ignored, with_last=with_last)[0])


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


def _scored(
    model: nn.Module, scores: Mapping[str, Tensor] | None, ignored: Sequence[str], *, with_last: bool
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Scores of the weights that may be masked, [out_channels, in_channels, *kernel]; and the layers left dense."""
    weights, dense = _maskable(model, ignored, with_last=with_last)
    laid_out = {name: output_first(model.get_submodule(name), w) for name, w in weights.items()}
    given = {name: w.abs() for name, w in laid_out.items()} if scores is None else scores
    for name, weight in laid_out.items():
        found = tuple(given[name].shape) if name in given else "none"
        if found != tuple(weight.shape):
            raise InputError(f"scores of layer {name!r}: expected {tuple(weight.shape)}, found {found}", layer=name)
        if not bool(given[name].isfinite().all()):
            raise BuildError(f"layer {name!r}: the importance of its weights is not finite", layer=name)
    return {name: given[name] for name in laid_out}, dense


def _kept_of(
    scores: Mapping[str, Tensor], sparsity: float | Mapping[str, float], scope: Literal["global", "layer"]
) -> dict[str, Tensor]:
    """By layer, flat: True for what stays."""
    shares = sparsity if isinstance(sparsity, Mapping) else dict.fromkeys(scores, sparsity)
    for share in sparsity.values() if isinstance(sparsity, Mapping) else (sparsity,):
        if not 0 <= share <= 1:
            raise InputError(f"sparsity: expected a number from 0 to 1, got {share}")
    if unknown := sorted(set(shares) - set(scores)):
        raise InputError(f"sparsity: no layer {unknown[0]!r} may be masked{suggest(unknown[0], tuple(scores))}")
    if isinstance(sparsity, Mapping) or scope == "layer" or not scores:
        return {name: highest(s.flatten(), shares.get(name, 0.0)) for name, s in scores.items()}
    kept = highest(torch.cat([s.flatten() for s in scores.values()]), sparsity)
    return dict(zip(scores, torch.split(kept, [s.numel() for s in scores.values()]), strict=True))


def _stored(model: nn.Module, kept: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Masks as the layers store their weights."""
    return {name: output_first(model.get_submodule(name), k).contiguous() for name, k in kept.items()}


def _weight(model: nn.Module, name: str) -> Tensor:
    weight = model.get_submodule(name).weight
    if not isinstance(weight, torch.Tensor):
        raise BuildError(f"layer {name!r}: its weight is no tensor", layer=name)
    return weight.detach()
