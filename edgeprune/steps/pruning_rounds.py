"""Cut in rounds and recover after each: what is left learns to do without before more is taken."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from edgeprune.graph.blocks import remove_blocks
from edgeprune.graph.groups import ChannelGraph
from edgeprune.pruning.reconstruction import reconstruct_channels_, reconstruct_weights_
from edgeprune.pruning.rewinding import EarlyEnoughError, EarlyWeights
from edgeprune.pruning.schedules import SCHEDULES, stepped_ratios
from edgeprune.pruning.surgery import cut_by_scores, rebuild
from edgeprune.quantization.fake_quantization import FakeQuantization
from edgeprune.records.recipe import Cut, PruningRecipe
from edgeprune.records.rung import PlannedRung, Rung
from edgeprune.recovery.finetune import EpochResult
from edgeprune.recovery.job import batches_per_epoch
from edgeprune.schema.compression import Pruning
from edgeprune.schema.training import RECOVERY_EPOCHS, Recovery
from edgeprune.steps.masking import told
from edgeprune.store.run_folder import digest, step_name

if TYPE_CHECKING:
    from torch import Tensor, nn

    from edgeprune.pruning.masks import WeightMasks
    from edgeprune.steps.compressing import Compressor

UNCUT = PruningRecipe()

_DIGITS = 9
"""Of a number of epochs, against rounding: 3 * (1 - 0.4) is a little more than 1.8."""
_EARLY_FILE = "early.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlyStep:
    """Weights that rewinding goes back to were kept: after so many steps of the dense model's training."""

    step: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pruned:
    """A model that was pruned and recovered: how, and what its zeros are."""

    model: nn.Module
    epochs: tuple[EpochResult, ...]
    recipe: PruningRecipe = UNCUT
    sparsity: float = 0.0
    masked_layers: tuple[str, ...] = ()


def recovery_rounds(recovery: Recovery, final: float, training_epochs: int) -> tuple[tuple[float, int], ...]:
    """(ratio, epochs of recovery after it) of each round; the last has the epochs that do not divide.

    A rewound round trains for as long as the dense model had still to go, in whole epochs, unless the target says how
    long (Renda et al. 2020, section 2, arXiv:2003.02389); with another length the rates that are left are stretched.

    Args:
        recovery: its schedule, rounds, steps and epochs.
        final: ratio in the end, in [0, 1].
        training_epochs: of the dense model.
    """
    epochs = RECOVERY_EPOCHS if recovery.epochs is None else recovery.epochs
    if recovery.schedule == "steps":
        return stepped_ratios(final, recovery.steps, epochs)
    ratios = SCHEDULES[recovery.schedule](final, recovery.rounds)
    if recovery.rewind != "none" and recovery.epochs is None:
        left = math.ceil(round(training_epochs * (1 - recovery.rewind_to), _DIGITS))
        return tuple((ratio, left) for ratio in ratios)
    each, rest = divmod(epochs, len(ratios))
    return tuple((ratio, each + (rest if n == len(ratios) else 0)) for n, ratio in enumerate(ratios, start=1))


@dataclass(frozen=True)
class PruningRounds:
    """Prunes the dense model of a compressor as its recovery says."""

    compressor: Compressor

    def structured(self, planned: PlannedRung, subject: str) -> Pruned:
        """Cut channels; whole blocks go in the first round.

        Raises:
            BuildError: training diverged or the cut is impossible.
        """
        compressor = self.compressor
        model, cuts, epochs = (
            remove_blocks(compressor.load(compressor.start_of(planned.rung)), planned.removed_blocks),
            list[Cut](),
            list[EpochResult](),
        )
        ends = {w.group: (w.before, self._rounds(1 - w.after / w.before)) for w in planned.widths if w.after}
        counts = [count for _, count in self._rounds(1.0)]
        self._tell_idle(subject, counts)
        if planned.removed_blocks and self._pruning.refits_channels:
            # What is refitted gives what the model without its blocks gave, and that with norms of its own.
            compressor.settle_(model)
        for number, count in enumerate(counts):
            widths = {group: round(before * (1 - rounds[number][0])) for group, (before, rounds) in ends.items()}
            model, cut = self._cut(model, widths)
            cuts += cut
            recipe = PruningRecipe(cuts=tuple(cuts), removed_blocks=planned.removed_blocks)
            if compressor.recovery.rewind == "weights":
                model = rebuild(self._early_model(), compressor.bench.example, recipe)
            self._settle_(model, refitted=self._pruning.refits_channels)
            settings = compressor.recovery_settings(count)
            title = f"{subject} round {number + 1} of {len(counts)}"
            rounding = FakeQuantization if compressor.rounds_first(planned.rung) else None
            epochs += compressor.fit_(model, settings, "recover", title, rounding=rounding)
        return Pruned(model=model, epochs=tuple(epochs), recipe=recipe)

    def masked(self, rung: Rung, subject: str) -> Pruned:
        """Zero more in each round and hold the zeros while the rest learns; at the end they are plain weights.

        What is zero stays zero in the next round, by whatever criterion: a zero that came back in the place of a
        trained weight would be one more zero, and a weight less.

        Raises:
            BuildError: training diverged, or left a masked weight that is not zero.
        """
        compressor = self.compressor
        model, epochs = copy.deepcopy(compressor.load(compressor.start_of(rung))), list[EpochResult]()
        rounds = self._rounds(rung.pruning_ratio)
        self._tell_idle(subject, [count for _, count in rounds])
        before: WeightMasks | None = None
        masker = compressor.masks.masker
        for number, (sparsity, count) in enumerate(rounds, start=1):
            masks = masker.masks(model, rung, sparsity, after=before)
            if before is None and masks.left_dense:
                compressor.bench.note(f"{subject}: without zeros stay {told(masks.left_dense)}")
            before = masks
            whole = copy.deepcopy(model) if self._pruning.refits_weights else None
            masks.apply_()
            if whole is not None:
                reconstruct_weights_(model, whole, masks, compressor.scorer.inputs, seed=self._seed)
            if compressor.recovery.rewind == "weights":
                model.load_state_dict(self._early)
                masks.apply_()
            self._settle_(model, refitted=self._pruning.refits_weights)
            title = f"{subject} round {number} of {len(rounds)}"
            settings = compressor.recovery_settings(count)
            rounding = FakeQuantization if compressor.rounds_first(rung) else None
            epochs += compressor.fit_(model, settings, "recover", title, after_step=masks.apply_, rounding=rounding)
        sparsity, masked_layers = masks.sparsity, tuple(masks.kept)
        # First: what came alive in training would be zeroed in silence, at the cost of accuracy.
        masks.verify()
        masks.make_permanent()
        return Pruned(model=model, epochs=tuple(epochs), sparsity=sparsity, masked_layers=masked_layers)

    def _rounds(self, final: float) -> tuple[tuple[float, int], ...]:
        return recovery_rounds(self.compressor.recovery, final, self.compressor.bench.target.spec.training.epochs)

    def _tell_idle(self, subject: str, epochs: Sequence[int]) -> None:
        """Rounds that nothing recovers from are seldom meant."""
        idle = sum(1 for count in epochs if not count)
        if idle and any(epochs):
            rounds = f"{idle} of {len(epochs)} rounds"
            self.compressor.bench.note(f"{subject}: {rounds} have no epoch of recovery after them", "warning")

    def _cut(self, model: nn.Module, widths: Mapping[str, int]) -> tuple[nn.Module, tuple[Cut, ...]]:
        scorer = self.compressor.scorer
        graph = ChannelGraph(model, self.compressor.bench.example)
        narrowed = [group for group, width in widths.items() if width != graph.width(group)]
        pruned, cuts = cut_by_scores(model, graph, widths, scorer.channels(model, graph, narrowed))
        if self._pruning.refits_channels and cuts:
            edits = [edit for cut in cuts for edit in graph.edits(cut.group, cut.removed)]
            reconstruct_channels_(pruned, model, edits, scorer.inputs, seed=self._seed)
        return pruned, cuts

    def _settle_(self, model: nn.Module, *, refitted: bool) -> None:
        """Re-estimate batch norms, unless what they read is as before: see `pruning/reconstruction.py`."""
        # Weights of an early step never gave what was refitted to.
        if not refitted or self.compressor.recovery.rewind == "weights":
            self.compressor.settle_(model)

    @property
    def _pruning(self) -> Pruning:
        return self.compressor.bench.target.spec.pruning

    @property
    def _seed(self) -> int:
        return self.compressor.bench.target.spec.seed

    def _early_model(self) -> nn.Module:
        model = self.compressor.bench.target.build_model()
        model.load_state_dict(self._early)
        return model

    @cached_property
    def _early(self) -> dict[str, Tensor]:
        """The weights of an early step: the beginning of the dense model's training, once more, as it was."""
        from safetensors.torch import load_file, save_file

        compressor, bench = self.compressor, self.compressor.bench
        training = bench.target.spec.training
        steps = training.epochs * batches_per_epoch(len(bench.train_inputs), training.batch_size)
        wanted = int(steps * compressor.recovery.rewind_to)
        # Once more, but to that step in any case: the dense model's own training may have ended before it.
        settings = replace(compressor.training_settings(), patience_epochs=None)
        key = digest(compressor.dense.key, wanted)

        def make(folder: Path) -> EarlyStep:
            model = bench.fresh_model()
            early = EarlyWeights(model, wanted, end=True)
            if wanted:
                with suppress(EarlyEnoughError):
                    compressor.fit_(model, settings, "train", "early", early.after_step, alone=True)
            save_file(early.state, folder / _EARLY_FILE)
            return EarlyStep(step=wanted)

        bench.step("compress", "early", key, EarlyStep, make, lambda e: f"after {e.step} of {steps} steps")
        return load_file(bench.run.path(step_name("compress", "early")) / _EARLY_FILE)
