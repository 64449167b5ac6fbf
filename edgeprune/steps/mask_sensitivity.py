"""How much each layer minds zeros, and by that how many it gets (`pruning.mask_scope = "sensitivity"`).

One layer of the dense model gets zeros, by the target's criterion and in the rung's pattern, all others none; nothing
is trained, and batch norms are re-estimated, as for channels (`steps/sensitivity.py`). A layer's curve does not depend
on how many zeros a rung has, so that all rungs of one pattern share it. Each is a step of its own.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

from edgeprune.pruning.selection import sensitivity_shares
from edgeprune.records.rung import Rung
from edgeprune.records.sensitivity import CurvePoint, GroupCurve, LossIncrease
from edgeprune.steps.masking import MaskMaker
from edgeprune.steps.sensitivity import STAGE, SensitivityBench
from edgeprune.store.run_folder import digest

if TYPE_CHECKING:
    from torch import Tensor

    from edgeprune.steps.compressing import Compressor

PROBED = (0.5, 0.75, 0.9, 0.98)
"""Shares of zeros at which a layer is looked at; none gets more than the last, unless the rung as a whole does."""
_NAMED = 3


@dataclass(frozen=True)
class MaskSensitivity:
    """Masks of one dense model, spread as the target says.

    Attributes:
        compressor: has the dense model.
    """

    compressor: Compressor
    _found: dict[object, dict[str, float]] = field(default_factory=dict, init=False, repr=False)

    @property
    def masker(self) -> MaskMaker:
        """Makes masks by the target's criterion; it asks `shares` where the target spreads zeros by sensitivity."""
        return replace(self.compressor.scorer.masker, shares=self.shares)

    def increase(self, rung: Rung) -> LossIncrease:
        """What the zeros of a mask rung cost the dense model, batch norms re-estimated as for a cut."""
        model = copy.deepcopy(self.compressor.dense_module)
        self.masker.masks(model, rung, rung.pruning_ratio).make_permanent()
        return self._bench.settled_increase(model)

    def shares(self, rung: Rung, layers: Sequence[str]) -> Mapping[str, float]:
        """Zeros of each of these layers, so that the rung's share of their weights is zero and each loses the same.

        Args:
            rung: unstructured or of blocks.
            layers: that may have them.
        """
        key = rung.pattern, rung.pruning_ratio, tuple(layers)
        if key not in self._found:
            # Where blocks do not fit, none are zero, and the others' share is of the others.
            curves = {curve.group: curve for curve in self._curves(rung, layers) if curve.points}
            weights = {name: curve.width for name, curve in curves.items()}

            def loss(layer: str, share: float) -> float:
                return curves[layer].loss_at(round(weights[layer] * (1 - share)))

            most = max(rung.pruning_ratio, PROBED[-1])
            self._found[key] = sensitivity_shares(weights, loss, rung.pruning_ratio, most=most)
            self._tell(rung, self._found[key])
        return self._found[key]

    def _tell(self, rung: Rung, shares: Mapping[str, float]) -> None:
        ascending = [f"{share:.0%} of {name}" for name, share in sorted(shares.items(), key=lambda item: item[1])]
        if len(ascending) > 2 * _NAMED:
            ascending = [*ascending[:_NAMED], "...", *ascending[-_NAMED:]]
        self.compressor.bench.note(f"{rung.pruning_name}: zeros by sensitivity: {', '.join(ascending)}")

    def _curves(self, rung: Rung, layers: Sequence[str]) -> list[GroupCurve]:
        with self._bench.counted(len(layers), "layers") as one_more:
            return [one_more(self._curve(rung, layer)) for layer in layers]

    def _curve(self, rung: Rung, layer: str) -> GroupCurve:
        compressor, bench = self.compressor, self.compressor.bench
        parts = (compressor.dense.key, bench.data_key, layer, rung.block, PROBED, compressor.scorer.key)

        def make(_folder: object) -> GroupCurve:
            weights = self._scores[layer].numel()
            points = {p.width: p for p in (self._point(rung, layer, share) for share in PROBED) if p.width < weights}
            return GroupCurve(group=layer, width=weights, points=tuple(points[width] for width in sorted(points)))

        kind = "zeros" if rung.block is None else f"block{rung.block[0]}x{rung.block[1]}"
        return bench.step(STAGE, f"{kind}-{layer}", digest(*parts), GroupCurve, make, _summary)

    def _point(self, rung: Rung, layer: str, share: float) -> CurvePoint:
        model = copy.deepcopy(self.compressor.dense_module)
        masks = self.compressor.scorer.masker.of_layer(model, rung, layer, share, self._scores)
        left = int(masks.kept[layer].count_nonzero()) if layer in masks.kept else self._scores[layer].numel()
        masks.make_permanent()
        found = self._bench.settled_increase(model)
        return CurvePoint(width=left, loss_increase=found.loss, accuracy=found.accuracy, error=found.error)

    @cached_property
    def _bench(self) -> SensitivityBench:
        return SensitivityBench(self.compressor)

    @cached_property
    def _scores(self) -> Mapping[str, Tensor]:
        """By layer, of the dense model; taken once for all curves."""
        return self.compressor.scorer.masker.all_scores(self.compressor.dense_module)


def _summary(curve: GroupCurve) -> str:
    if not curve.points:
        return "too small for zeros"
    most = curve.points[0]
    return f"loss {most.loss_increase:+.3f} with {1 - most.width / curve.width:.0%} zeros"
