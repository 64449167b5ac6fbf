"""Outputs of a model, and how those of a compiled artifact agree with torch's, through the preprocessing that ships."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgeprune.data.parts import mapped, outputs_of, parts_of
from edgeprune.errors import InputError
from edgeprune.graph.modes import evaluating
from edgeprune.protocols import Arrays
from edgeprune.records.artifact import Parity
from edgeprune.records.rung import Precision
from edgeprune.steps.task import Task

if TYPE_CHECKING:
    from torch import nn

FLOAT_PARITY = 1e-3
"""Largest relative error of a float32 artifact against torch."""

HALF_WEIGHTS_PARITY = 2e-2
"""The same where weights are stored in float16, each off by 2^-11 of itself at most: so much would 40 layers add up to
if all that rounding pointed one way. A residual net was off by 3e-4; a file of other weights, or weights that float16
cannot hold, are off by far more."""

INT8_AGREEMENT = 0.99
"""Least share of samples where an INT8 artifact and torch have the same arg max."""

INT8_NOISE = 0.1
"""Largest noise of an INT8 artifact's outputs that are no class scores: a tenth of what the outputs vary by, 20 dB."""

_LARGEST_ERROR = {Precision.FLOAT32: FLOAT_PARITY, Precision.FLOAT32_W16: HALF_WEIGHTS_PARITY}
_BATCH = 256


@dataclass(frozen=True, slots=True, eq=False)
class QualityOn:
    """The target's metric on fixed examples, as a `Validate` for training.

    Attributes:
        task: has the metric.
        inputs: [examples, ...], preprocessed.
        labels: of the same examples.
    """

    task: Task
    inputs: np.ndarray
    labels: Arrays

    def __call__(self, model: nn.Module) -> float:
        """The metric's mean, negative where lower is better."""
        return self.task.quality(torch_outputs(model, self.inputs), self.labels)

    def told(self, quality: float) -> str:
        """The metric's name and mean."""
        metric = self.task.metric
        value = quality if metric.higher_is_better else -quality
        return f"{self.task.name} {100 * value:.2f} %" if metric.is_share else f"{self.task.name} {value:.4g}"


def torch_outputs(model: nn.Module, inputs: np.ndarray) -> Arrays:
    """Outputs of a torch model in evaluation mode, float32; a tuple where it has several.

    Args:
        model: left as it was.
        inputs: [examples, ...], preprocessed.

    Raises:
        InputError: it returns something else than tensors with the examples first.
    """
    import torch

    with evaluating(model), torch.inference_mode():
        parts = [
            parts_of(outputs_of(model(torch.from_numpy(inputs[start : start + _BATCH]))))
            for start in range(0, len(inputs), _BATCH)
        ]
    if any(part.dim() == 0 for found in parts for part in found):
        raise InputError("expected outputs with the examples first, got a single number")
    joined = tuple(np.concatenate([part.numpy() for part in found]) for found in zip(*parts, strict=True))
    return joined if len(joined) > 1 else joined[0]


def parity_of(compiled: Arrays, reference: Arrays, precision: Precision, *, classifies: bool = True) -> Parity:
    """Compare a compiled model's outputs with torch's on the same samples, each output by itself.

    float32 must agree within 1e-3 of the output's largest value, with weights stored in float16 within 2e-2. Lower
    precisions of a classifier agree by the arg max of 99 % of the samples; of other models by noise of at most a tenth
    of what each output varies by.
    """
    pairs = list(zip(parts_of(compiled), parts_of(reference), strict=True))
    # Python's max passes over what is no number.
    error = float(np.max([_relative_error(found, wanted) for found, wanted in pairs]))
    agreement = agreement_of(compiled, reference) if classifies else None
    limit = _LARGEST_ERROR.get(precision)
    if limit is not None:
        passed = error <= limit
        detail = f"relative error {error:.1e}, limit {limit:.0e}"
    elif agreement is not None:
        passed = agreement >= INT8_AGREEMENT
        detail = f"top-1 agreement with torch {agreement:.2%}, expected at least {INT8_AGREEMENT:.0%}"
    else:
        noise = noise_of(compiled, reference)
        passed = noise <= INT8_NOISE
        detail = f"noise against torch {noise:.1%} of what the outputs vary by, expected at most {INT8_NOISE:.0%}"
    return Parity(
        samples=len(parts_of(reference)[0]),
        max_relative_error=error,
        top1_agreement=agreement,
        passed=passed,
        detail=detail,
    )


def agreement_of(found: Arrays, reference: Arrays) -> float:
    """Share of the samples where two classifiers' scores, [examples, classes], have the same arg max."""
    here, there = (mapped(lambda part: part.argmax(axis=1), outputs) for outputs in (found, reference))
    return float(np.mean([(a == b).mean() for a, b in zip(parts_of(here), parts_of(there), strict=True)]))


def noise_of(found: Arrays, reference: Arrays) -> float:
    """Root mean square of the difference over the reference's standard deviation, of the output where it is largest."""
    return max(_noise(a, b) for a, b in zip(parts_of(found), parts_of(reference), strict=True))


def _noise(found: np.ndarray, reference: np.ndarray) -> float:
    wanted = reference.astype(np.float64)
    scale = float(wanted.std()) or float(np.abs(wanted).max()) or 1.0
    return float(np.sqrt(((found - wanted) ** 2).mean())) / scale


def _relative_error(found: np.ndarray, wanted: np.ndarray) -> float:
    scale = float(np.abs(wanted).max()) or 1.0
    return float(np.abs(found - wanted).max()) / scale
