"""From a rung to a judged candidate: compress, compile, evaluate, measure, judge. Each is a step that is kept."""

from __future__ import annotations

import statistics
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from edgeprune.errors import BuildError, MeasurementError, NotInstalledError
from edgeprune.gating.judge import judge
from edgeprune.gating.latency import stayed_disturbed
from edgeprune.records.artifact import Artifact
from edgeprune.records.measurement import MemoryProof
from edgeprune.records.quantization import DEFAULT_VARIANT, QuantizationVariant, VariantSearch
from edgeprune.records.result import Candidate, CandidateStatus
from edgeprune.records.rung import Limits, PlannedRung, Precision, Rung
from edgeprune.records.verdict import Evidence, Floors, Verdict
from edgeprune.steps.assessing import Assessor, Evaluation
from edgeprune.steps.budget import floors_from, limits_to_judge
from edgeprune.steps.compiling import CompileJob, compile_artifact, compiler_versions, sparse_path
from edgeprune.steps.compressing import Compressor, TorchModel
from edgeprune.steps.guarding import robustness_key
from edgeprune.steps.inputs import tool_versions
from edgeprune.steps.measuring import (
    Campaign,
    Measured,
    Subject,
    latency_summary,
    measure,
    percentiles_of,
    require_enough,
)
from edgeprune.steps.model_card import making_of
from edgeprune.steps.outcome import undecided_campaigns
from edgeprune.steps.quantizing import VariantSearcher
from edgeprune.steps.shapes import ShapeBench
from edgeprune.steps.variant_kinds import fixed_variant
from edgeprune.steps.variants import Quantizable
from edgeprune.steps.workbench import Workbench
from edgeprune.store.artifacts import Manifest, write_manifest
from edgeprune.store.run_folder import digest, step_name
from edgeprune.units import ms_from_ns


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    """A compiled rung on its way; `variants` where more than the default way to quantize it was tried."""

    rung: Rung
    model: TorchModel
    artifact: Artifact
    key: str
    folder: Path
    evaluation: Evaluation
    variants: VariantSearch | None = None

    @property
    def subject(self) -> Subject:
        """What is measured."""
        return Subject(rung=self.rung, artifact=self.artifact, folder=self.folder)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """A candidate and what it was judged by; None when it could not be made or run."""

    candidate: Candidate
    evidence: Evidence | None = None

    @property
    def verdict(self) -> Verdict:
        """Of the judgement; a candidate that could not be made or run is a FAIL."""
        return self.candidate.judgement.verdict if self.candidate.judgement else Verdict.FAIL


@dataclass(frozen=True)
class CandidateMaker:
    """Makes candidates; the dense ones first, because floors and relative limits come from them."""

    bench: Workbench
    compressor: Compressor

    @property
    def assessor(self) -> Assessor:
        """Takes accuracy and parity."""
        return Assessor(self.bench)

    def quantized(self, planned: PlannedRung, dense: Compiled, limits: Limits) -> Compiled:
        """Compress, compile and evaluate a rung.

        In INT8 by the variant that the target fixes, or by another one than the default where that loses too much.

        Args:
            planned: what to make.
            dense: what relative floors refer to.
            limits: absolute ones, that a variant's latency on the device is held to.

        Raises:
            BuildError: it cannot be made, or an artifact that computes in float32 disagrees with torch.
        """
        spec = self.bench.target.spec
        fixed = fixed_variant(spec.quantization)
        if fixed is not None and planned.rung.precision is Precision.INT8:
            search = VariantSearch(trials=(), chosen=fixed, why="fixed by the target (quantization.fixed)")
            return replace(self.compile(planned, fixed), variants=search)
        floors = floors_from(spec.accuracy, dense.evaluation.accuracy)
        model = self.compressor.compressed(planned)
        subject = Quantizable(
            rung=planned.rung, model=model, floors=floors, limits=limits, p50_ms=self._planned_ms(planned)
        )
        searcher = VariantSearcher(self.bench, self.compressor)
        found = searcher.kept(subject)
        if found is None:
            compiled = self.compile(planned)
            found = searcher.search(subject, compiled.evaluation.accuracy)
            if found is None or found.chosen == DEFAULT_VARIANT:
                return replace(compiled, variants=found)
        return replace(self.compile(planned, found.chosen), variants=found)

    def _planned_ms(self, planned: PlannedRung) -> float | None:
        """What was seen of the shape before it was trained; a fallback's was looked at when its turn came."""
        if planned.p50_ms is not None or planned.rung.precision is not Precision.INT8:
            return planned.p50_ms
        return ShapeBench(self.bench).measure(planned.rung, planned.widths, planned.removed_blocks).p50_ms

    def compile(self, planned: PlannedRung, variant: QuantizationVariant = DEFAULT_VARIANT) -> Compiled:
        """Compress, compile and evaluate a rung.

        Raises:
            BuildError: it cannot be made, or an artifact that computes in float32 disagrees with torch.
        """
        rung, spec = planned.rung, self.bench.target.spec
        float_model = self.compressor.compressed(planned)
        model = self.compressor.quantization_aware(float_model, variant.qat_epochs, variant.float_modules)
        key = digest(
            model.key,
            rung.name,
            compiler_versions(rung),
            asdict(variant),
            spec.quantization.calibration_samples,
            self.bench.data_key,
        )

        def make(folder: Path) -> Artifact:
            job = CompileJob(self.compressor.load(model), self.bench.input_shape, self.bench.calibration, variant)
            artifact = compile_artifact(job, rung, folder)
            sparse_path(artifact, folder, rung, self.bench.device.facts)
            write_manifest(folder, self._manifest(rung, model, artifact, variant))
            return artifact

        artifact = self.bench.step("compile", rung.name, key, Artifact, make, lambda a: a.format)
        folder = self.bench.run.path(step_name("compile", rung.name))
        evaluation = self.bench.step(
            "evaluate",
            rung.name,
            digest(key, self.assessor.evaluator(rung).facts.fingerprint, robustness_key(spec.accuracy.robustness)),
            Evaluation,
            lambda kept: self.assessor.evaluate(rung, self.compressor.load(model), artifact, folder, kept),
            lambda e: f"validation {e.accuracy.metric} {e.accuracy.told}, {e.parity.detail}",
        )
        self.assessor.agree_there(rung, artifact, folder)
        if rung.precision.arithmetic is Precision.FLOAT32 and not evaluation.parity.passed:
            raise BuildError(f"{rung.name}: the artifact disagrees with torch: {evaluation.parity.detail}")
        return Compiled(rung=rung, model=model, artifact=artifact, key=key, folder=folder, evaluation=evaluation)

    def dense(self, planned: PlannedRung) -> tuple[Compiled, Candidate]:
        """A dense float32 model, measured without a budget.

        Raises:
            BuildError: it cannot be compiled.
            MeasurementError: it cannot be measured.
        """
        started = time.monotonic()
        compiled = self.compile(planned)
        nothing = Evidence(limits=Limits(), floors=Floors(), artifact_bytes=compiled.artifact.size_bytes)
        measured = self._measure(compiled, None, nothing, planned.p50_ms or 1.0)
        reason = f"dense float32 on {planned.rung.runtime}, measured for comparison"
        candidate = self._candidate(compiled, measured, CandidateStatus.DENSE, reason)
        return compiled, replace(candidate, seconds=time.monotonic() - started)

    def attempt(self, planned: PlannedRung, dense: Compiled, dense_p50_ms: float, limits: Limits) -> Attempt:
        """A judged candidate; one that cannot be made or run is a value with its reason.

        Args:
            planned: what to make.
            dense: the baseline.
            dense_p50_ms: its latency, which says how long measurements take.
            limits: the plan's, by which variants of quantization are chosen; it is judged by the budget itself.

        Raises:
            MeasurementError: the device went away or stays disturbed, which says nothing about the candidate.
            NotInstalledError: a compiler is missing on this host.
        """
        started = time.monotonic()
        try:
            compiled = self.quantized(planned, dense, limits)
            evidence = self.evidence(compiled, dense)
            measured = self._measure(compiled, dense, evidence, dense_p50_ms)
            evidence = replace(evidence, memory_proof=self._proved(compiled, evidence.limits))
        except NotInstalledError:
            raise
        except (BuildError, MeasurementError) as error:
            if isinstance(error, MeasurementError) and not error.about_artifact:
                raise
            failed = Candidate(
                rung=planned.rung,
                status=CandidateStatus.FAILED,
                reason=error.message,
                folder=f"candidates/{planned.rung.name}",
                seconds=time.monotonic() - started,
            )
            return Attempt(candidate=failed)
        evidence = replace(evidence, measurement=measured.candidate, baseline=measured.baseline)
        judgement = judge(evidence)
        if stayed_disturbed(measured.candidate):
            # Kept, it would be taken again by the next build, and the device may be quiet then.
            self.bench.run.forget(step_name("measure", planned.rung.name))
        passed = judgement.verdict is Verdict.PASS
        reason = "; ".join(
            f"{g.gate} {g.verdict}: {g.reason}" for g in judgement.gates if g.verdict is not Verdict.PASS
        )
        before = undecided_campaigns(self.bench.run.path(step_name("measure", planned.rung.name)))
        again = f" ({before} measurement(s) before this one ended undecided)" if before else ""
        status = CandidateStatus.CHOSEN if passed else CandidateStatus.REJECTED
        candidate = self._candidate(compiled, measured, status, f"{reason or 'every gate passed'}{again}")
        candidate = replace(candidate, judgement=judgement, seconds=time.monotonic() - started)
        return Attempt(candidate=candidate, evidence=evidence)

    def evidence(self, compiled: Compiled, dense: Compiled) -> Evidence:
        """Limits and floors for a candidate, before it is measured."""
        limits, speedups = limits_to_judge(self.bench.profile.budget)
        return Evidence(
            limits=limits,
            speedups=speedups,
            floors=floors_from(self.bench.target.spec.accuracy, dense.evaluation.accuracy),
            artifact_bytes=compiled.artifact.size_bytes,
            accuracy=compiled.evaluation.accuracy,
        )

    def _measure(self, compiled: Compiled, dense: Compiled | None, evidence: Evidence, estimate_ms: float) -> Measured:
        bench = self.bench
        policy = bench.profile.measurement
        key = digest(
            compiled.artifact.digest,
            dense.artifact.digest if dense else None,
            bench.device.facts.fingerprint,
            bench.device_spec.name,
            compiled.rung.name,
            policy.model_dump(mode="json"),
            bench.profile.budget.model_dump(mode="json") if dense else None,
        )
        campaign = Campaign(
            session=bench.device,
            policy=policy,
            samples_path=bench.samples_path,
            estimate_ms=estimate_ms,
            evidence=evidence,
            reporter=bench.reporter,
        )
        return bench.step(
            "measure" if dense else "baseline",
            compiled.rung.name,
            key,
            Measured,
            lambda _: self._measured(campaign, compiled, dense),
            latency_summary,
        )

    def _proved(self, compiled: Compiled, limits: Limits) -> MemoryProof | None:
        """The artifact run under the memory limit; None where the budget sets none."""
        limit_bytes, device = limits.memory_bytes, self.bench.device
        if limit_bytes is None:
            return None
        key = digest(
            compiled.artifact.digest, device.facts.fingerprint, compiled.rung.name, limit_bytes, limits.memory_of
        )

        def make(_: Path) -> MemoryProof:
            place = device.place(compiled.folder, compiled.artifact)
            return device.prove_memory(compiled.rung, place, self.bench.samples_path, limit_bytes, limits.memory_of)

        return self.bench.step(
            "memory", compiled.rung.name, key, MemoryProof, make, lambda p: p.reason or f"ran under the limit ({p.how})"
        )

    @staticmethod
    def _measured(campaign: Campaign, compiled: Compiled, dense: Compiled | None) -> Measured:
        measured = measure(campaign, compiled.subject, dense.subject if dense else None)
        if dense is None:
            require_enough(measured.candidate, campaign.session.spec.name)
        return measured

    def _candidate(self, compiled: Compiled, measured: Measured, status: CandidateStatus, reason: str) -> Candidate:
        measurement = measured.candidate
        policy = self.bench.profile.measurement
        loads = [block.load_ns for block in measurement.blocks]
        return Candidate(
            rung=compiled.rung,
            status=status,
            reason=reason,
            folder=f"candidates/{compiled.rung.name}",
            artifact=compiled.artifact,
            parity=compiled.evaluation.parity,
            measurement=measurement,
            percentiles=percentiles_of(measurement, policy),
            validation=compiled.evaluation.accuracy,
            widths=compiled.model.widths,
            parameters=compiled.model.parameters,
            macs=compiled.model.macs,
            load_ms=ms_from_ns(statistics.median(loads)) if loads else None,
            making=making_of(compiled.rung, compiled.model, self.compressor.dense, self.bench.target.spec),
            variants=compiled.variants,
        )

    def _manifest(self, rung: Rung, model: TorchModel, artifact: Artifact, variant: QuantizationVariant) -> Manifest:
        spec = self.bench.target.spec
        origin = {
            "target": spec.name,
            "target_digest": digest(self.bench.target.identity),
            "data_digest": self.bench.data_key,
            "seed": str(spec.seed),
            "metric": spec.task.metric,
            **{f"version.{name}": version for name, version in tool_versions()},
        }
        return Manifest(
            artifact=artifact,
            rung=rung,
            preprocessing=spec.preprocessing.model_dump(),
            class_names=self.bench.data.class_names,
            widths=model.widths,
            recipe=model.recipe,
            origin=tuple(sorted(origin.items())),
            variant=variant if rung.precision is Precision.INT8 else None,
        )
