"""What a rung costs in accuracy, measured on validation data and in one unit, so that the ladder can be ordered by it.

The unit is the increase of the mean validation loss over the dense float32 model in torch, on the examples that the
sensitivity curves are taken on. A precision's cost is that of the dense model, compiled and quantized as it would ship
and run through its runtime. A mask's cost is that of its zeros, a cut's the sum of what its groups lose. What is both
costs the sum.

All of it is before recovery. Training wins back most of what a cut loses and nothing of what INT8 loses, so a pruned
rung comes out better than its cost says and an unpruned one does not: a pruned rung stands first only where it loses
less even untrained. That errs to the side that needs no training, and how much recovery wins back is not guessed. The
error of a cost is over the examples only; that groups interact and that a cut is not trained yet is not in it.
"""

from __future__ import annotations

import math
import tempfile
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from edgeprune.errors import BuildError
from edgeprune.records.quantization import DEFAULT_VARIANT
from edgeprune.records.rung import PlannedRung, Precision, PruningKind, Rung, RungStatus
from edgeprune.records.sensitivity import LossIncrease, ZeroSpread
from edgeprune.steps.assessing import Assessor
from edgeprune.steps.compiling import CompileJob, compile_artifact, compiler_versions
from edgeprune.steps.cut_losses import CutLosses
from edgeprune.steps.sensitivity import GroupLosses, SensitivityBench
from edgeprune.steps.variant_kinds import fixed_variant
from edgeprune.steps.workbench import Workbench
from edgeprune.store.run_folder import digest

NOT_MEASURED = (
    "accuracy costs are ranks, not losses: the dense model is not trained yet. Unpruned rungs come before pruned ones, "
    "float32 before weights of 16 bits, bf16, fp16 and INT8; a build measures what each loses"
)

_NOTHING = LossIncrease(loss=0.0, error=0.0, accuracy=0.0)


@dataclass(frozen=True)
class AccuracyCosts:
    """Prices rungs in validation loss; each measurement is a step, taken when the first rung asks for it."""

    losses: GroupLosses

    @property
    def measurable(self) -> bool:
        """Whether there is a dense model to measure with, or one may be trained for it."""
        return self.losses.measurable

    def priced(self, planned: PlannedRung) -> PlannedRung:
        """The rung with its cost; a refused one that would take a measurement of its own has none.

        Raises:
            BuildError: the trained model cannot be compiled or run as the rung says.
        """
        rung = planned.rung
        if planned.status is RungStatus.REFUSED and not self._is_known(planned):
            return replace(planned, accuracy_cost=None, cost_error=0.0)
        parts = [self.precision(rung), self._zeros(rung), self._cut(planned)]
        # What seems to help is noise: taken at its word, it would pay for a cut.
        cost, error = sum(max(0.0, part.loss) for part in parts), math.hypot(*(part.error for part in parts))
        return replace(planned, accuracy_cost=cost, cost_error=error, zeros=self._spread(rung))

    def precision(self, rung: Rung) -> LossIncrease:
        """Of the dense model at the rung's runtime and precision; float32 costs nothing, parity sees to that.

        Raises:
            BuildError: it cannot be compiled or run, or its outputs are not finite.
        """
        if rung.precision is Precision.FLOAT32:
            return _NOTHING
        place = Rung(runtime=rung.runtime, precision=rung.precision)
        bench = self._workbench
        key = digest(
            self._dense_key,
            compiler_versions(place),
            bench.target.spec.quantization.model_dump(mode="json"),
            Assessor(bench).evaluator(place).facts.fingerprint,
        )

        def make(_: Path) -> LossIncrease:
            return self._run(place)

        subject = f"{place.runtime}-{place.precision}"
        return bench.step("sensitivity", subject, key, LossIncrease, make, lambda i: i.summary)

    def _run(self, place: Rung) -> LossIncrease:
        """The dense model compiled, and run where accuracy is taken: on this host, bf16 and fp16 on the device."""
        bench = self._workbench
        session = Assessor(bench).evaluator(place)
        # Whoever trains with rounding loses less than this, as all that is trained does: see above.
        fixed = fixed_variant(bench.target.spec.quantization) or DEFAULT_VARIANT
        variant = replace(fixed, qat_epochs=0)
        job = CompileJob(self.losses.compressor.dense_module, bench.input_shape, bench.calibration, variant)
        with tempfile.TemporaryDirectory(prefix="edgeprune-") as name:
            folder = Path(name)
            artifact = compile_artifact(job, place, folder)
            outputs = session.infer(place, session.place(folder, artifact), self._cut_losses.inputs)
        found = self._cut_losses.increase(outputs)
        if not math.isfinite(found.loss):
            raise BuildError(f"{place.name}: the dense model's loss is {found.loss} in {place.precision}")
        return found

    def _zeros(self, rung: Rung) -> LossIncrease:
        """Of a mask rung's zeros, and never less than fewer zeros cost: a curve over the target's sparsities."""
        if not rung.masked:
            return _NOTHING
        shares = {rung.pruning_ratio}
        if rung.n_m is None:
            shares |= {s for s in self._workbench.target.spec.pruning.sparsities if s < rung.pruning_ratio}
        curve = [self._zeros_at(replace(rung, pruning_ratio=share)) for share in sorted(shares)]
        return replace(curve[-1], loss=max(point.loss for point in curve))

    def _zeros_at(self, rung: Rung) -> LossIncrease:
        subject, key = self._mask_step(rung)
        masks = self.losses.compressor.masks
        return self._workbench.step(
            "sensitivity", subject, key, LossIncrease, lambda _: masks.increase(rung), lambda i: i.summary
        )

    def _spread(self, rung: Rung) -> ZeroSpread | None:
        """A step of its own: a build that goes on need not score all weights again to draw it."""
        if not rung.masked or rung.n_m or self._workbench.target.spec.pruning.mask_scope != "sensitivity":
            return None
        subject, key = self._mask_step(rung)
        masks = self.losses.compressor.masks
        found = self._workbench.step(
            "sensitivity", f"spread-{subject}", key, ZeroSpread, lambda _: masks.spread(rung), lambda s: s.summary
        )
        return found if found.curves else None

    def _mask_step(self, rung: Rung) -> tuple[str, str]:
        """Subject and key of what depends on the dense model and a rung's mask."""
        place = Rung(runtime=rung.runtime, precision=Precision.FLOAT32)
        scorer = self.losses.compressor.scorer
        # Which layers are masked follows from the runtime's kernels.
        subject = replace(rung.unplaced, precision=place.precision).name
        return subject, digest(self._dense_key, compiler_versions(place), scorer.masker.key, scorer.key)

    def _cut(self, planned: PlannedRung) -> LossIncrease:
        cut = [w for w in planned.widths if 0 < w.after < w.before]
        blocks = planned.removed_blocks
        return LossIncrease(
            loss=sum([*(self.losses(w.group, w.after) for w in cut), *map(self.losses.block, blocks)]),
            error=math.hypot(
                *(self.losses.error(w.group, w.after) for w in cut), *map(self.losses.block_error, blocks)
            ),
            accuracy=0.0,
        )

    def _is_known(self, planned: PlannedRung) -> bool:
        """Whether its cost takes no measurement that nothing else asks for."""
        rung = planned.rung
        return rung.pruning is PruningKind.NONE and rung.precision is Precision.FLOAT32

    @property
    def _workbench(self) -> Workbench:
        return self.losses.compressor.bench

    @cached_property
    def _cut_losses(self) -> CutLosses:
        return SensitivityBench(self.losses.compressor).losses

    @cached_property
    def _dense_key(self) -> str:
        bench = self._workbench
        compressor = self.losses.compressor
        return digest(compressor.dense.key, bench.data_key, compressor.scorer.loss_key, bench.target.spec.seed)
