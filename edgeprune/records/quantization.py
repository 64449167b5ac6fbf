"""How an artifact was quantized, and what was tried before."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

SMOOTHING = 0.5
"""How much of the activations' difficulty moves into the weights: alpha of SmoothQuant, section 4, arXiv:2211.10438."""


class Calibration(StrEnum):
    """How an activation's range is taken from the calibration samples.

    `DEFAULT` is the scheme's own: the mean of the samples' ranges with NNCF, the widest range for TFLite.
    """

    DEFAULT = "default"
    MIN_MAX = "min_max"
    PERCENTILE = "percentile"
    ENTROPY = "entropy"
    SQUARED_ERROR = "squared_error"


class BiasCorrection(StrEnum):
    """Whether biases make up for what rounded weights shift.

    `DEFAULT` is the scheme's own: NNCF corrects each layer by itself, for TFLite none is done. `SEQUENTIAL` corrects
    layer by layer, each fed by those that were quantized and corrected before it.
    """

    DEFAULT = "default"
    OFF = "off"
    SEQUENTIAL = "sequential"


class Preparation(StrEnum):
    """What is done to the torch model before it is compiled, so that it bears rounding better."""

    EQUALIZE = "equalize"
    SMOOTH = "smooth"
    CORRECT_BIAS = "correct_bias"


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizationVariant:
    """One way to quantize a float32 model.

    Attributes:
        percentile: share of an activation's values within its range, in percent; for `Calibration.PERCENTILE` only.
        equalized: ranges of neighbouring layers' channels are evened out before (cross-layer equalization).
        smoothing: alpha of SmoothQuant, in [0, 1]; None leaves it to the scheme: NNCF smooths nets with attention by
            itself (alpha 0.95), so that their default is not without it.
        float_layers: layers that stay in float32, as the float32 file names them.
        float_modules: modules of the torch model that these layers are, as far as that is known: they are not rounded
            in training.
        weight_only_bits: weights alone are stored so, 16 being float16; None quantizes activations as well.
        dynamic: with weights alone: activations are quantized while it runs, by the range of each input.
        qat_epochs: epochs of training with rounding in the forward pass before; 0 for none.
    """

    calibration: Calibration = Calibration.DEFAULT
    percentile: float = 99.99
    bias_correction: BiasCorrection = BiasCorrection.DEFAULT
    equalized: bool = False
    smoothing: float | None = None
    float_layers: tuple[str, ...] = ()
    float_modules: tuple[str, ...] = ()
    weight_only_bits: Literal[4, 8, 16] | None = None
    dynamic: bool = False
    qat_epochs: int = 0

    @property
    def name(self) -> str:
        """Short, unique and fit for a folder: `default`, `entropy`, `min_max-equalized-float2x3f9a1c`, `weights8`."""
        parts: list[str] = []
        if self.qat_epochs:
            parts.append(f"qat{self.qat_epochs}")
        if self.calibration is Calibration.PERCENTILE:
            parts.append(f"percentile{self.percentile:g}")
        elif self.calibration is not Calibration.DEFAULT:
            parts.append(self.calibration.value)
        if self.bias_correction is not BiasCorrection.DEFAULT:
            parts.append({"off": "uncorrected", "sequential": "corrected"}[self.bias_correction])
        if self.equalized:
            parts.append("equalized")
        if self.smoothing is not None:
            parts.append(f"smooth{100 * self.smoothing:g}")
        if self.weight_only_bits is not None:
            parts.append(f"{'dynamic' if self.dynamic else 'weights'}{self.weight_only_bits}")
        if self.float_layers:
            named = hashlib.sha256("\n".join(self.float_layers).encode()).hexdigest()[:6]
            parts.append(f"float{len(self.float_layers)}x{named}")
        return "-".join(parts) or "default"


DEFAULT_VARIANT = QuantizationVariant()
HALF_WEIGHTS = QuantizationVariant(weight_only_bits=16)
"""How files of `Precision.FLOAT32_W16` are made from float32 ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantTrial:
    """One variant that was tried on a candidate.

    Attributes:
        accuracy: what the target's metric says of the compiled artifact on the validation split, in the metric's own
            unit; None where it could not be made.
        error: standard error of what that differs by from its float model's, example by example.
        is_share: whether the metric lies in [0, 1] and is told in percent.
        higher_is_better: the metric's direction.
        meets_floors: whether every accuracy floor holds.
        p50_ms: a quick look on the device, at the pace that it had for the plan; None where it was not looked at.
        over: what of the budget it breaks; empty where it fits.
        reason: why it could not be made; empty where it was.
    """

    variant: QuantizationVariant
    accuracy: float | None = None
    error: float = 0.0
    is_share: bool = True
    higher_is_better: bool = True
    meets_floors: bool = False
    p50_ms: float | None = None
    artifact_bytes: int | None = None
    over: str = ""
    reason: str = ""

    @property
    def quality(self) -> float:
        """The higher, the better: accuracy, negative where lower is better; minus infinity where it was not made."""
        if self.accuracy is None:
            return -math.inf
        return self.accuracy if self.higher_is_better else -self.accuracy

    @property
    def told(self) -> str:
        """Its accuracy as text: `91.20 %`, or `0.4661`; empty where it was not made."""
        if self.accuracy is None:
            return ""
        return f"{100 * self.accuracy:.2f} %" if self.is_share else f"{self.accuracy:.4g}"

    @property
    def summary(self) -> str:
        """In a line: `validation accuracy 91.20 %, p50 0.412 ms`, or why it could not be made."""
        if self.accuracy is None:
            return self.reason
        latency = "" if self.p50_ms is None else f", p50 {self.p50_ms:.3f} ms"
        return f"validation accuracy {self.told}{latency}" + (f", {self.over}" if self.over else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantSearch:
    """Which variants were tried on a candidate, in order, and which one was taken.

    Attributes:
        trials: none where the target fixes the variant.
        why: what was wrong with the scheme's default, which is the first trial; or who fixed the variant.
    """

    trials: tuple[VariantTrial, ...]
    chosen: QuantizationVariant
    why: str
