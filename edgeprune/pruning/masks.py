"""Unstructured, N:M and block pruning: single weights held at zero while the rest is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import inf
from typing import TYPE_CHECKING, Final, Literal, Self

import torch

from edgeprune.errors import BuildError, InputError
from edgeprune.graph.slicing import output_first
from edgeprune.pruning.maskable import Maskable
from edgeprune.registry import suggest
from edgeprune.zero_masks import block_sums, highest, n_of_m, of_blocks
from edgeprune.zero_patterns import ZeroPattern

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerSparsity:
    """Zeros in one layer's weights, as a share in [0, 1]; 0 for a layer that was left dense."""

    layer: str
    weights: int
    sparsity: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """How zeros are spread over the layers.

    Attributes:
        scope: `global` ranks the weights of all layers together, `layer` gives each layer the same share.
        shares: layers with a share of their own, in [0, 1], that are ranked by themselves.
    """

    scope: Literal["global", "layer"] = "global"
    shares: Mapping[str, float] = field(default_factory=dict)


GLOBAL: Final = Spread()


class WeightMasks:
    """Which weights of a model must be zero.

    Made by `unstructured`, `n_m` or `blocks`; the model is changed by `apply_` only. All three take the layers that
    `find_maskable` found, and scores by layer, as a criterion gives them for these (each [out_channels, in_channels,
    *kernel]); layers without stay dense. Without any scores, the weights' magnitudes are taken. Masks that are made
    after others of the same model keep their zeros: those go first, whatever the scores say, so that no weight comes
    back in the place of another.

    Attributes:
        left_dense: layers with no zeros to hold, with the reasons.
    """

    def __init__(self, model: nn.Module, kept: dict[str, Tensor], maskable: Maskable) -> None:
        self._model = model
        self._kept = kept
        self._weighted = maskable.weighted
        self.left_dense = maskable.left_dense

    @classmethod
    def unstructured(
        cls,
        model: nn.Module,
        maskable: Maskable,
        sparsity: float,
        *,
        scores: Mapping[str, Tensor] | None = None,
        spread: Spread = GLOBAL,
        after: WeightMasks | None = None,
    ) -> Self:
        """Mask the lowest scores.

        Args:
            model: whose weights are held by the other methods.
            maskable: which layers; the others stay dense.
            sparsity: share of their weights to zero, in [0, 1]; met exactly, rounded to a whole weight. Layers with a
                share of their own are not counted.
            scores: by layer.
            spread: over the layers.
            after: the masks of before, whose zeros stay as far as there are so many.

        Raises:
            InputError: a sparsity out of range, a share of a layer that may not be masked, or scores that do not fit.
            BuildError: scores that are not finite.
        """
        maskable = _with_scores(maskable, scores)
        found = _scored(model, maskable, scores, after)
        kept = _kept_of(found, sparsity, spread)
        return cls(model, _stored(model, {n: k.reshape(found[n].shape) for n, k in kept.items()}), maskable)

    @classmethod
    def n_m(
        cls,
        model: nn.Module,
        maskable: Maskable,
        n: int,
        m: int,
        *,
        scores: Mapping[str, Tensor] | None = None,
        after: WeightMasks | None = None,
    ) -> Self:
        """Keep the `n` highest scores of every `m` consecutive weights along the input channels.

        The weights of one output channel are taken in the order [*kernel, in_channels], as channels-last kernels read
        them. Layers where that length is no multiple of `m` are left dense.

        Raises:
            InputError: not 0 < n <= m, or scores that do not fit.
            BuildError: scores that are not finite.
        """
        if not 0 < n <= m:
            raise InputError(f"N:M sparsity: expected 0 < N <= M, got {n}:{m}")
        maskable = _with_scores(maskable, scores)
        found, pattern = _scored(model, maskable, scores, after), ZeroPattern(n_m=(n, m))
        uneven = {
            name: f"its {s[0].numel()} weights an output are no multiple of {m}"
            for name, s in found.items()
            if not pattern.fits(len(s), s[0].numel())
        }
        kept = {name: n_of_m(s, n, m) for name, s in found.items() if name not in uneven}
        return cls(model, _stored(model, kept), maskable.without(uneven))

    @classmethod
    def blocks(
        cls,
        model: nn.Module,
        maskable: Maskable,
        sparsity: float,
        shape: tuple[int, int],
        *,
        scores: Mapping[str, Tensor] | None = None,
        spread: Spread = GLOBAL,
        after: WeightMasks | None = None,
    ) -> Self:
        """Mask whole blocks of weights, those with the lowest sum of scores.

        A block is `shape` consecutive output channels times inputs, the inputs of an output channel in the order
        [*kernel, in_channels]: (1, 4) is four weights that one output reads one after the other, (4, 1) the weight that
        four outputs have for the same input. Layers that are no whole number of blocks are left dense.

        Args:
            model: whose weights are held by the other methods.
            maskable: which layers; the others stay dense.
            sparsity: share of the blocks to zero, in [0, 1]; met exactly, rounded to a whole block where all layers
                have blocks of the same size.
            shape: (output channels, inputs), each at least 1.
            scores: by layer.
            spread: over the layers.
            after: the masks of before, made of the same blocks.

        Raises:
            InputError: a sparsity or shape out of range, a share of a layer that may not be masked, or scores that do
                not fit.
            BuildError: scores that are not finite.
        """
        if min(shape) < 1:
            raise InputError(f"block sparsity: expected a shape of at least 1x1, got {shape[0]}x{shape[1]}")
        maskable = _with_scores(maskable, scores)
        found, pattern = _scored(model, maskable, scores, after), ZeroPattern(block=shape)
        reason = f"its weights are no whole number of {shape[0]}x{shape[1]} blocks"
        uneven = {n: reason for n, s in found.items() if not pattern.fits(len(s), s[0].numel())}
        even = {n: s for n, s in found.items() if n not in uneven}
        spread = replace(spread, shares={n: share for n, share in spread.shares.items() if n not in uneven})
        kept = _kept_of({n: block_sums(s, shape) for n, s in even.items()}, sparsity, spread)
        masks = {n: of_blocks(kept[n], s.shape, shape) for n, s in even.items()}
        return cls(model, _stored(model, masks), maskable.without(uneven))

    @property
    def model(self) -> nn.Module:
        """Whose weights are held."""
        return self._model

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
        """Zero the masked weights one last time, and hold them no longer; that they held so far `verify` finds."""
        self.apply_()
        self._kept = {}

    def sparsities(self) -> tuple[LayerSparsity, ...]:
        """Masked share of each layer with weights, in the model's order; those that are left dense are among them."""
        return tuple(
            LayerSparsity(layer=x.layer, weights=x.weights, sparsity=self._share(x.layer)) for x in self._weighted
        )

    @property
    def sparsity(self) -> float:
        """Masked share of all weights of the model but biases and norms, those left dense included."""
        layers = self.sparsities()
        total = sum(x.weights for x in layers)
        return sum(x.sparsity * x.weights for x in layers) / total if total else 0.0

    def _share(self, name: str) -> float:
        kept = self._kept.get(name)
        return 0.0 if kept is None else 1.0 - int(kept.count_nonzero()) / kept.numel()


def _with_scores(maskable: Maskable, scores: Mapping[str, Tensor] | None) -> Maskable:
    """The same without the layers that have no scores; a misspelt name must not leave one dense in silence."""
    if scores is None:
        return maskable
    known = tuple(x.layer for x in maskable.weighted)
    if unknown := sorted(set(scores) - set(known)):
        raise InputError(f"scores: no layer {unknown[0]!r} has weights{suggest(unknown[0], known)}", layer=unknown[0])
    return maskable.scored_by(scores)


def _scored(
    model: nn.Module, maskable: Maskable, scores: Mapping[str, Tensor] | None, after: WeightMasks | None
) -> dict[str, Tensor]:
    """Scores of the weights that may be masked, [out_channels, in_channels, *kernel]; of what is zero, the least."""
    before = {} if after is None else after.kept
    found: dict[str, Tensor] = {}
    for name in maskable.layers:
        layer = model.get_submodule(name)
        weight = output_first(layer, _weight(model, name))
        given = weight.abs() if scores is None else scores[name]
        if given.shape != weight.shape:
            expected, found_shape = tuple(weight.shape), tuple(given.shape)
            raise InputError(f"scores of layer {name!r}: expected {expected}, found {found_shape}", layer=name)
        if not bool(given.isfinite().all()):
            raise BuildError(f"layer {name!r}: the importance of its weights is not finite", layer=name)
        # A criterion may give a zero 0, and a weight that it would rather lose less than that.
        found[name] = given.masked_fill(~output_first(layer, before[name]), -inf) if name in before else given
    return found


def _kept_of(scores: Mapping[str, Tensor], sparsity: float, spread: Spread) -> dict[str, Tensor]:
    """By layer, flat: True for what stays."""
    for share in (sparsity, *spread.shares.values()):
        if not 0 <= share <= 1:
            raise InputError(f"sparsity: expected a number from 0 to 1, got {share}")
    if unknown := sorted(set(spread.shares) - set(scores)):
        raise InputError(f"sparsity: no layer {unknown[0]!r} may be masked{suggest(unknown[0], tuple(scores))}")
    if spread.scope == "layer":
        return {name: highest(s.flatten(), spread.shares.get(name, sparsity)) for name, s in scores.items()}
    alone = {name: highest(scores[name].flatten(), share) for name, share in spread.shares.items()}
    rest = {name: s for name, s in scores.items() if name not in alone}
    if not rest:
        return alone
    kept = highest(torch.cat([s.flatten() for s in rest.values()]), sparsity)
    return {**alone, **dict(zip(rest, torch.split(kept, [s.numel() for s in rest.values()]), strict=True))}


def _stored(model: nn.Module, kept: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Masks as the layers store their weights."""
    return {name: output_first(model.get_submodule(name), k).contiguous() for name, k in kept.items()}


def _weight(model: nn.Module, name: str) -> Tensor:
    weight = model.get_submodule(name).weight
    if not isinstance(weight, torch.Tensor):
        raise BuildError(f"layer {name!r}: its weight is no tensor", layer=name)
    return weight.detach()
