"""The parts of `bench_compression.py` that recover what they cut, deploy it, or build it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from bench_parts import KeptRows, accuracies, zeroed_rung
from compression_engine import Engine, Row

from edgeprune.api import build
from edgeprune.errors import PlanError
from edgeprune.records.comparison import Ratio
from edgeprune.records.rung import PlannedRung, Precision, Rung, RungStatus
from edgeprune.schema.profile import Budget
from edgeprune.steps.candidates import CandidateMaker, Compiled
from edgeprune.steps.comparing import compare_artifacts
from edgeprune.steps.compressing import Compressor, TorchModel
from edgeprune.steps.inputs import Target

_P50 = 50.0


def iterative(engine: Engine, kept: KeptRows[Row]) -> None:
    """Zeros in rounds, with recovery after each."""
    for share in engine.options.shares:
        criterion = engine.bench.target.spec.pruning.weight_criterion
        method = engine.options.zeroed_by(criterion)
        _trained(engine, kept, engine.masking, partial(zeroed_rung, share), ("iterative", method, share))


def structured(engine: Engine, kept: KeptRows[Row]) -> None:
    """Fewer channels and blocks, with recovery."""
    for factor in engine.options.fewer_macs:
        criterion = engine.bench.target.spec.pruning.criterion
        method = engine.options.cut_by(criterion)
        _trained(engine, kept, engine.cutting, partial(engine.cut_to, factor), ("structured", method, factor))


def _trained(
    engine: Engine,
    kept: KeptRows[Row],
    compressor: Compressor,
    plan: Callable[[], PlannedRung],
    entry: tuple[str, str, float],
) -> None:
    part, method, amount = entry
    seed = engine.bench.target.spec.seed
    if (part, method, amount, seed) in kept.rows:
        return
    planned = plan()
    made = compressor.compressed(planned)
    validation, test = accuracies(engine.bench, compressor.load(made))
    detail = _described(made, planned)
    kept.add(Row(part=part, method=method, amount=amount, seed=seed, validation=validation, test=test, detail=detail))


def _described(made: TorchModel, planned: PlannedRung) -> str:
    if made.sparsity:
        return f"{made.sparsity:.4f} of the weights are zero"
    return f"{made.macs / 1e6:.1f} M MACs, {made.parameters:,} parameters, {len(planned.removed_blocks)} blocks out"


def deployed(engine: Engine, kept: KeptRows[Row]) -> None:
    """The dense model and the structured ones in every runtime, float32 and INT8."""
    for factor in (1.0, *engine.options.fewer_macs):
        for runtime in engine.bench.profile.runtimes:
            for precision in (Precision.FLOAT32, Precision.INT8):
                _deploy(engine, kept, factor, Rung(runtime=runtime, precision=precision))


def _deploy(engine: Engine, kept: KeptRows[Row], factor: float, place: Rung) -> None:
    seed = engine.bench.target.spec.seed
    options = engine.options
    method = place.place if factor == 1.0 else options.cut_by(place.place)
    if ("deployed", method, factor, seed) in kept.rows:
        return
    planned = _dense_at(place)
    if factor > 1.0:
        cut = engine.cut_to(factor)
        planned = replace(cut, rung=replace(cut.rung, runtime=place.runtime, precision=place.precision))
    maker = CandidateMaker(engine.bench, engine.cutting)
    compiled = maker.compile(planned)
    test = maker.assessor.accuracy(planned.rung, compiled.artifact, compiled.folder, engine.bench.data.test, "test")
    dense = maker.compile(_dense_at(Rung(runtime=place.runtime, precision=Precision.FLOAT32)))
    ratio = None if compiled.key == dense.key else _in_turn(engine, compiled, dense)
    kept.add(
        Row(
            part="deployed",
            method=method,
            amount=factor,
            seed=seed,
            validation=compiled.evaluation.accuracy.overall,
            test=test.overall,
            p50_ms=None if ratio is None else ratio.first_ms,
            speedup=None if ratio is None else 1 / ratio.ratio,
            detail="" if ratio is None else _compared(ratio),
        )
    )


def _dense_at(place: Rung) -> PlannedRung:
    return PlannedRung(rung=place, status=RungStatus.PLANNED, reason="", accuracy_cost=0.0)


def _in_turn(engine: Engine, compiled: Compiled, dense: Compiled) -> Ratio:
    """The p50 of one over that of the other: fresh processes of each, in alternating order."""
    bench = engine.bench
    subjects = (compiled.subject, dense.subject)
    found = compare_artifacts(subjects, bench.device_spec, bench.profile.measurement, bench.reporter)
    return next(ratio for ratio in found.ratios if ratio.percent == _P50)


def _compared(ratio: Ratio) -> str:
    return f"{1 / ratio.upper:.2f}x to {1 / ratio.lower:.2f}x, dense float32 {ratio.second_ms:.4f} ms"


def built(engine: Engine, kept: KeptRows[Row]) -> None:
    """Whole builds, for each runtime alone, within one budget of p50 relative to its dense float32 model."""
    for runtime in engine.bench.profile.runtimes:
        for speedup in engine.options.speedups:
            _build(engine, kept, runtime, speedup)


def _build(engine: Engine, kept: KeptRows[Row], runtime: str, speedup: float) -> None:
    bench, seed = engine.bench, engine.bench.target.spec.seed
    method = engine.options.built_by(runtime)
    if ("built", method, speedup, seed) in kept.rows:
        return
    told = f"built, {method}, {speedup:g}x, seed {seed}"
    asked = {
        "name": f"{runtime}-{speedup:g}x",
        "runtimes": {runtime: bench.profile.runtimes[runtime]},
        "budget": Budget(p50_speedup=speedup),
    }
    profile = bench.profile.model_copy(update=asked)
    try:
        result = build(_target_to_build(engine), profile, output=bench.run.root / "built", reporter=bench.reporter)
    except PlanError as error:
        print(f"{told}: {error.message}", file=sys.stderr)
        return
    chosen, dense_ms = result.chosen, result.dense.percentile_ms(_P50)
    if chosen is None or chosen.validation is None or chosen.test is None or dense_ms is None:
        print(f"{told}: {result.verdict}, {result.candidates[-1].reason}", file=sys.stderr)
        return
    p50_ms = chosen.percentile_ms(_P50)
    kept.add(
        Row(
            part="built",
            method=method,
            amount=speedup,
            seed=seed,
            validation=chosen.validation.overall,
            test=chosen.test.overall,
            p50_ms=p50_ms,
            speedup=None if p50_ms is None else dense_ms / p50_ms,
            detail=f"{chosen.rung.name}, dense float32 {dense_ms:.4f} ms",
        )
    )


def _target_to_build(engine: Engine) -> Target:
    """The target, recovered for as long as builds are asked to."""
    target, epochs = engine.bench.target, engine.options.built_epochs
    if epochs is None:
        return target
    recovery = target.spec.recovery.model_copy(update={"epochs": epochs})
    return replace(target, spec=target.spec.model_copy(update={"recovery": recovery}))
