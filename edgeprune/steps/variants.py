"""One quantization variant of a candidate: compiled, evaluated on validation data, and looked at on the device."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from edgeprune.data.parts import parts_of
from edgeprune.errors import BuildError, MeasurementError, NotInstalledError
from edgeprune.events import StageProgress
from edgeprune.gating.judge import judge
from edgeprune.planning.feasibility import ShapeFigures, over_budget
from edgeprune.protocols import Arrays, CompiledFiles
from edgeprune.quantization.calibration import held_out_samples
from edgeprune.quantization.marks import marked_copy, modules_in_float
from edgeprune.records.accuracy import Accuracy
from edgeprune.records.artifact import Artifact
from edgeprune.records.quantization import DEFAULT_VARIANT, QuantizationVariant, VariantTrial
from edgeprune.records.rung import Limits, Precision, Rung
from edgeprune.records.verdict import Evidence, Floors, Judgement, Verdict
from edgeprune.statistics import quantile
from edgeprune.steps.assessing import Assessor
from edgeprune.steps.compiling import (
    CompileJob,
    compile_float,
    compiler_versions,
    describe,
    quantize_compiled,
    scheme_of,
)
from edgeprune.steps.compressing import Compressor, TorchModel
from edgeprune.steps.evaluating import noise_of
from edgeprune.steps.looks import p50_ms, quick_look
from edgeprune.steps.workbench import Workbench
from edgeprune.store.run_folder import digest
from edgeprune.units import ms_from_ns

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

_DEFAULT = "default"
_RANKING_SAMPLES = 128
"""Examples that layers are ranked by, and that they are calibrated with meanwhile."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Quantizable:
    """A candidate that may be quantized in more than one way.

    Attributes:
        model: its float torch model.
        floors: on accuracy.
        limits: absolute ones, as far as a quick look can judge them.
        p50_ms: of its shape in the default variant, when the plan looked at it; None where it did not.
    """

    rung: Rung
    model: TorchModel
    floors: Floors
    limits: Limits
    p50_ms: float | None = None

    @property
    def key(self) -> str:
        """Digest of all of it."""
        return digest(
            self.model.key,
            self.rung.name,
            compiler_versions(self.rung),
            asdict(self.floors),
            asdict(self.limits),
            self.p50_ms,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerRanking:
    """The layers of a float file in its order, and how far off the outputs are with each one alone in float.

    Attributes:
        layers: (name, squared error over the float output's variance, summed over the outputs); less is better.
    """

    layers: tuple[tuple[str, float], ...]

    def worst(self, count: int) -> tuple[str, ...]:
        """The layers whose rounding hurts most, in the file's order."""
        ranked = sorted(self.layers, key=lambda layer: layer[1])[:count]
        return tuple(name for name, _ in self.layers if name in {n for n, _ in ranked})


@dataclass(frozen=True)
class VariantBench:
    """Tries variants of one candidate; each trial is a step.

    Attributes:
        scratch: an empty folder, for float32 files that several variants are quantized from.
    """

    bench: Workbench
    compressor: Compressor
    subject: Quantizable
    scratch: Path
    _compiled: dict[str, CompiledFiles] = field(default_factory=dict)

    def trial(self, variant: QuantizationVariant) -> VariantTrial:
        """Its accuracy on the validation split and its latency on the device, or why it could not be made."""

        def make(folder: Path) -> VariantTrial:
            try:
                return self._tried(variant, folder)
            except NotInstalledError:
                raise
            except (BuildError, MeasurementError) as error:
                if isinstance(error, MeasurementError) and not error.about_artifact:
                    raise
                return VariantTrial(variant=variant, reason=error.message)

        subject = f"{self.subject.rung.name}-{variant.name}"
        return self.bench.step("variant", subject, self._key(variant), VariantTrial, make, lambda t: t.summary)

    def ranking(self, variant: QuantizationVariant) -> LayerRanking:
        """What each layer's rounding does to the outputs, on training data that the variant is not calibrated with.

        Raises:
            BuildError: the variant cannot be made.
        """
        rung = self.subject.rung

        def make(folder: Path) -> LayerRanking:
            compiled, job = self._float(variant), self._job(variant)
            floating = replace(rung, precision=Precision.FLOAT32)
            wanted = self._run(floating, describe(compiled, floating), compiled.folder)
            short = replace(job, calibration=job.calibration[:_RANKING_SAMPLES])
            names, errors = tuple(scheme_of(rung).layers(compiled)), []
            for position, name in enumerate(names):
                into = folder / str(position)
                into.mkdir()
                without = replace(short, variant=replace(variant, float_layers=(name,)))
                artifact = quantize_compiled(compiled, without, rung, into)
                found = self._run(rung, artifact, into)
                errors.append((name, _squared_error(found, wanted)))
                shutil.rmtree(into)
                self.bench.reporter.emit(StageProgress(stage="rank", subject=rung.name, done=position + 1))
            return LayerRanking(layers=tuple(errors))

        return self.bench.step("rank", rung.name, self._key(variant), LayerRanking, make, _worst)

    def float_modules(self, variant: QuantizationVariant) -> tuple[str, ...]:
        """The modules of the torch model that the variant's layers in float are; no more than is certain.

        Raises:
            BuildError: the model cannot be compiled with other weights.
        """
        rung = self.subject.rung
        layers = tuple(scheme_of(rung).layers(self._float(variant)))
        marked, modules = marked_copy(self._module(variant))
        job = CompileJob(marked, self.bench.input_shape, self.bench.calibration)
        with tempfile.TemporaryDirectory(dir=self.scratch) as folder:
            # By position: how a variant is prepared changes values, and the names are numbers.
            marks = tuple(scheme_of(rung).layers(compile_float(job, rung, Path(folder))).values())
        if len(marks) != len(layers):
            return ()
        stays = [layer in variant.float_layers for layer in layers]
        return modules_in_float(marked, modules, zip(marks, stays, strict=True))

    def _tried(self, variant: QuantizationVariant, folder: Path) -> VariantTrial:
        rung, bench = self.subject.rung, self.bench
        artifact = self._made(variant, folder)
        evaluation = Assessor(bench).evaluate(rung, self._module(variant), artifact, folder, folder)
        accuracy = evaluation.accuracy
        look = quick_look(bench, rung, bench.device.place(folder, artifact), bench.samples_path)
        figures = ShapeFigures(
            rung=rung,
            p50_ms=self._as_planned_ms(variant, p50_ms(look.block)),
            p99_ms=ms_from_ns(quantile(look.block.samples_ns, 0.99)),
            artifact_bytes=artifact.size_bytes,
            peak_bytes=look.block.peak_bytes,
            base_bytes=look.block.base_bytes,
        )
        return VariantTrial(
            variant=variant,
            accuracy=accuracy.value,
            error=evaluation.error,
            is_share=accuracy.is_share,
            higher_is_better=accuracy.higher_is_better,
            meets_floors=accuracy_gates(self.subject.floors, accuracy).verdict is Verdict.PASS,
            p50_ms=figures.p50_ms,
            artifact_bytes=figures.artifact_bytes,
            over=over_budget(figures, self.subject.limits) or "",
        )

    def _as_planned_ms(self, variant: QuantizationVariant, found_ms: float) -> float:
        """What the variant would have taken when the plan looked, by what the default takes beside it.

        Minutes of training lie between, in which hosts switch their pace by up to 1.9 times; the limits are the plan's.
        """
        if self.subject.p50_ms is None or variant == DEFAULT_VARIANT:
            return self.subject.p50_ms or found_ms
        # Once more: others may have taken its place in the device's cache.
        there = self.bench.device.place(self.scratch / _DEFAULT, self._default)
        beside = quick_look(self.bench, self.subject.rung, there, self.bench.samples_path)
        return found_ms / p50_ms(beside.block) * self.subject.p50_ms

    def _made(self, variant: QuantizationVariant, folder: Path) -> Artifact:
        if variant != DEFAULT_VARIANT:
            return quantize_compiled(self._float(variant), self._job(variant), self.subject.rung, folder)
        artifact = self._default
        shutil.copytree(self.scratch / _DEFAULT, folder, dirs_exist_ok=True)
        return artifact

    @cached_property
    def _default(self) -> Artifact:
        """In the scratch folder, for the others to be looked at beside: of an earlier build only its trial is kept."""
        folder = self.scratch / _DEFAULT
        folder.mkdir()
        compiled, job = self._float(DEFAULT_VARIANT), self._job(DEFAULT_VARIANT)
        return quantize_compiled(compiled, job, self.subject.rung, folder)

    def _run(self, rung: Rung, artifact: Artifact, folder: Path) -> Arrays:
        host = self.bench.host
        return host.infer(rung, host.place(folder, artifact), self._held_out)

    @property
    def _held_out(self) -> np.ndarray:
        spec = self.bench.target.spec
        count = spec.quantization.calibration_samples
        return held_out_samples(self.bench.data.train, spec.preprocessing, count, spec.seed, _RANKING_SAMPLES)

    def _float(self, variant: QuantizationVariant) -> CompiledFiles:
        """The float32 file of a variant, compiled once for all that prepare the model alike."""
        needs = sorted(scheme_of(self.subject.rung).needs(variant))
        key = digest(needs, variant.smoothing if needs else None, variant.qat_epochs, variant.float_modules)
        if key not in self._compiled:
            folder = self.scratch / key[:16]
            folder.mkdir()
            self._compiled[key] = compile_float(self._job(variant), self.subject.rung, folder)
        return self._compiled[key]

    def _job(self, variant: QuantizationVariant) -> CompileJob:
        return CompileJob(self._module(variant), self.bench.input_shape, self.bench.calibration, variant)

    def _module(self, variant: QuantizationVariant) -> nn.Module:
        trained = self.compressor.quantization_aware(self.subject.model, variant.qat_epochs, variant.float_modules)
        return self.compressor.load(trained)

    def _key(self, variant: QuantizationVariant) -> str:
        bench = self.bench
        quantization = bench.target.spec.quantization
        return digest(
            self.subject.key,
            asdict(variant),
            quantization.calibration_samples,
            quantization.qat_learning_rate,
            bench.data_key,
            bench.device.facts.fingerprint,
            bench.host.facts.fingerprint,
        )


def accuracy_gates(floors: Floors, accuracy: Accuracy) -> Judgement:
    """What the gates on accuracy say; nothing else is limited."""
    return judge(Evidence(limits=Limits(), floors=floors, artifact_bytes=0, accuracy=accuracy))


def linear_share(model: nn.Module) -> float:
    """Share of a model's parameters in linear layers and attention's projections, in [0, 1]."""
    from torch import nn

    total = sum(p.numel() for p in model.parameters())
    linear = {
        id(p): p.numel()
        for module in model.modules()
        if isinstance(module, nn.Linear | nn.MultiheadAttention)
        for p in module.parameters(recurse=False)
    }
    return sum(linear.values()) / max(total, 1)


def _squared_error(found: Arrays, wanted: Arrays) -> float:
    """Summed over the outputs: by the worst one alone, what hurts another would rank behind what hurts none."""
    return sum(noise_of(a, b) ** 2 for a, b in zip(parts_of(found), parts_of(wanted), strict=True))


def _worst(ranking: LayerRanking) -> str:
    name, _ = min(ranking.layers, key=lambda layer: layer[1])
    return f"rounding hurts most in {name}"
