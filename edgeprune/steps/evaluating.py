"""Accuracy and parity of the compiled artifact, through the preprocessing that ships."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgeprune.data.splits import Split
from edgeprune.errors import BuildError
from edgeprune.records.accuracy import Accuracy
from edgeprune.records.artifact import Parity
from edgeprune.records.rung import Precision

if TYPE_CHECKING:
    from torch import nn

FLOAT_PARITY = 1e-3
"""Largest relative error of a float32 artifact against torch."""

INT8_AGREEMENT = 0.99
"""Least share of samples where an INT8 artifact and torch have the same arg max."""

_BATCH = 256


def accuracy_of(outputs: np.ndarray, split: Split, name: str, class_names: tuple[str, ...]) -> Accuracy:
    """Count what the outputs get right.

    Args:
        outputs: [examples, classes], any float; the arg max is the prediction.
        split: whose labels to compare with.
        name: of the split, for the record.
        class_names: one a column of `outputs`.

    Raises:
        BuildError: the outputs are not one row an example and one column a class, or not finite.
    """
    if outputs.shape != (len(split), len(class_names)):
        raise BuildError(
            f"model output on {name}: expected shape {(len(split), len(class_names))} "
            f"(examples, classes), got {outputs.shape}"
        )
    if not np.isfinite(outputs).all():
        raise BuildError(f"model output on {name}: NaN or infinity in {int((~np.isfinite(outputs)).sum())} values")
    confusion = np.zeros((len(class_names), len(class_names)), dtype=np.int64)
    np.add.at(confusion, (split.labels.astype(np.int64), outputs.argmax(axis=1)), 1)
    return Accuracy(
        split=name, confusion=tuple(tuple(int(n) for n in row) for row in confusion), class_names=class_names
    )


def torch_outputs(model: nn.Module, inputs: np.ndarray) -> np.ndarray:
    """Outputs of a torch model in evaluation mode.

    Args:
        model: left as it was.
        inputs: [examples, ...], float32, preprocessed.
    """
    import torch

    was_training = model.training
    model.eval()
    with torch.inference_mode():
        parts = [
            model(torch.from_numpy(inputs[start : start + _BATCH])).float().numpy()
            for start in range(0, len(inputs), _BATCH)
        ]
    model.train(was_training)
    return np.concatenate(parts)


def parity_of(compiled: np.ndarray, reference: np.ndarray, precision: Precision) -> Parity:
    """Compare a compiled model's outputs with torch's on the same samples.

    float32 must agree within 1e-3 of the largest output; lower precisions by the arg max of 99 % of the samples.
    """
    scale = float(np.abs(reference).max()) or 1.0
    error = float(np.abs(compiled - reference).max()) / scale
    agreement = float((compiled.argmax(axis=1) == reference.argmax(axis=1)).mean())
    if precision is Precision.FLOAT32:
        passed = error <= FLOAT_PARITY
        detail = f"relative error {error:.1e}, limit {FLOAT_PARITY:.0e}"
    else:
        passed = agreement >= INT8_AGREEMENT
        detail = f"top-1 agreement with torch {agreement:.2%}, expected at least {INT8_AGREEMENT:.0%}"
    return Parity(
        samples=len(reference), max_relative_error=error, top1_agreement=agreement, passed=passed, detail=detail
    )
