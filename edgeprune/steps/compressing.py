"""The torch side of a candidate: the dense model, and from it the pruned ones, each kept as recipe and weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from edgeprune.graph.blocks import remove_blocks
from edgeprune.graph.cost import count_macs, count_parameters
from edgeprune.graph.layers import layer_weights
from edgeprune.graph.weights import load_weights_
from edgeprune.pruning.criteria import CRITERIA
from edgeprune.pruning.schedules import SCHEDULES
from edgeprune.pruning.surgery import load_pruned, save_pruned, structured_prune
from edgeprune.records.model_card import LayerWeights
from edgeprune.records.recipe import Cut, PruningRecipe
from edgeprune.records.rung import GroupWidth, PlannedRung, PruningKind, Rung
from edgeprune.recovery.batchnorm import reestimate_
from edgeprune.recovery.distillation import Distillation
from edgeprune.recovery.finetune import Augment, EpochResult, FitSettings, bf16_is_fast, fit_
from edgeprune.recovery.losses import Loss, resolve_loss
from edgeprune.schema.target import Recovery
from edgeprune.steps.fresh_weights import fresh_model, zeros_held
from edgeprune.steps.sparsity import make_masks
from edgeprune.steps.workbench import Workbench
from edgeprune.store.run_folder import digest, step_name

if TYPE_CHECKING:
    from torch import Tensor, nn

LEARNING_RATE_SHARE = 0.1
"""Fine-tuning starts from a tenth of the training's learning rate unless the target says otherwise."""

_SETTLING_EXAMPLES = 1024

UNCUT = PruningRecipe()


@dataclass(frozen=True, slots=True, kw_only=True)
class TorchModel:
    """A model that was trained or pruned here, kept as `recipe.json` and `model.safetensors`.

    Attributes:
        subject: what it is, such as `dense` or `structured50-3f2a91c4`.
        key: digest of all that it depends on.
        epochs: of training or recovery, all rounds together.
        sparsity: share of zeros in the masked weights; 0 without masks.
        layers: how many weights each layer has.
    """

    subject: str
    key: str
    parameters: int
    macs: int
    recipe: PruningRecipe = UNCUT
    widths: tuple[GroupWidth, ...] = ()
    epochs: tuple[EpochResult, ...] = ()
    sparsity: float = 0.0
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
            settings = self._settings(self.bench.target.spec.training.epochs)
            epochs = self._fit(model, settings, "train", "dense") if self._is_trained else ()
            return self._save(model, folder, "dense", key, epochs=epochs)

        return self.bench.step("compress", "dense", key, TorchModel, make, _summary)

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
        spec = self.bench.target.spec
        key = digest(
            self.dense.key,
            self.bench.data_key,
            _pruning_name(rung),
            # Which layers are masked follows from the runtime's kernels; a cut is the same for all.
            rung.runtime if rung.masked else "",
            [(w.group, w.after) for w in planned.widths],
            planned.removed_blocks,
            [part.model_dump(mode="json") for part in (spec.pruning, self.recovery, spec.training)],
        )
        subject = f"{_pruning_name(rung)}-{key[:8]}"

        def make(folder: Path) -> TorchModel:
            if rung.pruning is PruningKind.STRUCTURED:
                return self._structured(planned, subject, key, folder)
            return self._masked(rung, subject, key, folder)

        return self.bench.step("compress", subject, key, TorchModel, make, _summary)

    def from_scratch(self, model: TorchModel) -> TorchModel:
        """A model of a kept one's shape and zeros, with fresh weights, trained with the dense model's recipe.

        Raises:
            BuildError: training diverged, or the factory has no fresh weights to give.
        """
        bench, spec = self.bench, self.bench.target.spec
        key = digest(model.key, bench.data_key, spec.training.model_dump(mode="json"), "from scratch")
        subject = f"{model.subject}-scratch"

        def make(folder: Path) -> TorchModel:
            fresh, like = fresh_model(bench.target, bench.example, model.recipe), self.load(model)
            hold = zeros_held(fresh, like) if model.sparsity else None
            epochs = self._fit(fresh, self._settings(spec.training.epochs), "train", subject, after_step=hold)
            return self._save(
                fresh, folder, subject, key,
                recipe=model.recipe, widths=model.widths, epochs=epochs, sparsity=model.sparsity,
            )  # fmt: skip

        return bench.step("compress", subject, key, TorchModel, make, _summary)

    def load(self, model: TorchModel) -> nn.Module:
        """Rebuild a kept model from the factory, its recipe and its weights."""
        if model.subject == "dense":
            return self.dense_module
        fresh = self.bench.target.build_model()
        return load_pruned(fresh, self.bench.example, self._folder(model)).eval()

    def _folder(self, model: TorchModel) -> Path:
        return self.bench.run.path(step_name("compress", model.subject))

    def _structured(self, planned: PlannedRung, subject: str, key: str, folder: Path) -> TorchModel:
        """Cut in rounds, recover after each: what is left learns to do without before more is taken.

        Whole blocks go in the first round.
        """
        spec = self.bench.target.spec
        criterion = CRITERIA.get(spec.pruning.criterion)
        model, cuts, epochs = remove_blocks(self.dense_module, planned.removed_blocks), list[Cut](), list[EpochResult]()
        for number, share in enumerate(SCHEDULES[self.recovery.schedule](1.0, self.recovery.rounds)):
            widths = {w.group: round(w.before - share * (w.before - w.after)) for w in planned.widths if w.after}
            model, cut = structured_prune(model, self.bench.example, widths, criterion, seed=spec.seed)
            cuts += cut
            self.settle_(model)
            settings = self._recovery_settings(number)
            epochs += self._fit(model, settings, "recover", f"{subject} round {number + 1} of {self.recovery.rounds}")
        recipe = PruningRecipe(cuts=tuple(cuts), removed_blocks=planned.removed_blocks)
        return self._save(model, folder, subject, key, recipe=recipe, widths=planned.widths, epochs=epochs)

    def _masked(self, rung: Rung, subject: str, key: str, folder: Path) -> TorchModel:
        """Zero more in each round and hold the zeros while the rest learns; at the end they are plain weights."""
        spec = self.bench.target.spec
        model = self.bench.target.build_model()
        load_weights_(model, self._folder(self.dense) / "model.safetensors")
        epochs: list[EpochResult] = []
        sparsities = SCHEDULES[self.recovery.schedule](rung.pruning_ratio, self.recovery.rounds)
        for number, sparsity in enumerate(sparsities):
            masks = make_masks(model, rung, sparsity, spec.pruning.ignored)
            masks.apply_()
            settings = self._recovery_settings(number)
            title = f"{subject} round {number + 1} of {self.recovery.rounds}"
            epochs += self._fit(model, settings, "recover", title, after_step=masks.apply_)
        sparsity = masks.sparsity
        masks.make_permanent()
        return self._save(model, folder, subject, key, epochs=epochs, sparsity=sparsity)

    def _fit(
        self,
        model: nn.Module,
        settings: FitSettings,
        stage: str,
        subject: str,
        after_step: Callable[[], None] | None = None,
    ) -> tuple[EpochResult, ...]:
        bench = self.bench
        validation = (bench.validation_inputs, bench.data.validation.labels)
        result = fit_(
            model,
            bench.train_inputs,
            bench.data.train.labels,
            settings,
            reporter=bench.reporter,
            stage=stage,
            subject=subject,
            validation=validation,
            after_step=after_step,
        )
        return result.epochs

    def _settings(
        self, epochs: int, learning_rate: float | None = None, teacher: Distillation | None = None
    ) -> FitSettings:
        spec = self.bench.target.spec
        training = spec.training
        return FitSettings(
            epochs=epochs,
            learning_rate=learning_rate or training.learning_rate,
            loss=self.loss,
            optimizer=training.optimizer,
            momentum=training.momentum,
            weight_decay=training.weight_decay,
            batch_size=training.batch_size,
            augment=self._augment,
            seed=spec.seed,
            bf16=bf16_is_fast(),
            distillation=teacher,
        )

    def _recovery_settings(self, round_number: int) -> FitSettings:
        """A fresh optimizer at a tenth of the learning rate; the last round has the epochs that do not divide."""
        recovery = self.recovery
        each, rest = divmod(recovery.epochs, recovery.rounds)
        epochs = each + (rest if round_number == recovery.rounds - 1 else 0)
        rate = recovery.learning_rate or LEARNING_RATE_SHARE * self.bench.target.spec.training.learning_rate
        teacher = Distillation(
            teacher=self.dense_module, weight=recovery.distillation_weight, temperature=recovery.temperature
        )
        return self._settings(epochs, rate, teacher)

    @property
    def _augment(self) -> Augment | None:
        reference = self.bench.target.spec.training.augment
        return self.bench.target.guarded(reference, key="training.augment") if reference else None

    @property
    def loss(self) -> Loss:
        """The target's loss of (outputs, labels)."""
        reference = self.bench.target.spec.training.loss
        if ".py:" in reference:
            return self.bench.target.guarded(reference, key="training.loss")
        return resolve_loss(reference)

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
        augment = self._augment
        return augment(inputs, torch.Generator().manual_seed(seed)) if augment else inputs

    def _save(
        self,
        model: nn.Module,
        folder: Path,
        subject: str,
        key: str,
        *,
        recipe: PruningRecipe = UNCUT,
        widths: tuple[GroupWidth, ...] = (),
        epochs: Sequence[EpochResult] = (),
        sparsity: float = 0.0,
    ) -> TorchModel:
        save_pruned(model, recipe, folder)
        return TorchModel(
            subject=subject,
            key=key,
            parameters=count_parameters(model),
            macs=count_macs(model, self.bench.example),
            recipe=recipe,
            widths=widths,
            epochs=tuple(epochs),
            sparsity=sparsity,
            layers=layer_weights(model),
        )


def _pruning_name(rung: Rung) -> str:
    return rung.name.rsplit("-", 1)[1]


def _summary(model: TorchModel) -> str:
    return f"{model.macs / 1e6:.1f} M multiply-accumulates, {model.parameters:,} parameters"
