"""A short race between pruned rungs whose predicted costs differ by noise: it decides which one is trained fully.

Successive halving (Jamieson and Talwalkar 2016, "Non-stochastic Best Arm Identification", arXiv:1502.07943): all are
trained for a small part of the recovery's epochs, the better half by validation loss goes on with twice as many. Each
heat trains anew from the dense model with a whole learning rate schedule: one that was cut off would not compare.

There is none where it cannot pay: a head of the ladder that needs no training, costs further apart than their standard
error, rungs that share one torch model (their accuracy is equal up to quantization: the faster is taken), or a recovery
so short that the race would cost more than the training it may save.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from edgeprune.errors import BuildError
from edgeprune.planning.rung_order import noise
from edgeprune.records.rung import Plan, PlannedRung, Precision, PruningKind
from edgeprune.records.sensitivity import LossIncrease
from edgeprune.steps.compressing import Compressor
from edgeprune.steps.costs import AccuracyCosts
from edgeprune.steps.cut_losses import CutLosses
from edgeprune.steps.evaluating import torch_outputs
from edgeprune.steps.pruning_rounds import recovery_rounds
from edgeprune.steps.sensitivity import SensitivityBench
from edgeprune.store.run_folder import digest

FIRST_HEAT = 5
"""The first heat has a fifth of the recovery's epochs, and one at least."""


@dataclass(frozen=True)
class Race:
    """Puts the winner at the head of a plan; each heat of each rung is a step, kept like any other."""

    costs: AccuracyCosts

    def decided(self, plan: Plan) -> Plan:
        """The plan with the winner first and the heats among its notes, or as it was where nothing is raced."""
        rounds_first = self._compressor.bench.target.spec.quantization.order == "quantize_first"
        entrants = self._fit_to_budget(entrants_of(plan, rounds_first=rounds_first))
        notes: list[str] = []
        epochs = self._first_epochs
        while len(entrants) > 1:
            losses = {e.rung: self._loss(e, epochs) for e in entrants}
            ranked = sorted(entrants, key=lambda e: losses[e.rung])
            told = ", ".join(f"{e.rung.name} loss {losses[e.rung]:+.4f}" for e in entrants)
            entrants = ranked[: math.ceil(len(ranked) / 2)]
            on = " and ".join(e.rung.name for e in entrants)
            notes.append(f"race: {told} after {epochs} epoch(s); {on} goes on")
            self.costs.losses.compressor.bench.note(notes[-1])
            epochs *= 2
        if not entrants or entrants[0].rung == plan.planned[0].rung:
            return replace(plan, notes=(*plan.notes, *notes))
        winner = entrants[0]
        rest = (r for r in plan.rungs if r.rung != winner.rung)
        if not notes:
            notes.append(f"{winner.rung.name} is the fastest of the rungs that share its model, and is tried first")
        return replace(plan, rungs=(winner, *rest), notes=(*plan.notes, *notes))

    def _fit_to_budget(self, entrants: list[PlannedRung]) -> list[PlannedRung]:
        """As many as race for no more epochs than one full recovery has."""
        while len(entrants) > 1 and race_epochs(len(entrants), self._first_epochs) > self._full_epochs:
            entrants = entrants[:-1]
        return entrants

    @property
    def _first_epochs(self) -> int:
        return max(1, self._full_epochs // FIRST_HEAT)

    @cached_property
    def _full_epochs(self) -> int:
        """Of one whole recovery, all rounds together."""
        compressor = self._compressor
        rounds = recovery_rounds(compressor.recovery, 1.0, compressor.bench.target.spec.training.epochs)
        return sum(epochs for _, epochs in rounds)

    def _loss(self, entrant: PlannedRung, epochs: int) -> float:
        """Validation loss over the dense model's after so many epochs, and what the precision costs on top."""
        short = replace(
            self._compressor,
            short_recovery=self._compressor.recovery.model_copy(
                update={"rounds": 1, "schedule": "one_shot", "steps": (), "epochs": epochs}
            ),
        )
        bench = self._compressor.bench
        try:
            model = short.compressed(entrant)
        except BuildError as error:
            bench.note(f"race: {entrant.rung.name} is out: {error.message}", "warning")
            return math.inf

        def make(_: Path) -> LossIncrease:
            return self._cut_losses.increase(torch_outputs(short.load(model), self._cut_losses.inputs))

        subject = f"{entrant.rung.name}-{epochs}"
        key = digest(model.key, bench.data_key, bench.target.spec.seed)
        found = bench.step("race", subject, key, LossIncrease, make, lambda i: i.summary)
        return found.loss + max(0.0, self.costs.precision(entrant.rung).loss)

    @property
    def _compressor(self) -> Compressor:
        return self.costs.losses.compressor

    @cached_property
    def _cut_losses(self) -> CutLosses:
        return SensitivityBench(self._compressor).losses


def entrants_of(plan: Plan, *, rounds_first: bool = False) -> list[PlannedRung]:
    """The head of the ladder and the pruned rungs whose cost is within the noise of its cost, in order.

    One of each place, because the others there are its fallbacks, and one of each torch model: the faster.
    Empty where there is no head that needs training, or costs are ranks. With `rounds_first` INT8 has a torch model of
    its own.
    """
    head = next(iter(plan.planned), None)
    if head is None or not plan.costs_measured or head.p50_ms is None or head.rung.pruning is PruningKind.NONE:
        return []
    by_place: dict[object, PlannedRung] = {}
    for rung in plan.planned:
        close = (rung.accuracy_cost or 0.0) - (head.accuracy_cost or 0.0) <= noise(head, rung)
        if close and rung.p50_ms is not None and rung.rung.pruning is not PruningKind.NONE:
            place = rung.rung
            by_place.setdefault((place.place, place.pattern), rung)
    by_model: dict[object, PlannedRung] = {}
    for rung in by_place.values():
        model = _model_of(rung), rounds_first and rung.rung.precision is Precision.INT8
        other = by_model.get(model, rung)
        by_model[model] = min(other, rung, key=lambda r: r.p50_ms or math.inf)
    return list(by_model.values())


def _model_of(planned: PlannedRung) -> object:
    """What the torch model of a rung depends on: `Compressor.compressed`."""
    rung = planned.rung
    layers = rung.runtime if rung.masked else ""
    share = rung.pruning_ratio if rung.masked else 0.0
    return rung.pattern, layers, share, planned.widths, planned.removed_blocks


def race_epochs(entrants: int, first_epochs: int) -> int:
    """Epochs of a whole race: half of the rungs go on, each time for twice as long."""
    total, epochs = 0, first_epochs
    while entrants > 1:
        total += entrants * epochs
        entrants, epochs = math.ceil(entrants / 2), 2 * epochs
    return total
