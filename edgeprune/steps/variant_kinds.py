"""From the words that a target has for ways to quantize to what they change."""

from __future__ import annotations

from dataclasses import replace

from edgeprune.records.quantization import DEFAULT_VARIANT, BiasCorrection, Calibration, QuantizationVariant
from edgeprune.schema.compression import Quantization, Quantizer


def fixed_variant(spec: Quantization) -> QuantizationVariant | None:
    """What the target fixes for all its INT8 artifacts; None where it fixes nothing."""
    variant = DEFAULT_VARIANT
    for kind in spec.fixed:
        variant = changed(variant, kind, spec)
    return variant if spec.fixed else None


def shape_variant(spec: Quantization) -> QuantizationVariant:
    """How INT8 is made of untrained shapes: weights alone run by other kernels, all else as long as the default.

    Ranges and corrected biases change no kernel, and to take them for each shape would cost minutes.
    """
    fixed = fixed_variant(spec)
    return fixed if fixed is not None and fixed.weight_only_bits is not None else DEFAULT_VARIANT


def changed(best: QuantizationVariant, kind: Quantizer, spec: Quantization) -> QuantizationVariant:
    """The best variant so far with one thing changed; weights alone start anew, because ranges mean nothing to them."""
    made: dict[Quantizer, QuantizationVariant] = {
        "bias_correction": replace(best, bias_correction=BiasCorrection.SEQUENTIAL),
        "equalization": replace(best, equalized=True),
        "smoothing": replace(best, smoothing=spec.smoothing),
        "weights8": QuantizationVariant(weight_only_bits=8),
        "dynamic8": QuantizationVariant(weight_only_bits=8, dynamic=True),
        "weights4": QuantizationVariant(weight_only_bits=4),
        "weights16": QuantizationVariant(weight_only_bits=16),
        "qat": replace(best, qat_epochs=spec.qat_epochs),
    }
    return made.get(kind) or replace(best, calibration=Calibration(kind), percentile=spec.percentile)
