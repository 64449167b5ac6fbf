"""The torch side of a candidate: the dense model, and from it the pruned ones, each kept as recipe and weights."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

from edgeprune.graph.cost import count_macs, count_parameters
from edgeprune.graph.layers import layer_weights
from edgeprune.graph.weights import load_weights_
from edgeprune.pruning.surgery import load_pruned, save_pruned
from edgeprune.quantization.fake_quantization import FakeQuantization
from edgeprune.records.model_card import LayerWeights
from edgeprune.records.recipe import PruningRecipe
from edgeprune.records.rung import GroupWidth, PlannedRung, Precision, PruningKind, Rung
from edgeprune.recovery.batchnorm import reestimate_
from edgeprune.recovery.distillation import Distillation
from edgeprune.recovery.finetune import EpochResult, FitSettings, Workers, fit_
from edgeprune.recovery.losses import Loss
from edgeprune.recovery.settings import RoundingOf
from edgeprune.schema.training import Recovery
from edgeprune.steps.dense_masks import DenseMasks
from edgeprune.steps.evaluating import QualityOn
from edgeprune.steps.fresh_weights import fresh_model
from edgeprune.steps.held_zeros import ZeroHolder
from edgeprune.steps.pruning_rounds import UNCUT, Pruned, PruningRounds
from edgeprune.steps.scoring import Scorer
from edgeprune.steps.task import loss_of
from edgeprune.steps.training import (
    augmentation_of,
    checkpoint_of,
    fit_settings,
    forget_checkpoints,
    recovery_teacher,
)
from edgeprune.steps.workbench import Workbench
from edgeprune.store.run_folder import digest, step_name

if TYPE_CHECKING:
    from torch import Tensor, nn

LEARNING_RATE_SHARE = 0.1
"""Fine-tuning starts from a tenth of the training's learning rate unless the target says otherwise."""

_SETTLING_EXAMPLES = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class TorchModel:
    """A model that was trained or pruned here, kept as `recipe.json` and `model.safetensors`.

    Attributes:
        subject: what it is, such as `dense` or `structured50-3f2a91c4`.
        key: digest of all that it depends on.
        epochs: of training or recovery, all rounds together.
        qat_epochs: of training with INT8 rounding after them.
        qat_epochs_before: of such training before the first cut.
        sparsity: share of the weights, but biases and norms, that masks hold at zero; 0 without masks.
        masked_layers: whose zeros are those of masks.
        layers: how many weights each layer has.
    """

    subject: str
    key: str
    parameters: int
    macs: int
    recipe: PruningRecipe = UNCUT
    widths: tuple[GroupWidth, ...] = ()
    epochs: tuple[EpochResult, ...] = ()
    qat_epochs: tuple[EpochResult, ...] = ()
    qat_epochs_before: tuple[EpochResult, ...] = ()
    sparsity: float = 0.0
    masked_layers: tuple[str, ...] = ()
    layers: tuple[LayerWeights, ...] = ()


@dataclass(frozen=True)
class Compressor:
    """Makes the dense model once, and each pruned one once, however many runtimes share it.

    Attributes:
        short_recovery: takes the place of the target's, for a race; models that are made by it are kept apart.
    """

    bench: Workbench
    short_recovery: Recovery | None = None

    @property
    def recovery(self) -> Recovery:
        """How accuracy is won back after a cut."""
        return self.short_recovery or self.bench.target.spec.recovery

    @property
    def has_dense(self) -> bool:
        """Whether the dense model takes no training: it is pretrained, or was trained before."""
        return not self._is_trained or self.bench.has_step("compress", "dense", self._dense_key)

    @property
    def _is_trained(self) -> bool:
        spec = self.bench.target.spec
        return spec.model.weights is None and spec.training.epochs > 0

    @cached_property
    def _dense_key(self) -> str:
        bench = self.bench
        if not self._is_trained:
            return digest(bench.model_key)
        return digest(bench.model_key, bench.target.spec.training.model_dump(mode="json"), bench.data_key)

    @cached_property
    def dense(self) -> TorchModel:
        """The baseline: pretrained, or trained with the target's recipe. It is the teacher and the roll-back."""
        key = self._dense_key

        def make(folder: Path) -> TorchModel:
            model = self.bench.fresh_model()
            epochs = self.fit_(model, self.training_settings(), "train", "dense") if self._is_trained else ()
            return self._save(Pruned(model=model, epochs=epochs), folder, "dense", key)

        return self._step("dense", key, make)

    @cached_property
    def masks(self) -> DenseMasks:
        """Masks of the dense model."""
        return DenseMasks(self)

    @cached_property
    def dense_module(self) -> nn.Module:
        """The dense model itself, in evaluation mode."""
        model = self.bench.target.build_model()
        load_weights_(model, self._folder(self.dense) / "model.safetensors")
        return model.eval()

    def compressed(self, planned: PlannedRung) -> TorchModel:
        """The model of a rung: the dense one, or pruned and recovered.

        Raises:
            BuildError: training diverged or the cut is impossible.
        """
        rung = planned.rung
        if rung.pruning is PruningKind.NONE:
            return self.dense
        spec, start = self.bench.target.spec, self.start_of(rung)
        key = digest(
            start.key,
            self.bench.data_key,
            rung.pruning_name,
            # Which layers are masked follows from the runtime's kernels; a cut is the same for all.
            rung.runtime if rung.masked else "",
            [(w.group, w.after) for w in planned.widths],
            planned.removed_blocks,
            [part.model_dump(mode="json") for part in (spec.pruning, self.recovery, spec.training)],
            self.rounds_first(rung),
        )
        subject = f"{rung.pruning_name}-{key[:8]}"

        def make(folder: Path) -> TorchModel:
            rounds = PruningRounds(self)
            structured = rung.pruning is PruningKind.STRUCTURED
            pruned = rounds.structured(planned, subject) if structured else rounds.masked(rung, subject)
            made = self._save(pruned, folder, subject, key, widths=planned.widths if structured else ())
            return replace(made, qat_epochs_before=start.qat_epochs)

        return self._step(subject, key, make)

    def start_of(self, rung: Rung) -> TorchModel:
        """What is cut: the dense model; where INT8 comes first, the dense model that was trained on with rounding."""
        quantization = self.bench.target.spec.quantization
        return self.quantization_aware(self.dense, quantization.qat_epochs if self.rounds_first(rung) else 0)

    def rounds_first(self, rung: Rung) -> bool:
        """Whether a rung is trained with INT8 rounding from before its first cut: only one that is rounded then."""
        return rung.precision is Precision.INT8 and self.bench.target.spec.quantization.order == "quantize_first"

    def from_scratch(self, model: TorchModel) -> TorchModel:
        """A model of a kept one's shape and zeros, with fresh weights, trained with the dense model's recipe.

        Raises:
            BuildError: training diverged, or the factory has no fresh weights to give.
        """
        bench, spec = self.bench, self.bench.target.spec
        key = digest(model.key, bench.data_key, spec.training.model_dump(mode="json"), "from scratch")
        subject = f"{model.subject}-scratch"

        def make(folder: Path) -> TorchModel:
            fresh = fresh_model(bench.target, bench.example, model.recipe)
            hold = ZeroHolder(fresh, self.load(model), model.masked_layers)
            hold()
            epochs = self.fit_(fresh, self.training_settings(), "train", subject, after_step=hold)
            hold.verify()
            scratch = Pruned(
                model=fresh,
                epochs=epochs,
                recipe=model.recipe,
                sparsity=model.sparsity,
                masked_layers=model.masked_layers,
            )
            return self._save(scratch, folder, subject, key, widths=model.widths)

        return bench.step("compress", subject, key, TorchModel, make, _summary)

    def quantization_aware(self, model: TorchModel, epochs: int, in_float: tuple[str, ...] = ()) -> TorchModel:
        """A kept model that was trained on with INT8 rounding in its forward pass, its zeros held where it is masked.

        The dense model teaches it, as after a cut.

        Args:
            model: to go on from.
            epochs: of training; with 0 it is the model itself.
            in_float: modules that are not rounded.

        Raises:
            BuildError: training diverged.
        """
        if epochs == 0:
            return model
        bench, spec = self.bench, self.bench.target.spec
        parts = [part.model_dump(mode="json") for part in (self.recovery, spec.training)]
        key = digest(model.key, bench.data_key, epochs, spec.quantization.qat_learning_rate, parts, in_float)
        subject = f"{model.subject}-qat{epochs}" + (f"-float{digest(in_float)[:6]}" if in_float else "")
        rounding = partial(FakeQuantization, in_float=in_float)

        def make(folder: Path) -> TorchModel:
            trained = copy.deepcopy(self.load(model))
            settings = self.recovery_settings(epochs)
            rate = spec.quantization.qat_learning_rate or LEARNING_RATE_SHARE * settings.learning_rate
            # No round of pruning: it is not rewound.
            settings = replace(settings, learning_rate=rate, schedule=replace(settings.schedule, start=0.0))
            hold = ZeroHolder(trained, trained, model.masked_layers)
            done = self.fit_(trained, settings, "quantize", subject, after_step=hold, rounding=rounding)
            hold.verify()
            save_pruned(trained, model.recipe, folder)
            return replace(model, subject=subject, key=key, qat_epochs=done, layers=layer_weights(trained))

        return self._step(subject, key, make)

    def load(self, model: TorchModel) -> nn.Module:
        """Rebuild a kept model from the factory, its recipe and its weights."""
        if model.subject == "dense":
            return self.dense_module
        fresh = self.bench.target.build_model()
        return load_pruned(fresh, self.bench.example, self._folder(model)).eval()

    def _folder(self, model: TorchModel) -> Path:
        return self.bench.run.path(step_name("compress", model.subject))

    def _step(self, subject: str, key: str, make: Callable[[Path], TorchModel]) -> TorchModel:
        made = self.bench.step("compress", subject, key, TorchModel, make, _summary)
        forget_checkpoints(self.bench, subject)
        return made

    def fit_(
        self,
        model: nn.Module,
        settings: FitSettings,
        stage: str,
        subject: str,
        after_step: Callable[[], None] | None = None,
        *,
        alone: bool = False,
        rounding: RoundingOf | None = None,
    ) -> tuple[EpochResult, ...]:
        """Train a model in place on the training split; the epoch that does best on the validation split is kept.

        In the stage `recover` the state before the first epoch is one of them: after a refit, or with little data,
        training may only hurt. Not with rounding, whose ranges are learnt in training: before it they are not there.

        Args:
            model: changed in place.
            settings: how to train.
            stage: for the events.
            subject: for the events, and of the state that is kept after each epoch.
            after_step: called after each step of the optimizer.
            alone: in this process and from the beginning, for what hangs state on the model or on `after_step` that
                no state dict has.
            rounding: that of INT8 in the forward pass; then in float32, because bfloat16 would add its own.

        Raises:
            BuildError: training diverged.
        """
        bench = self.bench
        if alone:
            settings = replace(settings, workers=Workers())
        if rounding is not None:
            settings = replace(settings, rounding=rounding, bf16=False)
        validate = QualityOn(bench.task, bench.validation_inputs, bench.data.validation.labels)
        result = fit_(
            model,
            bench.train_inputs,
            bench.data.train.labels,
            settings,
            reporter=bench.reporter,
            stage=stage,
            subject=subject,
            validate=validate,
            after_step=after_step,
            checkpoint=None if alone else checkpoint_of(bench, subject),
            may_keep_start=stage == "recover" and rounding is None,
        )
        return result.epochs

    def _settings(
        self, epochs: int, learning_rate: float | None = None, teacher: Distillation | None = None
    ) -> FitSettings:
        return fit_settings(self.bench, epochs, learning_rate, teacher)

    def training_settings(self) -> FitSettings:
        """Of the dense model."""
        return self._settings(self.bench.target.spec.training.epochs)

    def recovery_settings(self, epochs: int) -> FitSettings:
        """Of a round: at a tenth of the learning rate, or at the rates of the step that it is rewound to."""
        recovery = self.recovery
        rate = recovery.learning_rate or self._recovery_rate
        settings = self._settings(epochs, rate, recovery_teacher(self.bench, recovery, self.dense_module))
        if recovery.rewind == "none":
            return settings
        return replace(settings, schedule=replace(settings.schedule, start=recovery.rewind_to))

    @property
    def _recovery_rate(self) -> float:
        share = LEARNING_RATE_SHARE if self.recovery.rewind == "none" else 1.0
        return share * self.bench.target.spec.training.learning_rate

    @cached_property
    def loss(self) -> Loss:
        """The target's loss of (outputs, labels)."""
        return loss_of(self.bench.target, self.bench.data.train.labels)

    @cached_property
    def scorer(self) -> Scorer:
        """Scores channels and weights as the target says."""
        return Scorer(self.bench, self.loss, self.recovery.learning_rate or self._recovery_rate)

    def settle_(self, model: nn.Module) -> None:
        """Re-estimate a model's batch norms, in place, on training data that are augmented as in training.

        On the plain images the uncut ResNet-20 of CIFAR-10 falls from 91.7 to 88.2 %: the statistics that its weights
        were trained with are those of shifted crops.
        """
        reestimate_(model, self._settling_inputs)

    @cached_property
    def _settling_inputs(self) -> Tensor:
        import numpy as np
        import torch

        # Drawn, not the first ones: many data sets are sorted by class.
        seed = self.bench.target.spec.seed
        chosen = np.random.default_rng(seed).permutation(len(self.bench.train_inputs))[:_SETTLING_EXAMPLES]
        inputs = torch.from_numpy(self.bench.train_inputs[np.sort(chosen)])
        augment = augmentation_of(self.bench)
        return augment(inputs, torch.Generator().manual_seed(seed)) if augment else inputs

    def _save(
        self, pruned: Pruned, folder: Path, subject: str, key: str, *, widths: tuple[GroupWidth, ...] = ()
    ) -> TorchModel:
        save_pruned(pruned.model, pruned.recipe, folder)
        return TorchModel(
            subject=subject,
            key=key,
            parameters=count_parameters(pruned.model),
            macs=count_macs(pruned.model, self.bench.example),
            recipe=pruned.recipe,
            widths=widths,
            epochs=pruned.epochs,
            sparsity=pruned.sparsity,
            masked_layers=pruned.masked_layers,
            layers=layer_weights(pruned.model),
        )


def _summary(model: TorchModel) -> str:
    return f"{model.macs / 1e6:.1f} M multiply-accumulates, {model.parameters:,} parameters"
