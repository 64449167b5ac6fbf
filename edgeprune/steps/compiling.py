"""From a torch model and a rung to artifact files: compile in float32, then rewrite them where the rung says so."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgeprune.errors import BuildError
from edgeprune.protocols import CompiledFiles, Scheme
from edgeprune.quantization.preparation import prepared
from edgeprune.quantization.schemes import SCHEMES
from edgeprune.records.artifact import Artifact, TensorSpec
from edgeprune.records.measurement import DeviceFacts
from edgeprune.records.quantization import DEFAULT_VARIANT, HALF_WEIGHTS, QuantizationVariant
from edgeprune.records.rung import Precision, Rung
from edgeprune.records.sparsity import SparsePath
from edgeprune.runtimes import RUNTIMES
from edgeprune.steps.float_files import copied
from edgeprune.store.artifacts import describe_files

if TYPE_CHECKING:
    import numpy as np
    from torch import nn


_LARGEST_HALF = 65504.0
"""Of float16's finite numbers."""

_REWRITTEN = frozenset({Precision.INT8, Precision.FLOAT32_W16})
"""Made from the float32 file by the runtime's scheme."""


@dataclass(frozen=True, slots=True, eq=False)
class CompileJob:
    """What a compilation needs.

    Attributes:
        model: in evaluation mode; it is left alone.
        input_shape: with the batch of 1 in front.
        calibration: [samples, *input_shape[1:]], preprocessed; its dtype is the model's. Values are for INT8 only.
        variant: how to quantize; used for INT8 only.
        keep: hands out float32 files that another precision of this model was made from, by runtime and input, and
            makes those that are not there; None compiles each anew.
    """

    model: nn.Module
    input_shape: tuple[int, ...]
    calibration: np.ndarray
    variant: QuantizationVariant = DEFAULT_VARIANT
    keep: Callable[[str, Callable[[Path], CompiledFiles]], CompiledFiles] | None = None


def compile_artifact(job: CompileJob, rung: Rung, folder: Path) -> Artifact:
    """Compile the model for a rung's runtime and precision into an empty folder.

    Raises:
        NotInstalledError: the runtime's compiler is not installed on this host.
        BuildError: the compiler or the quantizer refuses the model.
    """
    runtime = RUNTIMES.get(rung.runtime)
    inputs = TensorSpec(name="input", shape=job.input_shape, dtype=job.calibration.dtype.name)
    if rung.precision not in _REWRITTEN:
        # bf16 and fp16 are chosen when the device loads the float32 file.
        form = runtime.sparse_form() if rung.masked else None
        if form is None:
            return describe(copied(_float_files(job, rung, job.model, inputs, folder), folder), rung)
        dense_folder = folder / "dense"
        dense_folder.mkdir()
        stored = form.store(runtime.compile(job.model, inputs, dense_folder), folder)
        shutil.rmtree(dense_folder)
        return describe(stored, rung)
    if rung.precision is Precision.FLOAT32_W16:
        # However the target wants INT8 made.
        job = replace(job, variant=HALF_WEIGHTS)
    float_folder = folder / "float32"
    float_folder.mkdir()
    artifact = quantize_compiled(compile_float(job, rung, float_folder), job, rung, folder)
    shutil.rmtree(float_folder)
    return artifact


def compile_float(job: CompileJob, rung: Rung, folder: Path) -> CompiledFiles:
    """What a scheme begins with: the model, prepared as the variant and the scheme want it, in float32.

    Raises:
        BuildError: the scheme or the compiler refuses, or the model has nothing that the variant prepares.
    """
    scheme = scheme_of(rung)
    refused = scheme.refusal(job.variant)
    if refused is not None:
        raise BuildError(f"{rung.name}: {job.variant.name}: {refused}")
    if job.variant.weight_only_bits == HALF_WEIGHTS.weight_only_bits:
        _check_half_weights(job.model, rung)
    model = prepared(job.model, job.variant, scheme.needs(job.variant), job.calibration)
    inputs = TensorSpec(name="input", shape=job.input_shape, dtype=job.calibration.dtype.name)
    return _float_files(job, rung, model, inputs, folder)


def _check_half_weights(model: nn.Module, rung: Rung) -> None:
    """Runtimes store what is too large for float16 as infinite, or as its largest number, without a word."""
    for name, weight in model.named_parameters():
        largest = float(weight.detach().abs().max()) if weight.is_floating_point() and weight.numel() else 0.0
        if largest > _LARGEST_HALF:
            told = f"weights of up to {largest:.4g} in {name!r} do not fit in 16 bits (at most {_LARGEST_HALF:g})"
            raise BuildError(f"{rung.name}: {told}")


def _float_files(job: CompileJob, rung: Rung, model: nn.Module, inputs: TensorSpec, folder: Path) -> CompiledFiles:
    """In the folder, or where the job keeps those of its own model: a prepared one is another model."""

    def make(into: Path) -> CompiledFiles:
        return RUNTIMES.get(rung.runtime).compile(model, inputs, into)

    if job.keep is None or model is not job.model:
        return make(folder)
    return job.keep(f"{rung.runtime} {inputs.dtype}", make)


def quantize_compiled(compiled: CompiledFiles, job: CompileJob, rung: Rung, folder: Path) -> Artifact:
    """Quantize what `compile_float` made.

    Raises:
        BuildError: the quantizer refuses the model, or weights alone were to shrink and did not.
    """
    quantized = scheme_of(rung).quantize(compiled, job.calibration, folder, job.variant)
    if job.variant.weight_only_bits is not None and _size(quantized) >= _size(compiled):
        for name in quantized.names:
            (folder / name).unlink()
        raise BuildError(
            f"{rung.name}: {job.variant.name}: no weights of this model can be stored so by {rung.runtime}"
        )
    # The caller's view stays float32, whatever the quantized file takes: the agent converts outside the timed part.
    return describe(replace(quantized, inputs=compiled.inputs, outputs=compiled.outputs), rung)


def scheme_of(rung: Rung) -> Scheme:
    """What makes INT8 artifacts, and those with weights of 16 bits, for a rung's runtime."""
    return SCHEMES.get(RUNTIMES.get(rung.runtime).int8_scheme())


def _size(files: CompiledFiles) -> int:
    return sum((files.folder / name).stat().st_size for name in files.names)


def sparse_path(artifact: Artifact, folder: Path, rung: Rung, device: DeviceFacts) -> SparsePath | None:
    """Whether a mask rung's file would run by sparse kernels there; None for other rungs, or runtimes without any.

    Raises:
        BuildError: the runtime would compute wrong numbers from it there.
    """
    form = RUNTIMES.get(rung.runtime).sparse_form()
    if form is None or not rung.masked:
        return None
    files = CompiledFiles(
        folder=folder,
        names=tuple(f.name for f in artifact.files),
        inputs=artifact.inputs,
        outputs=artifact.outputs,
        format=artifact.format,
    )
    path = form.check(files, device)
    if path.wrong:
        raise BuildError(f"{rung.name}: {path.wrong}: its outputs would be wrong on the device")
    return path


def compiler_versions(rung: Rung) -> tuple[tuple[str, str], ...]:
    """(distribution, version) of every library that has a say in this rung's files.

    Raises:
        NotInstalledError: one is missing on this host.
    """
    runtime = RUNTIMES.get(rung.runtime)
    versions = runtime.versions()
    if rung.precision in _REWRITTEN:
        versions += scheme_of(rung).versions()
    return tuple(sorted(set(versions)))


def describe(compiled: CompiledFiles, rung: Rung) -> Artifact:
    """The record of a rung's files."""
    return describe_files(
        compiled.folder,
        compiled.names,
        runtime=rung.runtime,
        precision=rung.precision,
        inputs=compiled.inputs,
        outputs=compiled.outputs,
        file_format=compiled.format,
    )
