"""Controls: models of the result's size that show what its method was worth."""

from __future__ import annotations

from dataclasses import dataclass

from edgeprune.records.accuracy import Accuracy

RANDOM, SCRATCH = "random", "scratch"
CONTROLS = (RANDOM, SCRATCH)


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """One control beside the chosen model. It is never deployed.

    Attributes:
        name: `random` or `scratch`.
        how: in words, how it was made.
        reason: why there is none; empty where there is one.
        artifact_digest: of its files, compiled as the result was.
        epochs: of training or recovery that it had.
        qat_epochs: with INT8 rounding, that it had beside them.
        sparsity: share of the weights, but biases and norms, that masks hold at zero; 0 without masks.
        validation, test: of the compiled artifact; the test split was read together with the result's.
    """

    name: str
    how: str
    reason: str = ""
    artifact_digest: str = ""
    parameters: int | None = None
    macs: int | None = None
    epochs: int = 0
    qat_epochs: int = 0
    sparsity: float = 0.0
    validation: Accuracy | None = None
    test: Accuracy | None = None
