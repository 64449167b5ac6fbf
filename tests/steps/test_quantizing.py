"""Which variant of quantization is taken: a net by hand whose default INT8 is worthless, on a real runtime."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import numpy as np
import pytest
import torch
from compressors import compressor, compressor_of
from records_for_tests import make_block
from task_targets import make_task
from torch import Tensor, nn

from edgeprune.events import Event, Noted
from edgeprune.protocols import CompiledFiles
from edgeprune.quantization.calibration import calibration_samples, held_out_samples
from edgeprune.quantization.fake_quantization import FakeQuantization
from edgeprune.records.accuracy import Accuracy, Score
from edgeprune.records.quantization import (
    DEFAULT_VARIANT,
    BiasCorrection,
    Calibration,
    QuantizationVariant,
    VariantSearch,
    VariantTrial,
)
from edgeprune.records.rung import Limits, PlannedRung, Precision, PruningKind, Rung, RungStatus
from edgeprune.records.verdict import Floors
from edgeprune.recovery.settings import RoundingOf
from edgeprune.runtimes import RUNTIMES
from edgeprune.schema.compression import Quantization, Quantizer
from edgeprune.steps import variants
from edgeprune.steps.candidates import CandidateMaker, Compiled
from edgeprune.steps.compiling import scheme_of
from edgeprune.steps.compressing import Compressor
from edgeprune.steps.costs import AccuracyCosts
from edgeprune.steps.looks import Look
from edgeprune.steps.model_card import making_of
from edgeprune.steps.quantizing import VariantSearcher, best_of, is_good
from edgeprune.steps.sensitivity import GroupLosses
from edgeprune.steps.shapes import ShapeBench
from edgeprune.steps.variant_kinds import changed, fixed_variant, shape_variant
from edgeprune.steps.variants import LayerRanking, Quantizable, VariantBench, linear_share
from edgeprune.store.artifacts import read_manifest

# Finds the bright quarter by means. Its last channel spikes to hundreds wherever noise adds up, and nobody reads it:
# all that it does is to widen the range of what the third layer reads, until a step is larger than the other channels.
# (In one layer NNCF would already lose the others: it raises each channel's step to a hundredth of the largest.)
SPIKES = """
import torch
from torch import nn

from edgeprune import DataSplits, Split


class Spiking(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 4, 3, padding=1)
        self.spike = nn.Conv2d(4, 4, 1, bias=False)
        self.conv2 = nn.Conv2d(4, 1, 1, bias=False)
        self.pool = nn.AvgPool2d(6)
        self.head = nn.Linear(4, 4)
        with torch.no_grad():
            self.conv1.weight.fill_(1 / 9)
            self.conv1.bias.zero_()
            self.conv1.weight[3] *= 99
            self.conv1.bias[3] = -1.0 * 99
            self.spike.weight.copy_(torch.diag(torch.tensor([1.0, 1.0, 1.0, 99.0]))[:, :, None, None])
            self.conv2.weight.fill_(1 / 3)
            self.conv2.weight[:, 3] = 0.0
            self.head.weight.copy_(torch.eye(4))
            self.head.bias.zero_()

    def forward(self, x):
        x = self.conv2(self.spike(torch.relu(self.conv1(x))))
        return self.head(torch.flatten(self.pool(x), 1))


def build_model():
    return Spiking()
"""
DENSE = PlannedRung(
    rung=Rung(runtime="onnxruntime", precision=Precision.FLOAT32),
    status=RungStatus.PLANNED,
    reason="",
    accuracy_cost=0.0,
    p50_ms=0.1,
)
INT8 = replace(DENSE, rung=replace(DENSE.rung, precision=Precision.INT8), p50_ms=0.1)
LOOSE = Limits(p50_ms=500.0)
TARGET = {"training.epochs": 0, "quantization.percentile": 92.0, "quantization.calibration_samples": 32}


class _Notes:
    def __init__(self) -> None:
        self.messages: list[str] = []

    def emit(self, event: Event) -> None:
        if isinstance(event, Noted):
            self.messages.append(event.message)


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The spiking net, with the tiny target's data."""
    from targets_for_tests import MODEL_CODE

    return SPIKES + MODEL_CODE[MODEL_CODE.index("def load_data") :].replace("np.", "numpy.").replace(
        "def load_data", "import numpy\n\n\ndef load_data"
    )


@pytest.fixture(autouse=True)
def _looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that always takes 0.1 ms: real looks wait for their turn on this machine and for quiet."""
    look = Look(make_block(samples_ns=(100_000,) * 100))
    monkeypatch.setattr(variants, "quick_look", lambda *_: look)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shared, so that the float artifact and the default one are made once."""
    return tmp_path_factory.mktemp("spiking")


@pytest.fixture
def made(folder: Path, code: str, request: pytest.FixtureRequest) -> Iterator[tuple[Compressor, _Notes]]:
    """A compressor of the spiking net that tries the variants of the test's mark."""
    notes = _Notes()
    tried = {"quantization.variants": list(request.param)}
    with compressor(folder, notes, {**TARGET, **tried}, code=code) as one:
        yield one, notes


def _quantized(one: Compressor, limits: Limits = LOOSE, planned: PlannedRung = INT8) -> Compiled:
    maker = CandidateMaker(one.bench, one)
    return maker.quantized(planned, maker.compile(DENSE), limits)


@pytest.mark.parametrize("made", [("min_max",)], indirect=True)
def test_a_fallback_counts_with_the_look_of_its_turn(
    made: tuple[Compressor, _Notes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ShapeBench, "measure", lambda *_: SimpleNamespace(p50_ms=0.2))
    search = _quantized(made[0], planned=replace(INT8, p50_ms=None)).variants
    assert search is not None
    assert [trial.p50_ms for trial in search.trials] == [0.2, 0.2]


@pytest.mark.parametrize("made", [("min_max", "percentile", "bias_correction", "mixed_precision")], indirect=True)
def test_a_better_range_wins_and_nothing_dearer_is_tried(made: tuple[Compressor, _Notes]) -> None:
    one, notes = made
    compiled = _quantized(one)
    search = compiled.variants
    assert search is not None
    assert search.why.startswith("accuracy: ")
    default, *others = search.trials
    assert default.variant == DEFAULT_VARIANT
    assert default.accuracy is not None
    assert default.accuracy < 0.6
    # The float model is right, so that what differs is what is wrong; with better ranges it is next to nothing.
    assert default.error == pytest.approx(math.sqrt(default.accuracy * (1 - default.accuracy) / 95), rel=0.1)
    assert others[1].error < default.error / 2
    assert [t.variant.name for t in others[:2]] == ["min_max", "percentile92"]
    # What is tried last in the cheapest tier goes on from the best one; layers in float are not needed any more.
    assert others[2].variant == replace(others[1].variant, bias_correction=BiasCorrection.SEQUENTIAL)
    assert len(others) == 3
    assert search.chosen.calibration is Calibration.PERCENTILE
    assert compiled.evaluation.accuracy.overall > 0.95
    assert all(t.p50_ms == 0.1 and t.artifact_bytes for t in search.trials)
    assert read_manifest(compiled.folder).variant == search.chosen
    assert sum("percentile92: validation accuracy" in m for m in notes.messages) == 1
    # Asked again, everything is taken from the run folder.
    done = len(notes.messages)
    assert _quantized(one) == compiled
    assert notes.messages[done:] == []


@pytest.mark.parametrize("made", [("mixed_precision",)], indirect=True)
def test_reverting_finds_the_layer_that_hurts(made: tuple[Compressor, _Notes]) -> None:
    one, _ = made
    compiled = _quantized(one)
    assert compiled.variants is not None
    layers = [t.variant.float_layers for t in compiled.variants.trials]
    # The third of four: `conv2`, which reads the spikes.
    assert layers[0] == ()
    assert layers[1:] == [(tuple(scheme_of(INT8.rung).layers(_float_file(one)))[2],)]
    assert compiled.evaluation.accuracy.overall > 0.95


def _float_file(one: Compressor) -> CompiledFiles:
    folder = CandidateMaker(one.bench, one).compile(DENSE).folder
    return CompiledFiles(folder=folder, names=("model.onnx",), inputs=(), outputs=(), format="")


@pytest.mark.slow
@pytest.mark.parametrize("made", [("percentile",)], indirect=True)
def test_what_does_not_fit_the_budget_is_not_taken(made: tuple[Compressor, _Notes]) -> None:
    compiled = _quantized(made[0], Limits(p50_ms=1e-6))
    assert compiled.variants is not None
    assert compiled.variants.chosen == DEFAULT_VARIANT
    assert [bool(t.over) for t in compiled.variants.trials] == [True, True]
    assert compiled.variants.trials[1].meets_floors


@pytest.mark.parametrize("made", [()], indirect=True)
def test_nothing_is_tried_where_the_target_names_nothing(made: tuple[Compressor, _Notes]) -> None:
    assert _quantized(made[0]).variants is None


@pytest.mark.parametrize("made", [("min_max",)], indirect=True)
def test_nothing_is_tried_where_the_float_model_misses_the_floor_already(made: tuple[Compressor, _Notes]) -> None:
    one, notes = made
    compiled = CandidateMaker(one.bench, one).compile(DENSE)
    subject = Quantizable(rung=INT8.rung, model=one.dense, floors=Floors(accuracy=1.01), limits=LOOSE)
    done = len(notes.messages)
    assert VariantSearcher(one.bench, one).search(subject, compiled.evaluation.accuracy) is None
    assert notes.messages[done:] == []


def test_a_good_default_is_taken_without_a_search(tmp_path: Path) -> None:
    with compressor(tmp_path) as one:
        compiled = _quantized(one)
        assert compiled.variants is None
        assert read_manifest(compiled.folder).variant == DEFAULT_VARIANT
        assert not list(one.bench.run.root.glob("candidates/*/variant*"))
        # Asked for outright, a variant with training is compiled from the model that was trained on.
        asked = QuantizationVariant(qat_epochs=1, float_modules=("head",))
        trained = CandidateMaker(one.bench, one).compile(INT8, asked)
        assert trained.model.subject.startswith("dense-qat1-float")
        assert read_manifest(trained.folder).variant == asked
        assert trained.evaluation.accuracy.value > 0.9


def test_what_the_target_fixes_is_taken_and_nothing_else_is_tried(tmp_path: Path, code: str) -> None:
    notes = _Notes()
    fixed = {**TARGET, "quantization.fixed": ["percentile", "bias_correction"]}
    with compressor(tmp_path, notes, fixed, code=code) as one:
        compiled = _quantized(one)
        wanted = QuantizationVariant(
            calibration=Calibration.PERCENTILE, percentile=92.0, bias_correction=BiasCorrection.SEQUENTIAL
        )
        why = "fixed by the target (quantization.fixed)"
        assert compiled.variants == VariantSearch(trials=(), chosen=wanted, why=why)
        assert read_manifest(compiled.folder).variant == wanted
        assert compiled.evaluation.accuracy.overall > 0.95
        assert notes.messages == []
        # What INT8 costs is what the artifact that ships loses: the default is right for less than 0.6 of them.
        assert AccuracyCosts(GroupLosses(one, may_train=True)).precision(INT8.rung).accuracy > 0.95
        maker = CandidateMaker(one.bench, one)
        assert maker.quantized(DENSE, maker.compile(DENSE), LOOSE).variants is None


@pytest.mark.slow
def test_a_regression_that_the_default_clips_is_quantized_in_another_way(tmp_path: Path) -> None:
    with compressor_of(make_task("doses", tmp_path, target={"quantization.variants": ["min_max"]})) as one:
        compiled = _quantized(one)
        dense = CandidateMaker(one.bench, one).compile(DENSE).evaluation.accuracy
    search = compiled.variants
    assert search is not None
    default, better = search.trials
    # Its own metric, lower being better: what may be lost is a quarter of what the floor leaves (0.1).
    assert search.why.startswith(f"INT8 takes mean_absolute_error from {dense.told} to {default.told}, 0.025 worse")
    assert search.chosen == better.variant
    assert default.accuracy is not None
    assert default.accuracy > dense.value + 0.025 > compiled.evaluation.accuracy.value == better.accuracy
    assert not default.is_share
    assert better.told == compiled.evaluation.accuracy.told


def _least(one: Compressor, floor: float | None) -> float:
    """The worst mean absolute error that INT8 of a model at 0.4 may have before others are tried."""
    score = Score(
        metric="mean_absolute_error", value=0.4, error=0.01, examples=96, higher_is_better=False, is_share=False
    )
    subject = Quantizable(rung=INT8.rung, model=one.dense, floors=Floors(metric=floor), limits=LOOSE)
    floating = Accuracy(split="validation", score=score)
    return floating.value + VariantSearcher(one.bench, one).tolerated(subject, floating)


def test_what_a_metric_in_its_own_unit_may_lose(tmp_path: Path) -> None:
    untrained = {"training.epochs": 0}
    with compressor_of(make_task("doses", tmp_path, target=untrained)) as one:
        assert _least(one, 0.6) == pytest.approx(0.45)
        # A floor that the float model misses already leaves nothing.
        assert _least(one, 0.3) == pytest.approx(0.4)
        assert _least(one, None) == math.inf
    told = {**untrained, "quantization.tolerated_worsening": 0.02}
    with compressor_of(make_task("doses", tmp_path, target=told)) as one:
        assert _least(one, 0.6) == pytest.approx(0.42)


def test_training_with_rounding_holds_zeros_exactly(tmp_path: Path) -> None:
    with compressor(tmp_path) as one:
        rung = replace(DENSE.rung, pruning=PruningKind.UNSTRUCTURED, pruning_ratio=0.7)
        masked = one.compressed(replace(DENSE, rung=rung))
        trained = one.quantization_aware(masked, 1)
        before, after = (dict(one.load(m).named_parameters()) for m in (masked, trained))
    assert one.quantization_aware(masked, 0) is masked
    assert trained.sparsity == masked.sparsity == pytest.approx(0.7 * 4752 / (4752 + 1152), abs=1e-3)
    assert (trained.epochs, len(trained.qat_epochs)) == (masked.epochs, 1)
    for name, weight in before.items():
        if weight.dim() > 1:
            assert torch.equal(weight == 0, after[name] == 0)
            assert not torch.equal(weight, after[name])


class _Watched(nn.Linear):
    """Notes at each run whether its weight is the parameter itself, or what rounding put in its place."""

    def __init__(self, seen: set[bool]) -> None:
        super().__init__(32 * 9, 4)
        self.seen = seen

    def forward(self, x: Tensor) -> Tensor:
        self.seen.add(isinstance(self.weight, nn.Parameter))
        return super().forward(x)


@pytest.mark.parametrize("order", ["prune_first", "quantize_first"])
def test_order_says_when_rounding_is_trained_and_for_int8_alone(tmp_path: Path, order: str) -> None:
    changes = {"quantization.order": order, "quantization.qat_epochs": 1, "recovery.epochs": 1, "recovery.rounds": 1}
    first = order == "quantize_first"
    with compressor(tmp_path, target=changes) as one:
        rungs = [
            replace(DENSE.rung, pruning=PruningKind.UNSTRUCTURED, pruning_ratio=0.5, precision=precision)
            for precision in (Precision.FLOAT32, Precision.INT8)
        ]
        floating, rounded = (one.compressed(replace(DENSE, rung=rung)) for rung in rungs)
        assert [one.start_of(rung).subject for rung in rungs] == ["dense", "dense-qat1" if first else "dense"]
        assert (one.bench.run.root / "compressed" / "dense-qat1").is_dir() == first
        assert (floating == rounded) == (not first)
        made = [
            making_of(rung, m, one.dense, one.bench.target.spec)
            for rung, m in zip(rungs, (floating, rounded), strict=True)
        ]
        trained = one.quantization_aware(rounded, 1)
        made.append(making_of(rungs[1], trained, one.dense, one.bench.target.spec))
    # The head makes the output: its 1,152 weights stay.
    assert rounded.sparsity == pytest.approx(0.5 * 4752 / (4752 + 1152))
    counts = [(m.training_epochs, m.qat_epochs_before, m.recovery_epochs, m.qat_epochs) for m in made]
    assert counts == [(2, 0, 1, 0), (2, int(first), 1, 0), (2, int(first), 1, 1)]


@pytest.mark.parametrize(
    ("rounding", "is_rounded"),
    [(None, False), (FakeQuantization, True), (partial(FakeQuantization, in_float=("head",)), False)],
    ids=["none", "all", "in float"],
)
def test_rounding_takes_the_place_of_weights_where_it_is_asked_for(
    tmp_path: Path, rounding: RoundingOf | None, *, is_rounded: bool
) -> None:
    # Without a teacher, whose outputs are laid beside the model's before there is any rounding.
    with compressor(tmp_path, target={"recovery.distillation_weight": 0.0}) as one:
        model, seen = one.bench.fresh_model(), set[bool]()
        model.head = _Watched(seen)
        one.fit_(model, one.recovery_settings(1), "recover", "watched", rounding=rounding)
    assert seen == {not is_rounded}


@pytest.mark.parametrize("runtime", RUNTIMES.names())
def test_layers_in_float_are_not_rounded_in_training(runtime: str, code: str, tmp_path: Path) -> None:
    keys = {**TARGET, "quantization.qat_epochs": 1, "training.epochs": 1}
    (tmp_path / "scratch").mkdir()
    with compressor(tmp_path, target=keys, code=code) as one:
        rung = replace(INT8.rung, runtime=runtime)
        subject = Quantizable(rung=rung, model=one.dense, floors=Floors(), limits=LOOSE)
        trials = VariantBench(one.bench, one, subject, tmp_path / "scratch")
        layers = tuple(scheme_of(rung).layers(trials._float(DEFAULT_VARIANT)))
        mixed = QuantizationVariant(float_layers=layers[2:], calibration=Calibration.MIN_MAX)
        (variant,) = VariantSearcher(one.bench, one)._variants("qat", mixed, trials)
        assert variant == replace(mixed, qat_epochs=1, float_modules=("conv2", "head"))
        mixed_model, plain = (one.quantization_aware(one.dense, 1, m) for m in (variant.float_modules, ()))
        weights = [m.conv2.weight for m in (one.load(mixed_model), trials._module(variant), one.load(plain))]
        assert torch.equal(weights[0], weights[1])
        assert not torch.equal(weights[0], weights[2])
        # Named by a file that was prepared otherwise, the layers are the same; and what has none of them has none.
        assert trials.float_modules(replace(mixed, equalized=True)) == variant.float_modules
        assert trials.float_modules(DEFAULT_VARIANT) == ()


@pytest.mark.parametrize(
    "hidden", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["all told apart", "none told apart"]
)
def test_a_whole_search_trains_what_it_leaves_in_float_as_it_is(
    code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, hidden: bool
) -> None:
    """No trial meets its floor, so the search goes from layers that hurt to training with the others rounded."""
    keys = {**TARGET, "quantization.qat_epochs": 1, "quantization.max_float_share": 0.5}
    tried = {"quantization.variants": ["mixed_precision", "qat"]}
    (tmp_path / "scratch").mkdir()
    if hidden:
        monkeypatch.setattr(variants, "modules_in_float", lambda *_: ())
    notes = _Notes()
    with compressor(tmp_path, notes, {**keys, **tried}, code=code) as one:
        subject = Quantizable(rung=INT8.rung, model=one.dense, floors=Floors(accuracy=1.01), limits=LOOSE)
        trials = VariantBench(one.bench, one, subject, tmp_path / "scratch")
        default, *mixed, last = VariantSearcher(one.bench, one)._searched(subject, trials, "").trials
    assert default.variant == DEFAULT_VARIANT
    assert [len(t.variant.float_layers) for t in mixed] == [1, 2]
    best = best_of([default, *mixed]).variant
    modules = () if hidden else last.variant.float_modules
    assert last.variant == replace(best, qat_epochs=1, float_modules=modules)
    assert best.float_layers
    assert len(modules) == (0 if hidden else len(best.float_layers))
    assert last.accuracy is not None
    assert any("module(s) stay in float in training" in message for message in notes.messages) == hidden


def _trial(accuracy: float | None, name: Calibration = Calibration.DEFAULT, **changes: object) -> VariantTrial:
    fields = {"variant": QuantizationVariant(calibration=name), "accuracy": accuracy, "meets_floors": True, **changes}
    return VariantTrial(**fields)  # type: ignore[arg-type]


def test_best_is_the_most_accurate_that_fits_and_the_first_among_equals() -> None:
    default = _trial(0.8, meets_floors=False)
    entropy, percentile = _trial(0.9, Calibration.ENTROPY), _trial(0.9, Calibration.PERCENTILE)
    over = _trial(0.95, Calibration.MIN_MAX, over="p50")
    unfair = _trial(0.97, Calibration.SQUARED_ERROR, meets_floors=False)
    failed = _trial(None, Calibration.MIN_MAX, reason="refused")
    assert best_of([default, failed, entropy, percentile, over, unfair]) == entropy
    assert best_of([default, over, failed]) == default
    eight = replace(entropy, variant=QuantizationVariant(weight_only_bits=8))
    four = replace(eight, variant=QuantizationVariant(weight_only_bits=4), accuracy=0.88)
    assert best_of([default, four, eight]) == eight
    assert best_of([default, four, replace(eight, over="size")]) == four
    assert best_of([replace(default, over="p50"), over]) == replace(default, over="p50")
    # Not one that is faster and under the floors.
    assert best_of([replace(default, p50_ms=0.1), replace(entropy, p50_ms=0.5)]) == replace(entropy, p50_ms=0.5)
    assert [is_good(t, 0.9) for t in (entropy, over, unfair, failed, default)] == [True, False, False, False, False]


def test_best_is_the_fastest_of_those_that_chance_alone_may_tell_apart() -> None:
    one = 1 / 96
    exact = _trial(0.9, Calibration.ENTROPY, p50_ms=0.5)
    # One example of 96 that is answered otherwise: its difference and its standard error are 1 / 96.
    near = _trial(0.9 - one, Calibration.MIN_MAX, p50_ms=0.4, error=one)
    nearer_and_slower = _trial(0.9, Calibration.PERCENTILE, p50_ms=0.45, error=one)
    worse = _trial(0.9 - 2 * one, Calibration.SQUARED_ERROR, p50_ms=0.1, error=math.sqrt(2) / 96)
    assert best_of([exact, worse, nearer_and_slower, near]) == near
    assert best_of([exact, worse]) == exact
    # Two looks at one artifact differ by as much.
    assert best_of([exact, replace(near, p50_ms=0.49)]) == exact
    # What chance may tell apart is good enough or not all the same.
    assert best_of([exact, near], 0.9) == exact
    assert best_of([exact, near], 0.95) == near
    lower = [replace(t, accuracy=1 - (t.accuracy or 0.0), higher_is_better=False) for t in (exact, near, worse)]
    assert best_of(lower) == lower[1]


class _Told:
    """Trials whose outcomes are told by name; notes what was asked for."""

    def __init__(self, **told: float) -> None:
        self.told, self.asked = told, list[str]()

    def trial(self, variant: QuantizationVariant) -> VariantTrial:
        self.asked.append(variant.name)
        return VariantTrial(variant=variant, accuracy=self.told.get(variant.name, 0.0))


def test_training_goes_on_from_the_best_whose_activations_are_quantized(tmp_path: Path) -> None:
    trials = _Told(default=0.1, entropy=0.2, weights16=0.3)
    kinds = {"quantization.variants": ["weights16", "entropy", "qat"], "training.epochs": 0}
    with compressor(tmp_path, target=kinds) as one:
        subject = Quantizable(rung=INT8.rung, model=one.dense, floors=Floors(), limits=LOOSE)
        found = VariantSearcher(one.bench, one)._searched(subject, trials, "")  # type: ignore[arg-type]
    assert trials.asked == ["default", "entropy", "weights16", "qat2-entropy"]
    assert found.chosen.name == "weights16"


def test_best_has_the_least_error_where_lower_is_better() -> None:
    trials = [replace(_trial(error), is_share=False, higher_is_better=False) for error in (0.5, 0.0, 0.4, None)]
    assert best_of(trials) == trials[1]
    assert [is_good(t, -0.4) for t in trials] == [False, True, True, False]
    assert trials[2].summary == "validation accuracy 0.4"
    assert trials[3].told == ""


def test_changes_add_up_and_weights_alone_start_anew() -> None:
    spec = Quantization(qat_epochs=3, smoothing=0.7)
    best = QuantizationVariant(calibration=Calibration.ENTROPY)
    assert changed(best, "equalization", spec).name == "entropy-equalized"
    assert changed(best, "smoothing", spec).name == "entropy-smooth70"
    assert changed(best, "percentile", spec).name == "percentile99.99"
    assert changed(best, "bias_correction", spec).name == "entropy-corrected"
    assert changed(best, "qat", spec).name == "qat3-entropy"
    assert [changed(best, kind, spec).name for kind in ("weights8", "dynamic8", "weights4", "weights16")] == [
        "weights8", "dynamic8", "weights4", "weights16",
    ]  # fmt: skip
    layers = replace(best, float_layers=("one", "two"))
    assert layers.name.startswith("entropy-float2x")
    assert layers.name != replace(best, float_layers=("one", "three")).name


def test_all_ways_there_are_may_be_tried() -> None:
    assert set(Quantization().variants) == set(get_args(Quantizer))
    assert fixed_variant(Quantization()) is None
    every = Quantization(fixed=("entropy", "equalization", "smoothing", "bias_correction", "qat"))
    assert fixed_variant(every) == QuantizationVariant(
        calibration=Calibration.ENTROPY,
        equalized=True,
        smoothing=0.5,
        bias_correction=BiasCorrection.SEQUENTIAL,
        qat_epochs=2,
    )


def test_shapes_are_measured_by_the_kernels_that_will_run() -> None:
    assert shape_variant(Quantization()) == DEFAULT_VARIANT
    # Ranges and biases are data: the kernels are those of the default.
    assert shape_variant(Quantization(fixed=("entropy", "bias_correction"))) == DEFAULT_VARIANT
    assert shape_variant(Quantization(fixed=("weights8",))) == QuantizationVariant(weight_only_bits=8)
    assert shape_variant(Quantization(fixed=("dynamic8",))) == QuantizationVariant(weight_only_bits=8, dynamic=True)


def test_worst_layers_come_in_the_files_order() -> None:
    ranking = LayerRanking(layers=(("a", 0.3), ("b", 0.1), ("c", 0.2), ("d", 0.3)))
    assert ranking.worst(1) == ("b",)
    assert ranking.worst(3) == ("a", "b", "c")


def test_share_of_linear_layers_counts_attention() -> None:
    assert linear_share(nn.Sequential(nn.Conv2d(1, 5, 1), nn.Linear(3, 10))) == 40 / 50
    assert linear_share(nn.MultiheadAttention(4, 2)) == 1.0


def test_layers_are_ranked_on_training_data_that_calibrate_nothing(tmp_path: Path) -> None:
    with compressor(tmp_path) as one:
        train, spec = one.bench.data.train, one.bench.target.spec.preprocessing
    calibration = calibration_samples(train, spec, 32, seed=4)
    held_out = held_out_samples(train, spec, 32, seed=4, most=50)
    assert len(held_out) == 50
    everything = {row.tobytes() for row in train.inputs}
    assert {row.tobytes() for row in held_out} <= everything
    assert not {row.tobytes() for row in held_out} & {row.tobytes() for row in calibration}
    assert len(held_out_samples(train, spec, len(train), seed=4, most=50)) == 50
    assert np.array_equal(held_out, held_out_samples(train, spec, 32, seed=4, most=50))
