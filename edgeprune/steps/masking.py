"""The masks of a mask rung: over the layers whose zeros its runtime's kernels skip, as the target says."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edgeprune.errors import BuildError, InputError
from edgeprune.graph.names import match_layers
from edgeprune.graph.slicing import output_first
from edgeprune.pruning.criteria import CRITERIA
from edgeprune.pruning.maskable import MAKES_OUTPUT, Maskable, WeightedLayer, find_maskable
from edgeprune.pruning.masks import GLOBAL, Spread, WeightMasks
from edgeprune.pruning.scoring import weight_scores
from edgeprune.records.rung import Rung
from edgeprune.records.sparsity import SparsePath
from edgeprune.runtimes import RUNTIMES
from edgeprune.schema.compression import Pruning
from edgeprune.store.run_folder import digest
from edgeprune.zero_patterns import ZeroPattern

if TYPE_CHECKING:
    from torch import Tensor, nn

_NAMED = 3
_ROUNDING = 1e-6


def lamp_scores(model: nn.Module, layers: Sequence[str]) -> Mapping[str, Tensor]:
    """What shapes are masked by: no data, and the scale of a layer does not count."""
    return weight_scores(model, layers, CRITERIA.get("lamp"))


@dataclass(frozen=True)
class MaskMaker:
    """Makes the masks of a target's models, and says what they leave out.

    Attributes:
        example: one input of the model, with its batch dimension.
        pruning: of the target.
        score: of (model, layers): the weights' scores; layers without stay dense.
        shares: of (rung, layers): zeros of each by sensitivity, where the target spreads them so. Without, as for
            shapes, whose weights mean nothing, all layers are ranked together.
    """

    example: Tensor
    pruning: Pruning
    score: Callable[[nn.Module, Sequence[str]], Mapping[str, Tensor]] = lamp_scores
    shares: Callable[[Rung, Sequence[str]], Mapping[str, float]] | None = None

    @property
    def key(self) -> str:
        """Digest of what decides where zeros go, beside the model and its scores."""
        pruning = self.pruning
        return digest(pruning.ignored, pruning.classifier, pruning.mask_scope, list(pruning.layer_sparsities.items()))

    def masks(self, model: nn.Module, rung: Rung, sparsity: float, *, after: WeightMasks | None = None) -> WeightMasks:
        """The masks of a mask rung, or of a round on the way to it.

        Args:
            model: looked at, and held by the masks.
            rung: its runtime, pattern and final share.
            sparsity: share of zeros in the layers that may be masked, in [0, 1], as far as whole weights of every M
                have it. Layers with a share of their own, which N:M knows none of, get as much of it.
            after: the masks of the round before, whose zeros stay.

        Raises:
            InputError: a name in the target matches no layer, or none that may be masked.
            BuildError: no layer at all may be masked.
        """
        maskable = self.maskable(model, rung)
        if not maskable.layers:
            raise BuildError(f"{rung.name}: no layer may be masked: {told(maskable.left_dense)}")
        masks = self._masks(model, rung, maskable, sparsity, after)
        if not masks.kept:
            raise BuildError(f"{rung.name}: no layer may be masked: {told(masks.left_dense)}")
        return masks

    def _masks(
        self, model: nn.Module, rung: Rung, maskable: Maskable, sparsity: float, after: WeightMasks | None
    ) -> WeightMasks:
        scores = self.score(model, maskable.layers)
        maskable = maskable.scored_by(scores)
        progress = sparsity / rung.pruning_ratio
        own = self._own_shares(model, maskable)
        if rung.n_m is not None:
            kept, of = rung.n_m
            # On the way more of each stay; a share that falls short of one weight by rounding is that weight.
            kept = of - int(progress * (of - kept) + _ROUNDING)
            return WeightMasks.n_m(model, maskable, kept, of, scores=scores, after=after)
        spread = self._spread(rung, maskable, own)
        spread = replace(spread, shares={n: progress * share for n, share in spread.shares.items()})
        return self.of_pattern(model, rung, maskable, sparsity, scores, spread, after)

    def _spread(self, rung: Rung, maskable: Maskable, own: Mapping[str, float]) -> Spread:
        """In the end; `own` is what the target says of single layers."""
        if self.pruning.mask_scope != "sensitivity":
            return Spread(scope=self.pruning.mask_scope, shares=own)
        rest = [name for name in maskable.layers if name not in own]
        found = self.shares(rung, rest) if self.shares is not None else {}
        return Spread(scope="global", shares={**found, **own})

    @staticmethod
    def of_pattern(
        model: nn.Module,
        rung: Rung,
        maskable: Maskable,
        sparsity: float,
        scores: Mapping[str, Tensor],
        spread: Spread = GLOBAL,
        after: WeightMasks | None = None,
    ) -> WeightMasks:
        """Masks of a rung that is unstructured or of blocks; the other arguments are those of `WeightMasks`."""
        if rung.block is not None:
            return WeightMasks.blocks(model, maskable, sparsity, rung.block, scores=scores, spread=spread, after=after)
        return WeightMasks.unstructured(model, maskable, sparsity, scores=scores, spread=spread, after=after)

    def all_maskable(self, model: nn.Module) -> Maskable:
        """The layers that may be masked, whatever a runtime's kernels skip."""
        return find_maskable(model, self.example, self.pruning.ignored, classifier=self.pruning.classifier)

    def maskable(self, model: nn.Module, rung: Rung) -> Maskable:
        """The layers whose zeros are worth it.

        Where the runtime has sparse kernels, zeros in layers that these do not skip would cost accuracy and buy
        nothing. Without sparse kernels, it is every layer that may be masked.
        """
        found = self.all_maskable(model)
        form = RUNTIMES.get(rung.runtime).sparse_form()
        if form is None:
            return found
        reason = f"no sparse kernel of {rung.runtime} skips its zeros"
        return found.without({n: reason for n in found.layers if not form.skips(model.get_submodule(n))})

    def reasons(self, model: nn.Module, rung: Rung, path: SparsePath) -> tuple[str, ...]:
        """Why a runtime's sparse kernels do not run a masked model's file, with the key that would mend it.

        Args:
            model: the one that was compiled.
            rung: a mask rung.
            path: what the runtime's rule says of the file.
        """
        form = RUNTIMES.get(rung.runtime).sparse_form()
        if not path.missing_zeros or form is None:
            return path.reasons
        left = [
            x
            for x in self.maskable(model, rung).left_dense
            if x.reason == MAKES_OUTPUT and form.skips(model.get_submodule(x.layer)) and _fits(rung, model, x.layer)
        ]
        weights = sum(x.weights for x in left)
        if round(rung.pruning_ratio * weights) < path.missing_zeros:
            return path.reasons
        hint = (
            f"{', '.join(x.layer for x in left)} with {weights:,} weights is left dense because it makes the model's "
            f"output, and {rung.pruning_ratio:.0%} zeros there would be enough: set pruning.classifier = true"
        )
        return (*path.reasons, hint)

    def _own_shares(self, model: nn.Module, maskable: Maskable) -> dict[str, float]:
        """By layer, what the target says of it; the first pattern that matches counts."""
        found: dict[str, float] = {}
        dense = {x.layer: x.reason for x in maskable.left_dense}
        for pattern, share in self.pruning.layer_sparsities.items():
            matches = match_layers(model, [pattern], key="pruning.layer_sparsities")
            held = [n for n in dense if n in matches and dense[n] == MAKES_OUTPUT]
            if held and not matches.intersection(maskable.layers):
                raise InputError(
                    f"pruning.layer_sparsities: {pattern!r} asks for zeros in {held[0]!r}, but {dense[held[0]]}",
                    name=pattern,
                )
            found = {**{n: share for n in maskable.layers if n in matches}, **found}
        return found


def _fits(rung: Rung, model: nn.Module, layer: str) -> bool:
    """Whether a layer's weights can have a rung's pattern of zeros."""
    found = model.get_submodule(layer)
    weight = output_first(found, found.weight)  # type: ignore[arg-type]
    return ZeroPattern(n_m=rung.n_m, block=rung.block).fits(len(weight), weight[0].numel())


def told(left_dense: Sequence[WeightedLayer]) -> str:
    """Which layers masks leave alone and why, in one line; of many for the same reason the first ones."""
    by_reason: dict[str, list[str]] = {}
    for layer in left_dense:
        by_reason.setdefault(layer.reason, []).append(layer.layer or "the model's own")
    parts = []
    for reason, layers in by_reason.items():
        more = f" and {len(layers) - _NAMED} more" if len(layers) > _NAMED else ""
        parts.append(f"{', '.join(layers[:_NAMED])}{more} ({reason})")
    return "; ".join(parts)
