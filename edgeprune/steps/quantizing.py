"""Which way of quantizing a candidate is taken, by measured accuracy and latency, where the default loses too much.

From the cheapest to the dearest: other ranges, corrected biases, equalized or smoothed layers; then layers that stay in
float; then weights alone; then training with rounding. Each is a change to the best one so far that fits the budget,
and nothing dearer is tried once one is good enough. Of those whose accuracy chance alone may tell apart the fastest is
the best. The test split plays no part.
"""

from __future__ import annotations

import itertools
import math
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgeprune.errors import BuildError, NotInstalledError
from edgeprune.planning.feasibility import SLACK
from edgeprune.records.accuracy import Accuracy
from edgeprune.records.quantization import DEFAULT_VARIANT, QuantizationVariant, VariantSearch, VariantTrial
from edgeprune.records.rung import Precision
from edgeprune.records.verdict import Verdict
from edgeprune.schema.compression import Quantization, Quantizer
from edgeprune.steps.compressing import Compressor
from edgeprune.steps.evaluating import torch_outputs
from edgeprune.steps.variant_kinds import changed
from edgeprune.steps.variants import Quantizable, VariantBench, accuracy_gates, linear_share
from edgeprune.steps.workbench import Workbench
from edgeprune.store.run_folder import digest

LINEAR_HEAVY = 0.5
"""Share of a model's parameters in linear layers from which on weights alone are worth storing in few bits."""

TOLERATED_OF_ROOM = 0.25
"""Of what lies between the float model and the floor: what rounding alone may cost, where the target says nothing."""

_ROUNDING = 1e-9
"""Of a standard error, against rounding."""

_TIERS: dict[Quantizer, int] = {
    "min_max": 0,
    "percentile": 0,
    "entropy": 0,
    "squared_error": 0,
    "bias_correction": 0,
    "equalization": 0,
    "smoothing": 0,
    "mixed_precision": 1,
    "weights8": 2,
    "dynamic8": 2,
    "weights4": 2,
    "weights16": 2,
    "qat": 3,
}
_FOR_LINEAR_LAYERS: tuple[Quantizer, ...] = ("weights8", "dynamic8", "weights4")


@dataclass(frozen=True)
class VariantSearcher:
    """Looks for a better variant; the search and each of its trials are steps, kept like any other."""

    bench: Workbench
    compressor: Compressor

    def kept(self, subject: Quantizable) -> VariantSearch | None:
        """The search of an earlier build with the same inputs; None where there was none."""
        if not self.bench.has_step("variants", subject.rung.name, self._key(subject)):
            return None
        return self._step(subject, "searched for by an earlier build")

    def search(self, subject: Quantizable, default: Accuracy) -> VariantSearch | None:
        """The variants that were tried; None where the default one is good enough, or nothing is to be tried.

        Args:
            subject: a rung in INT8; others need no search.
            default: accuracy of its default artifact on the validation split.
        """
        if subject.rung.precision is not Precision.INT8 or not self._spec.variants:
            return None
        why = self._why(subject, default)
        if why is None:
            return None
        self.bench.note(f"{subject.rung.name}: {why}: other ways to quantize are tried", "warning")
        return self._step(subject, why)

    def _step(self, subject: Quantizable, why: str) -> VariantSearch:
        def make(_: Path) -> VariantSearch:
            with tempfile.TemporaryDirectory(prefix="edgeprune-") as scratch:
                trials = VariantBench(self.bench, self.compressor, subject, Path(scratch))
                return self._searched(subject, trials, why)

        return self.bench.step("variants", subject.rung.name, self._key(subject), VariantSearch, make, _summary)

    def _searched(self, subject: Quantizable, trials: VariantBench, why: str) -> VariantSearch:
        floating = self._float_accuracy(subject)
        least = floating.quality - self.tolerated(subject, floating)
        tried = [trials.trial(DEFAULT_VARIANT)]
        kinds = sorted(self._worth_trying(subject), key=lambda kind: _TIERS[kind])
        for _, tier in itertools.groupby(kinds, key=lambda kind: _TIERS[kind]):
            for kind in tier:
                for variant in self._variants(kind, _base_of(tried, least), trials):
                    if any(trial.variant == variant for trial in tried):
                        continue
                    tried.append(trials.trial(variant))
                    self.bench.note(f"{subject.rung.name}: {variant.name}: {tried[-1].summary}")
                    if kind == "mixed_precision" and (tried[-1].over or is_good(tried[-1], least)):
                        # More layers in float would be slower still, or are not needed.
                        break
            if is_good(best_of(tried, least), least):
                break
        return VariantSearch(trials=tuple(tried), chosen=best_of(tried, least).variant, why=why)

    def _variants(
        self, kind: Quantizer, best: QuantizationVariant, trials: VariantBench
    ) -> Iterator[QuantizationVariant]:
        """What a kind makes of the best variant so far; layers that stay in float are told by what they hurt."""
        if kind == "qat" and best.float_layers:
            yield replace(changed(best, kind, self._spec), float_modules=self._float_modules(best, trials))
            return
        if kind != "mixed_precision":
            yield changed(best, kind, self._spec)
            return
        try:
            ranking = trials.ranking(best)
        except NotInstalledError:
            raise
        except BuildError as error:
            self.bench.note(f"layers cannot be left in float one by one: {error.message}", "warning")
            return
        most = max(1, int(self._spec.max_float_share * len(ranking.layers)))
        for count in sorted({min(2**power, most) for power in range(most.bit_length() + 1)}):
            yield replace(best, float_layers=ranking.worst(count))

    def _float_modules(self, best: QuantizationVariant, trials: VariantBench) -> tuple[str, ...]:
        try:
            found = trials.float_modules(best)
        except NotInstalledError:
            raise
        except BuildError as error:
            self.bench.note(f"layers in float are rounded in training, as it cannot be told which: {error.message}")
            return ()
        wanted = len(best.float_layers)
        if len(found) < wanted:
            # A module that runs twice is two layers, and then nothing is amiss.
            told = f"{len(found)} module(s) stay in float in training, for {wanted} layer(s) that do in the file"
            self.bench.note(f"{told}: any that marks do not tell apart are rounded", "warning")
        return found

    def _worth_trying(self, subject: Quantizable) -> list[Quantizer]:
        share = linear_share(self.compressor.load(subject.model))
        return [k for k in self._spec.variants if k not in _FOR_LINEAR_LAYERS or share >= LINEAR_HEAVY]

    def _why(self, subject: Quantizable, default: Accuracy) -> str | None:
        """What is wrong with the default; None where nothing is, or nothing that quantization is to blame for."""
        floating = self._float_accuracy(subject)
        # A floor that the float model misses is the cut's fault: no way to round would help.
        lost = {g.gate for g in accuracy_gates(subject.floors, floating).gates if g.verdict is Verdict.FAIL}
        gates = accuracy_gates(subject.floors, default).gates
        missed = [g for g in gates if g.verdict is not Verdict.PASS and g.gate not in lost]
        if missed:
            return "; ".join(f"{gate.gate}: {gate.reason}" for gate in missed)
        worse, tolerated = floating.quality - default.quality, self.tolerated(subject, floating)
        if worse <= tolerated:
            return None
        if floating.is_share:
            return f"INT8 loses {100 * worse:.2f} points against the float model, {100 * tolerated:g} are tolerated"
        return (
            f"INT8 takes {floating.metric} from {floating.told} to {default.told}, {tolerated:.3g} worse is tolerated"
        )

    def tolerated(self, subject: Quantizable, floating: Accuracy) -> float:
        """What INT8 may lose against the float model before others are tried, in the metric's unit."""
        if floating.is_share:
            return self._spec.tolerated_drop_points / 100
        if self._spec.tolerated_worsening is not None:
            return self._spec.tolerated_worsening
        floor = subject.floors.metric
        if floor is None:
            return math.inf
        return TOLERATED_OF_ROOM * max(0.0, floating.quality - (floor if floating.higher_is_better else -floor))

    def _float_accuracy(self, subject: Quantizable) -> Accuracy:
        bench = self.bench
        outputs = torch_outputs(self.compressor.load(subject.model), bench.validation_inputs)
        return bench.task.accuracy_of(outputs, bench.data.validation, "validation")

    def _key(self, subject: Quantizable) -> str:
        bench = self.bench
        return digest(subject.key, self._spec.model_dump(mode="json"), bench.data_key, bench.device.facts.fingerprint)

    @property
    def _spec(self) -> Quantization:
        return self.bench.target.spec.quantization


def is_good(trial: VariantTrial, least_quality: float) -> bool:
    """Whether nothing dearer need be tried: within the budget, over the floors, and near enough to the float model."""
    if trial.accuracy is None or trial.over or not trial.meets_floors:
        return False
    return trial.quality >= least_quality


def best_of(trials: Sequence[VariantTrial], least_quality: float = -math.inf) -> VariantTrial:
    """The fastest of the most accurate trials that fit the budget; those that meet the floors come before others.

    As accurate as the most accurate one is what is worse by no more than the noise, as among rungs: the standard error
    of the difference, those of both against the float model being taken as independent. So one example of the
    validation data buys no latency. A difference within what two quick looks at one artifact may differ by is none:
    there the more accurate one is taken, and the first among equals. Where none fits, the first one, which is the
    default.

    Args:
        trials: in the order in which they were made.
        least_quality: what is good enough; where the most accurate one is, so is the one that is taken.
    """
    fitting = [trial for trial in trials if trial.accuracy is not None and not trial.over]
    if not fitting:
        return trials[0]

    def rank(trial: VariantTrial) -> tuple[bool, bool]:
        return trial.meets_floors, is_good(trial, least_quality)

    best = max(fitting, key=lambda trial: (trial.meets_floors, trial.quality))
    near = [t for t in fitting if rank(t) >= rank(best) and best.quality - t.quality <= _noise(best, t)]
    fastest = min(near, key=_p50_ms)
    return fastest if SLACK * _p50_ms(fastest) < _p50_ms(best) else best


def _noise(one: VariantTrial, other: VariantTrial) -> float:
    # One answer more that is wrong has a standard error of exactly one example.
    return math.hypot(one.error, other.error) * (1 + _ROUNDING)


def _base_of(tried: Sequence[VariantTrial], least_quality: float) -> QuantizationVariant:
    """What the next one is a change to: the best so far whose activations are quantized.

    Weights alone start anew whatever leads, and all else changes, or trains, how activations are rounded: on top of
    weights alone it would do nothing, or train a rounding that does not ship.
    """
    return best_of([t for t in tried if t.variant.weight_only_bits is None], least_quality).variant


def _p50_ms(trial: VariantTrial) -> float:
    return math.inf if trial.p50_ms is None else trial.p50_ms


def _summary(search: VariantSearch) -> str:
    return f"{len(search.trials)} tried, {search.chosen.name} taken"
