"""Masks of the dense model: how zeros are spread over its layers, and what they cost before any recovery.

By sensitivity (`pruning.mask_scope`), one layer gets zeros, by the target's criterion and in the rung's pattern, all
others none; nothing is trained, and batch norms are re-estimated, as for channels (`steps/sensitivity.py`). A layer's
curve does not depend on how many zeros a rung has: all rungs of one pattern share it. Each is a step of its own.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

from edgeprune.pruning.maskable import Maskable
from edgeprune.pruning.masks import WeightMasks
from edgeprune.pruning.selection import sensitivity_shares
from edgeprune.records.rung import Rung
from edgeprune.records.sensitivity import CurvePoint, GroupCurve, LossIncrease, ZeroSpread
from edgeprune.steps.masking import MaskMaker
from edgeprune.steps.sensitivity import STAGE, SensitivityBench
from edgeprune.store.run_folder import digest

if TYPE_CHECKING:
    from torch import Tensor

    from edgeprune.steps.compressing import Compressor

PROBED = (0.5, 0.75, 0.9, 0.98)
"""Shares of zeros at which a layer is looked at; none gets more than the last, unless the rung as a whole does."""


@dataclass(frozen=True)
class DenseMasks:
    """Masks of one dense model, spread as the target says.

    Attributes:
        compressor: has the dense model.
    """

    compressor: Compressor
    _found: dict[object, ZeroSpread] = field(default_factory=dict, init=False, repr=False)
    _spreads: dict[Rung, ZeroSpread] = field(default_factory=dict, init=False, repr=False)

    @property
    def masker(self) -> MaskMaker:
        """Makes masks by the target's criterion; it asks `shares` where the target spreads zeros by sensitivity."""
        return replace(self._plain, shares=self.shares)

    def increase(self, rung: Rung) -> LossIncrease:
        """What the zeros of a mask rung cost the dense model, batch norms re-estimated as for a cut."""
        model = copy.deepcopy(self.compressor.dense_module)
        self.masker.masks(model, rung, rung.pruning_ratio).make_permanent()
        return self._bench.losses.settled_increase(model)

    def spread(self, rung: Rung) -> ZeroSpread:
        """How the zeros of a mask rung are spread; without layers where that does not follow from sensitivity."""
        if rung not in self._spreads:
            self.masker.masks(self.compressor.dense_module, rung, rung.pruning_ratio)
        return self._spreads.get(rung, ZeroSpread(curves=(), shares=()))

    def shares(self, rung: Rung, layers: Sequence[str]) -> Mapping[str, float]:
        """Zeros of each layer, so that the rung's share of their weights is zero and each loses the same.

        Args:
            rung: unstructured or of blocks.
            layers: that may have them. Those that no zero changes anything in, because the model never calls them, and
                those where blocks do not fit are left out.
        """
        key = rung.pattern, rung.pruning_ratio, tuple(layers)
        if key not in self._found and layers:
            curves = {curve.group: curve for curve in self._curves(rung, layers) if _matters(curve)}
            weights = {name: curve.width for name, curve in curves.items()}
            unit = math.prod(rung.block or (1,))

            def loss(layer: str, share: float) -> float:
                left = round(weights[layer] // unit * (1 - share)) * unit
                # A layer without any weight says nothing, whatever the point next to it lost.
                return curves[layer].loss_at(left) if left else math.inf

            most = max(rung.pruning_ratio, PROBED[-1])
            shares = sensitivity_shares(weights, loss, rung.pruning_ratio, most=most)
            found = ZeroSpread(curves=tuple(curves.values()), shares=tuple(shares[name] for name in curves))
            self._found[key] = found
            self.compressor.bench.note(f"{rung.pruning_name}: zeros by sensitivity: {found.summary}")
        if not layers:
            return {}
        self._spreads[rung] = self._found[key]
        return self._found[key].by_layer

    def _curves(self, rung: Rung, layers: Sequence[str]) -> list[GroupCurve]:
        with self._bench.counted(len(layers), "layers") as one_more:
            return [one_more(self._curve(rung, layer)) for layer in layers]

    def _curve(self, rung: Rung, layer: str) -> GroupCurve:
        """Its `group` is the layer, and its widths are weights that are left."""
        compressor, bench = self.compressor, self.compressor.bench
        pruning = bench.target.spec.pruning
        # Some criteria score a layer by what the others are.
        scored = (compressor.scorer.key, pruning.ignored, pruning.classifier)
        key = digest(compressor.dense.key, bench.data_key, layer, rung.block, PROBED, *scored)

        def make(_folder: object) -> GroupCurve:
            weights = self._scores[layer].numel()
            left: dict[int, WeightMasks] = {}
            for share in PROBED:
                masks = self._alone(rung, layer, share)
                left.setdefault(int(masks.kept[layer].count_nonzero()) if layer in masks.kept else weights, masks)
            points = tuple(self._point(width, left[width]) for width in sorted(left) if width < weights)
            return GroupCurve(group=layer, width=weights, points=points)

        kind = "zeros" if rung.block is None else f"block{rung.block[0]}x{rung.block[1]}"
        subject = f"{kind}-{pruning.weight_criterion}-{layer}"
        return bench.step(STAGE, subject, key, GroupCurve, make, _summary)

    def _alone(self, rung: Rung, layer: str, share: float) -> WeightMasks:
        model = copy.deepcopy(self.compressor.dense_module)
        alone = self._maskable.without({n: "another layer is looked at" for n in self._maskable.layers if n != layer})
        return self._plain.of_pattern(model, rung, alone, share, self._scores)

    def _point(self, left: int, masks: WeightMasks) -> CurvePoint:
        masks.make_permanent()
        found = self._bench.losses.settled_increase(masks.model)
        return CurvePoint(width=left, loss_increase=found.loss, accuracy=found.accuracy, error=found.error)

    @property
    def _plain(self) -> MaskMaker:
        return self.compressor.scorer.masker

    @cached_property
    def _bench(self) -> SensitivityBench:
        return SensitivityBench(self.compressor)

    @cached_property
    def _maskable(self) -> Maskable:
        return self._plain.all_maskable(self.compressor.dense_module)

    @cached_property
    def _scores(self) -> Mapping[str, Tensor]:
        """By layer, of the dense model; taken once for all curves."""
        return self._plain.score(self.compressor.dense_module, self._maskable.layers)


def _matters(curve: GroupCurve) -> bool:
    return any(point.loss_increase or point.error for point in curve.points)


def _summary(curve: GroupCurve) -> str:
    if not curve.points:
        return "no zeros fit"
    most = curve.points[0]
    return f"loss {most.loss_increase:+.3f} with {1 - most.width / curve.width:.0%} zeros"
