"""Sections of `target.toml`: what is pruned and by what, and how INT8 is made."""

from __future__ import annotations

from typing import Annotated, Literal, Self, get_args

from pydantic import Field, model_validator

from edgeprune.schema.base import FileModel, Share
from edgeprune.schema.profile import Positive

_REFITS = "obc"


class Pruning(FileModel):
    """What may be cut, and in which steps."""

    criterion: str = "l2"
    """Which channels go first: a file of `edgeprune/pruning/criteria` that scores channels."""
    weight_criterion: str = "lamp"
    """Which single weights go first in mask rungs: a file of `edgeprune/pruning/criteria` that scores weights."""
    scoring_samples: Annotated[int, Field(ge=16)] = 1024
    """Examples that criteria and `reconstruct` look at, taken from the training split, at a fixed seed."""
    reconstruct: bool | None = None
    """Whether the weights that are left are refitted after each cut, so that layers give what they gave before; by
    default with the criterion `obc` alone, which is of that method."""
    ratios: Annotated[tuple[Share, ...], Field(min_length=1)] = (0.25, 0.375, 0.5, 0.625, 0.75)
    """No group loses more than the largest of these shares; sensitivity is probed at the first, middle and last."""
    selection: Literal["planner", "uniform", "global", "sensitivity", "told"] = "planner"
    """Who chooses the widths of structured rungs: the planner, by what each costs and loses; or, to compare, a rule, at
    the least share of channels that meets the limits and with all blocks: the same share of every group, the lowest
    scores of all groups, or what makes every group lose the same; or `told`, the shares of `group_ratios`."""
    group_ratios: dict[str, Share] = Field(default_factory=dict)
    """With the selection `told`, shares of channels to take out of groups, by the names that `edgeprune target check`
    lists; `*` is a wildcard, the first name that matches counts, and the others keep their width."""
    sparsities: Annotated[tuple[Share, ...], Field(min_length=1)] = (0.5, 0.7, 0.9)
    """Shares of weights to zero, one mask rung each (and for each shape of blocks), where the device's kernels can use
    it."""
    mask_scope: Literal["global", "layer", "sensitivity"] = "global"
    """Whether a mask rung ranks the weights or blocks of all layers together, zeros the same share of each, or zeros
    what makes each lose the same on validation data. N:M has one share in any case."""
    layer_sparsities: dict[str, Share] = Field(default_factory=dict)
    """Shares of zeros that single layers have in mask rungs but those of N:M, by name; `*` is a wildcard, and the first
    name that matches counts. The other layers have the rung's share."""
    classifier: bool = False
    """Whether masks may zero weights of the layers that make the model's output. Their channels are never cut."""
    ignored: tuple[str, ...] = ()
    """Layers that must keep their width and all their weights, by name; `*` is a wildcard."""
    embeddings: bool = False
    """Whether the features of embeddings may be cut, and with them the stream that all layers of a transformer read; a
    parameter whose rows the input picks by number is an embedding too."""
    blocks: bool = True
    """Whether whole residual blocks and transformer layers may be removed."""

    @property
    def refits_channels(self) -> bool:
        """Whether weights are refitted after channels were cut."""
        return self.criterion == _REFITS if self.reconstruct is None else self.reconstruct

    @property
    def refits_weights(self) -> bool:
        """Whether weights are refitted after single ones became zero."""
        return self.weight_criterion == _REFITS if self.reconstruct is None else self.reconstruct

    @model_validator(mode="after")
    def _told(self) -> Self:
        if (self.selection == "told") != bool(self.group_ratios):
            raise ValueError('group_ratios with selection = "told", and not without')
        if self.group_ratios and max(self.group_ratios.values()) > self.ratios[-1]:
            raise ValueError(f"group_ratios of at most {self.ratios[-1]:g}, the largest of ratios")
        return self

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        if list(self.ratios) != sorted(set(self.ratios)):
            raise ValueError("ratios in ascending order, each once")
        if list(self.sparsities) != sorted(set(self.sparsities)):
            raise ValueError("sparsities in ascending order, each once")
        return self


Quantizer = Literal[
    "min_max",
    "percentile",
    "entropy",
    "squared_error",
    "bias_correction",
    "equalization",
    "smoothing",
    "mixed_precision",
    "weights8",
    "dynamic8",
    "weights4",
    "weights16",
    "qat",
]


_WEIGHTS_ALONE = frozenset({"weights8", "dynamic8", "weights4", "weights16"})
_RANGES = frozenset({"min_max", "percentile", "entropy", "squared_error"})


class Quantization(FileModel):
    """INT8, and what is tried where its default loses too much."""

    calibration_samples: Annotated[int, Field(ge=16)] = 256
    """Taken from the training split, at a fixed seed."""
    fixed: tuple[Quantizer, ...] = ()
    """How INT8 artifacts are quantized, all of these together, in the place of each quantizer's default; at most one
    way to take ranges, weights alone (`weights8` and the like) by themselves, and not `mixed_precision`, which is found
    by trying. Nothing else is tried then."""
    variants: tuple[Quantizer, ...] = get_args(Quantizer)
    """What is tried where the default INT8 artifact misses an accuracy floor or drops too far; empty for nothing."""
    tolerated_drop_points: Annotated[float, Field(ge=0, le=100)] = 1.0
    """Percentage points under its float model that the default INT8 artifact may lose before others are tried."""
    tolerated_worsening: Annotated[float, Field(ge=0)] | None = None
    """The same for a metric that is no share, in its own unit; by default a quarter of what lies between the float
    model and the floor that `[accuracy]` sets."""
    percentile: Annotated[float, Field(gt=50, le=100)] = 99.99
    """Percent of an activation's values that its range holds, for the variant of that name."""
    smoothing: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Alpha of SmoothQuant: how much of what is hard to quantize moves from activations into weights."""
    max_float_share: Annotated[float, Field(gt=0, le=1)] = 0.25
    """Of the layers with weights: so many stay in float32, at most, in mixed precision."""
    qat_epochs: Annotated[int, Field(ge=1)] = 2
    """Of training with INT8 rounding in the forward pass, for the variant `qat` and for `order`."""
    qat_learning_rate: Positive | None = None
    """Peak; by default a tenth of the recovery's."""
    order: Literal["prune_first", "quantize_first"] = "prune_first"
    """`quantize_first`, for comparison: for INT8 rungs rounding is trained before the first cut, and goes on during
    recovery."""

    @model_validator(mode="after")
    def _fixed_is_one_way(self) -> Self:
        if len(set(self.fixed)) < len(self.fixed) or len(_RANGES.intersection(self.fixed)) > 1:
            raise ValueError(f"fixed with each word once, and at most one of {', '.join(sorted(_RANGES))}")
        if "mixed_precision" in self.fixed:
            raise ValueError("fixed without mixed_precision: which layers stay in float is found by trying")
        if len(self.fixed) > 1 and _WEIGHTS_ALONE.intersection(self.fixed):
            raise ValueError(f"fixed with nothing beside {', '.join(sorted(_WEIGHTS_ALONE.intersection(self.fixed)))}")
        if self.order == "quantize_first" and _WEIGHTS_ALONE.intersection(self.fixed):
            raise ValueError('order = "prune_first" with weights alone: their activations are not rounded')
        if self.fixed and "variants" in self.model_fields_set:
            raise ValueError("fixed or variants, not both: with fixed nothing else is tried")
        return self
