"""What compression costs ResNet-20 in accuracy on CIFAR-10, by the methods of a build and with its recovery.

    python tools/bench_compression.py --cifar ../shared/data --output runs/compression
    python tools/bench_compression.py --cifar ../shared/data --output runs/compression --resume

Parts: `one-shot` zeroes single weights by each criterion, before and after the batch norms are re-estimated;
`iterative` zeroes them in rounds with recovery; `structured` takes channels and blocks out until so many times fewer
multiply-accumulates are left, by the planner's losses; `deployed` compiles the dense and the structured models for each
runtime in float32 and INT8, and measures p50 on this machine, one thread, in turn with the dense float32 one of that
runtime; `built` is `edgeprune build` of the target (with `--built-epochs` of recovery), for each runtime alone, so many
times as fast as its dense float32: the planner chooses what to cut by the device's milliseconds. Choices are made on
the even half of the test images (the public weights have seen every training image). The figures are those of the odd
half, which is read for each row, when its model is made: no choice looks at them. Every row and step is kept in
`--output`, so that a run of hours goes on where it ended, with `--resume`: with the same target, profile, data, device
and libraries. Rows of other code stay, and are named below the table.
"""

from __future__ import annotations

import argparse
import copy
import os
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

from bench_origin import origin_of
from bench_parts import KeptRows, add_output, kept_rows, millions_of_macs, opened_workbench

from edgeprune.api import build
from edgeprune.errors import BuildError, PlanError
from edgeprune.planning.allocation import Allocation, allocate
from edgeprune.planning.allocation_problem import Block, Choice, Configuration
from edgeprune.planning.cost import CostModel
from edgeprune.planning.shape_problem import LATENCY, ShapeProblem
from edgeprune.protocols import Granularity
from edgeprune.pruning.criteria import CRITERIA
from edgeprune.pruning.maskable import Maskable, find_maskable
from edgeprune.pruning.masks import WeightMasks
from edgeprune.pruning.reconstruction import reconstruct_weights_
from edgeprune.pruning.scoring import weight_scores
from edgeprune.records.comparison import Ratio
from edgeprune.records.rung import PlannedRung, Precision, PruningKind, Rung, RungStatus
from edgeprune.schema.profile import Budget, DeviceProfile
from edgeprune.schema.training import Recovery
from edgeprune.steps.candidates import CandidateMaker, Compiled
from edgeprune.steps.comparing import compare_artifacts
from edgeprune.steps.compressing import Compressor, TorchModel
from edgeprune.steps.evaluating import torch_outputs
from edgeprune.steps.inputs import Target, load_profile, load_target
from edgeprune.steps.narrowing import structured_rung
from edgeprune.steps.open_model import OpenModel
from edgeprune.steps.sensitivity import GroupLosses
from edgeprune.steps.workbench import Workbench

if TYPE_CHECKING:
    from torch import Tensor, nn

ONE_SHOT = (0.5, 0.6, 0.7, 0.8, 0.9)
ITERATIVE = (0.7, 0.8, 0.9)
FEWER_MACS = (1.37, 2.0)
SPEEDUPS = (3.0,)
_WIDTH_STEP = 2
_P50 = 50.0
_STEPS = ((0, 0.7), (1, 0.85), (2, 0.95), (3, 1.0))
"""Epoch, and share of the zeros that is in from then on."""
_PUBLISHED_SOURCE = "Benbaki et al. 2023, arXiv:2302.14623"
_PUBLISHED: Mapping[str, tuple[float, ...]] = {
    "magnitude": (88.44, 85.24, 78.79, 54.01, 11.79),
    "WoodFisher": (90.23, 87.96, 81.05, 62.63, 11.49),
    "CHITA": (90.60, 89.22, 84.12, 57.90, 15.60),
}


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
        criteria: of one-shot pruning; `refit` are those whose weights are refitted too.
        one_shot_shares: of zeros in one-shot pruning.
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
        rounds = {"schedule": "steps", "steps": _STEPS}
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

    def accuracies(self, model: nn.Module) -> tuple[float, float]:
        """On the even half and on the odd half."""
        bench = self.bench
        both = (("validation", bench.data.validation), ("test", bench.data.test))
        found = [
            bench.task.accuracy_of(torch_outputs(model, bench.prepared(split)), split, name).overall
            for name, split in both
        ]
        return found[0], found[1]

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


def one_shot(engine: Engine, kept: KeptRows[Row]) -> None:
    """Zeros by each criterion that scores single weights: as they are; norms re-estimated; or weights refitted."""
    compressor, seed = engine.cutting, engine.bench.target.spec.seed
    dense = compressor.dense_module
    layers = find_maskable(dense, engine.bench.example)
    for name in (n for n in engine.options.criteria if Granularity.WEIGHT in CRITERIA.get(n).granularities):
        last = f"{name}, {'refit' if name in engine.options.refit else 'norms'}"
        missing = [s for s in engine.options.one_shot_shares if ("one-shot", last, s, seed) not in kept.rows]
        if missing:
            scores = weight_scores(dense, layers.layers, CRITERIA.get(name), seed=seed, data=compressor.scorer.data)
        for share in missing:
            for stages, model in _zeroed(engine, layers, scores, share, refit=name in engine.options.refit):
                validation, test = engine.accuracies(model)
                kept.add(
                    Row(
                        part="one-shot",
                        method=f"{name}{stages}",
                        amount=share,
                        seed=seed,
                        validation=validation,
                        test=test,
                    )
                )


def _zeroed(
    engine: Engine, layers: Maskable, scores: Mapping[str, Tensor], share: float, *, refit: bool
) -> Iterator[tuple[str, nn.Module]]:
    compressor, dense = engine.cutting, engine.cutting.dense_module
    model = copy.deepcopy(dense)
    masks = WeightMasks.unstructured(model, layers, share, scores=scores)
    masks.apply_()
    yield "", model
    settled = copy.deepcopy(model)
    compressor.settle_(settled)
    yield ", norms", settled
    if refit:
        # Norms are not re-estimated after it, which costs points: it was fitted to the old ones.
        reconstruct_weights_(model, dense, masks, compressor.scorer.inputs, seed=engine.bench.target.spec.seed)
        yield ", refit", model


def iterative(engine: Engine, kept: KeptRows[Row]) -> None:
    """Zeros in rounds, with recovery after each."""
    for share in engine.options.shares:
        criterion = engine.bench.target.spec.pruning.weight_criterion
        method = engine.options.zeroed_by(criterion)
        _trained(engine, kept, engine.masking, partial(_masked, share), ("iterative", method, share))


def _masked(share: float) -> PlannedRung:
    rung = Rung(runtime="openvino", precision=Precision.FLOAT32, pruning=PruningKind.UNSTRUCTURED, pruning_ratio=share)
    return PlannedRung(rung=rung, status=RungStatus.PLANNED, reason="", accuracy_cost=0.0)


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
    validation, test = engine.accuracies(compressor.load(made))
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


PARTS: Mapping[str, Callable[[Engine, KeptRows[Row]], None]] = {
    "one-shot": one_shot,
    "iterative": iterative,
    "structured": structured,
    "deployed": deployed,
    "built": built,
}


def table(rows: Sequence[Row]) -> str:
    """Mean, standard deviation and number of the seeds, on the odd half; the mean on the even half.

    The median p50, and the mean speed-up at p50.
    """
    head = f"{'part':<11} {'method':<28} {'amount':>6} {'even half':>9} {'odd half':>8} {'sd':>5} {'n':>2} {'p50':>9}"
    lines = [f"{head} {'speed-up':>8}"]
    for entry in dict.fromkeys((r.part, r.method, r.amount) for r in rows):
        found = [r for r in rows if (r.part, r.method, r.amount) == entry]
        tests = [100 * r.test for r in found]
        deviation = f"{statistics.stdev(tests):.2f}" if len(tests) > 1 else "-"
        latencies = [r.p50_ms for r in found if r.p50_ms is not None]
        p50 = f"{statistics.median(latencies):.4f}" if latencies else "-"
        speedups = [r.speedup for r in found if r.speedup is not None]
        faster = f"{statistics.mean(speedups):.2f}x" if speedups else "-"
        details = "; ".join(dict.fromkeys(r.detail for r in found if r.detail))
        validation = 100 * statistics.mean(r.validation for r in found)
        odd = f"{statistics.mean(tests):>8.2f} {deviation:>5} {len(found):>2}"
        part, method, amount = entry
        line = f"{part:<11} {method:<28} {amount:>6g} {validation:>9.2f} {odd} {p50:>9} {faster:>8}  {details}"
        lines.append(line.rstrip())
    return "\n".join(lines)


def published() -> str:
    """What others published of one-shot zeros in this network, to stand beside; of other weights (91.36 dense)."""
    lines = [f"published, one-shot, dense 91.36 ({_PUBLISHED_SOURCE}):"]
    for name, accuracies in _PUBLISHED.items():
        told = ", ".join(f"{share:.0%} {accuracy:.2f}" for share, accuracy in zip(ONE_SHOT, accuracies, strict=True))
        lines.append(f"  {name:<12} {told}")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Run what is asked for, or go on with it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cifar", type=Path, help="folder with cifar10/ and cifar10_resnets/; or $EDGEPRUNE_DATA")
    parser.add_argument("--target", type=Path, default=Path("targets/cifar10-resnet20"), help="another one to compress")
    parser.add_argument("--profile", default="profiles/local-2x.toml", help="names the runtimes, deployed and built")
    parser.add_argument("--runtimes", nargs="+", help="of the profile's; by default all")
    add_output(parser)
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--criteria", nargs="+", choices=CRITERIA.names(), default=CRITERIA.names(), help="one-shot")
    parser.add_argument("--refit", nargs="*", choices=CRITERIA.names(), default=["l1", "obc"], help="one-shot")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--one-shot-shares", type=float, nargs="+", default=ONE_SHOT, help="of zeros, one-shot")
    parser.add_argument("--shares", type=float, nargs="+", default=ITERATIVE, help="of zeros, iterative")
    parser.add_argument(
        "--fewer-macs", type=float, nargs="+", default=FEWER_MACS, help="times, structured and deployed"
    )
    parser.add_argument("--speedups", type=float, nargs="+", default=SPEEDUPS, help="at p50, built")
    parser.add_argument("--iterative-epochs", type=int, default=10, help="of recovery, over four rounds")
    parser.add_argument("--structured-epochs", type=int, default=20, help="of recovery, structured and deployed")
    parser.add_argument("--built-epochs", type=int, help="of recovery, built; by default the target's")
    parser.add_argument("--iterative-learning-rate", type=float, default=0.05, help="peak of recovery")
    parser.add_argument(
        "--structured-learning-rate", type=float, help="peak of recovery; by default a tenth of the training's"
    )
    arguments = parser.parse_args(argv)
    if arguments.iterative_epochs <= _STEPS[-1][0]:
        parser.error(
            f"--iterative-epochs: expected more than {_STEPS[-1][0]}, one a round, got {arguments.iterative_epochs}"
        )
    profile = load_profile(arguments.profile)
    runtimes = arguments.runtimes or list(profile.runtimes)
    if strange := sorted(set(runtimes) - set(profile.runtimes)):
        parser.error(f"--runtimes: profile {profile.name} has {', '.join(profile.runtimes)}, not {strange[0]}")
    profile = profile.model_copy(update={"runtimes": {name: profile.runtimes[name] for name in runtimes}})
    if arguments.cifar is not None:
        os.environ["EDGEPRUNE_DATA"] = str(arguments.cifar.resolve())
    # Epochs and rates of recovery are in the rows' names.
    kept = kept_rows(parser, arguments, Row, lambda: origin_of(load_target(arguments.target), profile), __file__)
    for part in arguments.parts:
        for seed in arguments.seeds:
            with _engine(arguments, profile, seed) as engine:
                PARTS[part](engine, kept)
    rows = list(kept.rows.values())
    print("\n".join([table(rows), *kept.of_other_code(rows)]))
    if "one-shot" in arguments.parts:
        print(published())


@contextmanager
def _engine(arguments: argparse.Namespace, profile: DeviceProfile, seed: int) -> Iterator[Engine]:
    target = load_target(arguments.target)
    target = replace(target, spec=target.spec.model_copy(update={"seed": seed}))
    with opened_workbench(target, profile, "local", arguments.output / f"seed{seed}") as bench:
        asked = {field.name: getattr(arguments, field.name) for field in fields(Options)}
        yield Engine(bench, Options(**asked))


if __name__ == "__main__":
    main()
