"""A compiled model and what a program must know to run it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from edgeprune.records.rung import Precision


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """A model input or output. Shapes have the batch of 1 in front."""

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactFile:
    """One file of an artifact, by name inside the artifact's folder."""

    name: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """A compiled model: the files of one folder.

    Attributes:
        runtime: what runs it: the name of a file in `edgeprune/runtimes`.
        precision: what it computes in. bf16 and fp16 may be chosen at load time from float32 files.
        files: the first one is the one that the runtime is told to open.
        inputs: as the caller sees them after preprocessing, float32 or token ids, even if the file takes int8.
        outputs: in the order in which the runtime gives them, float32.
        format: the file format and its version, such as `onnx opset 18`.
    """

    runtime: str
    precision: Precision
    files: tuple[ArtifactFile, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    format: str

    @property
    def size_bytes(self) -> int:
        """Sum over the files."""
        return sum(f.size_bytes for f in self.files)

    @property
    def digest(self) -> str:
        """Identity by content: sha256 over names and hashes of the files."""
        text = "\n".join(f"{f.name} {f.sha256}" for f in self.files)
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """How the compiled model agrees with torch on frozen samples.

    Attributes:
        max_relative_error: largest |compiled - torch| over the largest |torch| of the batch.
        top1_agreement: share of samples with the same arg max; None where the output is no classification.
        passed: whether the limit for this precision holds.
        detail: one sentence with the limit.
    """

    samples: int
    max_relative_error: float
    top1_agreement: float | None
    passed: bool
    detail: str
