"""What the parts of `bench_compression.py` work with: rows, options, and the compressors of a build."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from bench_parts import millions_of_macs

from edgeprune.errors import BuildError
from edgeprune.planning.allocation import Allocation, allocate
from edgeprune.planning.allocation_problem import Block, Choice, Configuration
from edgeprune.planning.cost import CostModel
from edgeprune.planning.shape_problem import LATENCY, ShapeProblem
from edgeprune.records.rung import PlannedRung, Precision, Rung, RungStatus
from edgeprune.schema.training import Recovery
from edgeprune.steps.compressing import Compressor
from edgeprune.steps.narrowing import structured_rung
from edgeprune.steps.open_model import OpenModel
from edgeprune.steps.sensitivity import GroupLosses
from edgeprune.steps.workbench import Workbench

_WIDTH_STEP = 2
STEPS = ((0, 0.7), (1, 0.85), (2, 0.95), (3, 1.0))
"""Of zeros in rounds: epoch, and share of the zeros that is in from then on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One model.

    Attributes:
        amount: share of zeros, how many times fewer multiply-accumulates, or the speed-up that was asked for; 0 and 1
            for the dense model.
        method: the criterion, or where it runs.
        validation: accuracy in [0, 1] on the even half.
        test: on the odd half.
        p50_ms: on this machine.
        speedup: at p50 over the dense float32 model in the same runtime, measured in turn with it.
    """

    part: str
    method: str
    amount: float
    seed: int
    validation: float
    test: float
    p50_ms: float | None = None
    speedup: float | None = None
    detail: str = ""

    @property
    def entry(self) -> tuple[str, str, float, int]:
        """What it is a row of."""
        return self.part, self.method, self.amount, self.seed


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What of each part is asked for.

    Attributes:
        criteria: of what is cut at once; `refit` are those whose weights are refitted too.
        one_shot_shares: of zeros in one-shot pruning.
        patterns: of zeros: N:M or blocks.
        channel_shares: of channels that go at once.
        shares: of zeros in iterative pruning.
        fewer_macs: how many times fewer multiply-accumulates.
        speedups: at p50, of builds.
        iterative_epochs, structured_epochs: of recovery, over all rounds.
        built_epochs: the same of builds; None for the target's.
        iterative_learning_rate, structured_learning_rate: peak of recovery; None for the target's.
    """

    criteria: Sequence[str]
    refit: Sequence[str]
    one_shot_shares: Sequence[float]
    patterns: Sequence[str]
    channel_shares: Sequence[float]
    shares: Sequence[float]
    fewer_macs: Sequence[float]
    speedups: Sequence[float]
    iterative_epochs: int
    structured_epochs: int
    built_epochs: int | None = None
    iterative_learning_rate: float | None = None
    structured_learning_rate: float | None = None

    def zeroed_by(self, criterion: str) -> str:
        """How a row of zeros in rounds was made."""
        return _recovered(criterion, self.iterative_epochs, self.iterative_learning_rate)

    def cut_by(self, criterion: str) -> str:
        """How a row of a structured model was made, by a criterion or for a place."""
        return _recovered(criterion, self.structured_epochs, self.structured_learning_rate)

    def built_by(self, runtime: str) -> str:
        """How a row of a build was made."""
        return runtime if self.built_epochs is None else _recovered(runtime, self.built_epochs, None)


def _recovered(chosen_by: str, epochs: int, learning_rate: float | None) -> str:
    rate = "" if learning_rate is None else f", rate {learning_rate:g}"
    return f"{chosen_by}, {epochs} epochs{rate}"


@dataclass(frozen=True)
class Engine:
    """A workbench, and the compressors of a build on it."""

    bench: Workbench
    options: Options

    @cached_property
    def masking(self) -> Compressor:
        """For zeros: in four rounds, large steps first; all but the last have one epoch of recovery."""
        options = self.options
        recovery = self._recovery(options.iterative_learning_rate, epochs=options.iterative_epochs)
        rounds = {"schedule": "steps", "steps": STEPS}
        return Compressor(self.bench, short_recovery=recovery.model_copy(update=rounds))

    @cached_property
    def cutting(self) -> Compressor:
        """For channels."""
        options = self.options
        recovery = self._recovery(options.structured_learning_rate, epochs=options.structured_epochs, rounds=1)
        return Compressor(self.bench, short_recovery=recovery)

    def _recovery(self, learning_rate: float | None, **recovery: object) -> Recovery:
        if learning_rate is not None:
            recovery["learning_rate"] = learning_rate
        return self.bench.target.spec.recovery.model_copy(update=recovery)

    def cut_to(self, factor: float) -> PlannedRung:
        """The widths and blocks that lose the least with so many times fewer multiply-accumulates."""
        model, loss = OpenModel(self.bench), GroupLosses(self.cutting, may_train=False)
        choices = {
            g: tuple(Choice(width=w, loss=loss(g, w)) for w in range(full, model.minimum(g) - 1, -_WIDTH_STEP))
            for g, full in model.full.items()
        }
        blocks = tuple(Block(name=b, loss=loss.block(b)) for b in self.bench.blocks.removable)
        open_shape = ShapeProblem(
            uses=model.uses, full=model.full, choices=choices, entry_ms=millions_of_macs, blocks=blocks
        )
        problem = open_shape.allocation(CostModel())
        most = problem.used(Configuration(widths=model.full), LATENCY)
        found = allocate(problem, {LATENCY: most / factor})
        if not isinstance(found, Allocation):
            raise BuildError(f"no widths have {factor:g} times fewer multiply-accumulates")
        widths, removed = model.cut(found.configuration)
        rung = structured_rung(Rung(runtime="tflite", precision=Precision.FLOAT32), widths, removed)
        return PlannedRung(
            rung=rung, status=RungStatus.PLANNED, reason="", accuracy_cost=0.0, widths=widths, removed_blocks=removed
        )
