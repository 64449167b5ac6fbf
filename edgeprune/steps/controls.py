"""Controls beside the result: the same size without the method, to see what the method was worth.

- `random`: as many blocks, channels or zeros and the same recovery, chosen by lot. Mittal et al. 2018, "Recovering
  from Random Pruning: On the Plasticity of Deep Convolutional Neural Networks", arXiv:1801.10447: fine-tuning hides
  much of what a criterion does, so a criterion is worth what it wins over this.
- `scratch`: the same shape from fresh weights, trained with the dense model's recipe. Liu et al. 2019, "Rethinking the
  Value of Network Pruning", arXiv:1810.05270, section 3 (Scratch-E): what pruning wins over a small model.

Controls are compiled as the result is and evaluated on the same examples. They are never measured, judged or deployed.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from edgeprune.errors import BuildError
from edgeprune.graph.names import block_of
from edgeprune.records.accuracy import Accuracy
from edgeprune.records.artifact import Artifact
from edgeprune.records.control import RANDOM, SCRATCH, Control
from edgeprune.records.quantization import DEFAULT_VARIANT, QuantizationVariant
from edgeprune.records.rung import PlannedRung, PruningKind, Rung
from edgeprune.steps.assessing import Assessor, Evaluation
from edgeprune.steps.block_lots import draw_blocks, left_whole, with_blocks_out
from edgeprune.steps.compiling import CompileJob, compile_artifact, compiler_versions
from edgeprune.steps.compressing import Compressor, TorchModel
from edgeprune.steps.feature_layers import feature_pairs
from edgeprune.steps.guarding import robustness_key
from edgeprune.store.run_folder import digest, step_name

ReadTest = Callable[[str, Artifact], Accuracy]
"""Accuracy on the test split of a step's subject and its artifact."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeControl:
    """A control and what was compiled for it; no artifact where there is none."""

    control: Control
    subject: str = ""
    artifact: Artifact | None = None

    def tested(self, read: ReadTest) -> Control:
        """With its accuracy on the test split, once all choices are made."""
        if self.artifact is None:
            return self.control
        return replace(self.control, test=read(self.subject, self.artifact))


@dataclass(frozen=True)
class ControlMaker:
    """Makes controls beside one chosen rung.

    Attributes:
        compressor: that made the result.
    """

    compressor: Compressor

    def made(self, name: str, planned: PlannedRung, variant: QuantizationVariant = DEFAULT_VARIANT) -> MadeControl:
        """One control, compiled and evaluated on validation data; one that cannot be made is a value with its reason.

        Args:
            name: `random` or `scratch`.
            planned: the rung that was chosen, with its widths.
            variant: how the chosen model was quantized.
        """
        reason = self._refusal(name, planned, variant)
        if reason:
            return MadeControl(control=Control(name=name, how="", reason=reason))
        try:
            compressor, model = self._by_lot(planned) if name == RANDOM else self._fresh(planned)
            rounded = variant.qat_epochs + (self._rounded_before(planned) if name == SCRATCH else 0)
            model = compressor.quantization_aware(model, rounded, variant.float_modules)
            return self._compiled(name, planned, compressor, model, variant)
        except BuildError as error:
            return MadeControl(control=Control(name=name, how="", reason=error.message))

    def _refusal(self, name: str, planned: PlannedRung, variant: QuantizationVariant) -> str:
        rung, spec = planned.rung, self.compressor.bench.target.spec
        if rung.pruning is PruningKind.NONE:
            return f"{rung.name} was not pruned: the control would be the dense model again"
        if name == RANDOM:
            return self._no_lot(planned, variant)
        if spec.training.epochs == 0:
            return "training.epochs is 0: the target has no recipe to train from fresh weights with"
        features = spec.teacher.features if spec.teacher else ()
        gone = [ours for ours, _ in feature_pairs(features) if block_of(ours, planned.removed_blocks)]
        return f"teacher.features names {gone[0]!r}, which went with its block" if gone else ""

    def _no_lot(self, planned: PlannedRung, variant: QuantizationVariant) -> str:
        """Why a lot has nothing to draw, or nothing that could be compiled as the result was; empty where it has."""
        if self._draws_blocks(planned):
            named = "the layers that stay in float are named by the result's file; without other blocks they are others"
            return named if variant.float_layers else ""
        if planned.removed_blocks and not _cuts_channels(planned):
            return "no channels were cut, and no other blocks can be removed than those that the result is without"
        pruning = self.compressor.bench.target.spec.pruning
        criterion = pruning.weight_criterion if planned.rung.masked else pruning.criterion
        return "the result itself was pruned by lot" if criterion == RANDOM else ""

    def _draws_blocks(self, planned: PlannedRung) -> bool:
        return 0 < len(planned.removed_blocks) < len(self.compressor.bench.blocks.removable)

    def _drawn(self, planned: PlannedRung) -> PlannedRung:
        """The rung without other blocks; itself where there are no others."""
        if not self._draws_blocks(planned):
            return planned
        bench = self.compressor.bench
        drawn = draw_blocks(planned.removed_blocks, bench.blocks.removable, bench.target.spec.seed)
        return with_blocks_out(planned, drawn)

    def _by_lot(self, planned: PlannedRung) -> tuple[Compressor, TorchModel]:
        """By the compressor itself, for other blocks and a target that differs in its criteria: all else follows."""
        bench = self.compressor.bench
        spec = bench.target.spec
        # What is left is refitted as the result's was, which may follow from the criterion.
        refits = spec.pruning.refits_weights if planned.rung.masked else spec.pruning.refits_channels
        by_lot: dict[str, object] = {"criterion": RANDOM, "weight_criterion": RANDOM, "reconstruct": refits}
        if planned.rung.masked and spec.pruning.mask_scope == "sensitivity":
            by_lot |= {"mask_scope": "layer", "layer_sparsities": self._shares(planned.rung)}
        other = spec.model_copy(update={"pruning": spec.pruning.model_copy(update=by_lot)})
        compressor = replace(self.compressor, bench=bench.with_spec(other))
        return compressor, compressor.compressed(self._drawn(planned))

    def _shares(self, rung: Rung) -> dict[str, float]:
        """Zeros of each layer in the result: by lot are only which of its weights they are."""
        compressor = self.compressor
        masks = compressor.masks.masker.masks(copy.deepcopy(compressor.dense_module), rung, rung.pruning_ratio)
        return {x.layer: x.sparsity for x in masks.sparsities() if x.layer in masks.kept}

    def _fresh(self, planned: PlannedRung) -> tuple[Compressor, TorchModel]:
        return self.compressor, self.compressor.from_scratch(self.compressor.compressed(planned))

    def _rounded_before(self, planned: PlannedRung) -> int:
        """Epochs with INT8 rounding that the result had before its first cut and while it recovered."""
        if not self.compressor.rounds_first(planned.rung):
            return 0
        result = self.compressor.compressed(planned)
        return len(result.qat_epochs_before) + len(result.epochs)

    def _compiled(
        self,
        name: str,
        planned: PlannedRung,
        compressor: Compressor,
        model: TorchModel,
        variant: QuantizationVariant,
    ) -> MadeControl:
        bench, rung = self.compressor.bench, planned.rung
        spec, subject = bench.target.spec, f"{rung.name}-{name}-control"
        samples = spec.quantization.calibration_samples
        key = digest(model.key, rung.name, compiler_versions(rung), asdict(variant), samples, bench.data_key)

        def make(folder: Path) -> Artifact:
            job = CompileJob(compressor.load(model), bench.input_shape, bench.calibration, variant)
            return compile_artifact(job, rung, folder)

        artifact = bench.step("compile", subject, key, Artifact, make, lambda a: a.format)
        assessor, folder = Assessor(bench), bench.run.path(step_name("compile", subject))
        evaluation = bench.step(
            "evaluate",
            subject,
            digest(key, assessor.evaluator(rung).facts.fingerprint, robustness_key(spec.accuracy.robustness)),
            Evaluation,
            lambda kept: assessor.evaluate(rung, compressor.load(model), artifact, folder, kept),
            lambda e: f"validation {e.accuracy.metric} {e.accuracy.told}",
        )
        control = Control(
            name=name,
            how=self._how(name, planned, model),
            artifact_digest=artifact.digest,
            parameters=model.parameters,
            macs=model.macs,
            epochs=len(model.epochs),
            qat_epochs=len(model.qat_epochs_before) + len(model.qat_epochs),
            sparsity=model.sparsity,
            validation=evaluation.accuracy,
        )
        return MadeControl(control=control, subject=subject, artifact=artifact)

    def _how(self, name: str, planned: PlannedRung, model: TorchModel) -> str:
        spec, epochs = self.compressor.bench.target.spec, len(model.epochs)
        if name == RANDOM:
            lots = ", and ".join(self._lots(planned))
            return f"{lots} (seed {spec.seed}); the same recovery, {epochs} epochs in all"
        result = self.compressor.compressed(planned)
        what = "zeros" if planned.rung.masked else "channels"
        had = len(self.compressor.dense.epochs)
        dense = f"trained for {had}" if had else "came pretrained"
        told = (
            f"the result's shape and {what} from fresh weights (seed {spec.seed}); {epochs} epochs with the target's "
            f"training recipe (the dense model {dense}, and the result had {len(result.epochs)} of recovery)"
        )
        if not self._rounded_before(planned):
            return told
        rounded = f"{len(model.qat_epochs)} with INT8 rounding for those that the result had from before its cut on"
        return f"{told}, then {rounded}"

    def _lots(self, planned: PlannedRung) -> Iterator[str]:
        """What was drawn, and what is the result's own."""
        drawn, whole = self._drawn(planned).removed_blocks, tuple[str, ...]()
        if drawn != planned.removed_blocks:
            yield f"as many blocks out as in the result, by lot others: {', '.join(drawn)}"
            whole = left_whole(planned, drawn) if _cuts_channels(planned) else ()
        elif drawn:
            yield f"the result's own blocks out, as no others can go: {', '.join(drawn)}"
        if whole:
            yield f"at full width what the result has no width for: {', '.join(whole)}"
        if planned.rung.masked or _cuts_channels(planned):
            what = "zeros" if planned.rung.masked else "channels"
            yield f"{'elsewhere ' if whole else ''}as many {what} as the result, chosen by lot"


def _cuts_channels(planned: PlannedRung) -> bool:
    return any(0 < w.after < w.before for w in planned.widths)
