"""Plausible records made by hand, with seeded samples, for tests that need one and do not care how it came about."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np

from edgeprune.clustering import ProcessSamples
from edgeprune.gating.judge import judge
from edgeprune.records.accuracy import Accuracy
from edgeprune.records.artifact import Artifact, ArtifactFile, Parity, TensorSpec
from edgeprune.records.breakdown import Breakdown, GroupSteps, OperatorCost, PlaceSurvey
from edgeprune.records.measurement import Block, DeviceFacts, DisturbedBlock, Measurement
from edgeprune.records.result import BuildResult, Candidate, CandidateStatus, TimelineEntry
from edgeprune.records.rung import (
    GroupWidth,
    Limits,
    Plan,
    PlannedRung,
    Precision,
    PruningKind,
    Rung,
    RungStatus,
)
from edgeprune.records.sensitivity import CurvePoint, GroupCurve, Sensitivity
from edgeprune.records.staircase import Staircase
from edgeprune.records.verdict import Evidence, Floors, Judgement, Verdict
from edgeprune.statistics import percentile

FLOAT = Rung(runtime="openvino", precision=Precision.FLOAT32)
INT8 = Rung(runtime="openvino", precision=Precision.INT8)
PRUNED = replace(INT8, pruning=PruningKind.STRUCTURED, pruning_ratio=0.375)
LIMITS = Limits(p50_ms=2.6, p99_ms=3.4, memory_bytes=160_000_000, artifact_bytes=400_000)
FLOORS = Floors(accuracy=0.905, worst_class_recall=0.8)
WIDTHS = tuple(
    GroupWidth(group=f"layer{stage}.{block}.conv1", before=16 * 2**stage, after=after)
    for stage, block, after in ((0, 0, 8), (0, 1, 16), (1, 0, 16), (1, 1, 24), (2, 0, 32), (2, 1, 48))
)


def make_samples_ns(count: int, *, p50_ms: float = 2.0, spread: float = 0.05, seed: int = 0) -> tuple[int, ...]:
    """Lognormal latencies around a median."""
    drawn = p50_ms * 1e6 * np.exp(spread * np.random.default_rng(seed).standard_normal(count))
    return tuple(int(x) for x in drawn)


def make_block(samples_ns: tuple[int, ...] | None = None, **changes: object) -> Block:
    """An undisturbed block of one pinned thread; `changes` replace single fields."""
    samples = make_samples_ns(200) if samples_ns is None else samples_ns
    wall_ns = int(sum(samples) * 1.01)
    block = Block(
        samples_ns=samples,
        warmup_runs=40,
        warmup_steady=True,
        load_ns=31_000_000,
        base_bytes=88_000_000,
        peak_load_bytes=101_000_000,
        peak_bytes=104_500_000,
        voluntary_switches=2,
        involuntary_switches=1,
        major_faults=0,
        cpu_ns=int(wall_ns * 0.995),
        wall_ns=wall_ns,
        steal_ticks=0,
        other_ticks=0,
        cpus=(1,),
        started_unix_s=1_763_700_000.0,
    )
    return replace(block, **changes)  # type: ignore[arg-type]


def make_facts() -> DeviceFacts:
    """A small x86 box."""
    return DeviceFacts(
        machine="x86_64",
        system="Linux",
        kernel="6.1.0",
        cpu_model="Intel(R) N100",
        cpu_flags=("avx2",),
        cores=4,
        memory_bytes=8_000_000_000,
        disk_free_bytes=20_000_000_000,
        python="3.11.2",
        numpy="2.1.0",
        runtimes=(("openvino", "2025.3.0"),),
        boot_id="8a1c",
    )


def make_measurement(
    rung: Rung = INT8, *, p50_ms: float = 2.0, processes: int = 10, runs: int = 200, seed: int = 0
) -> Measurement:
    """Undisturbed blocks at the first of three looks; as many processes as a p99 takes to be certain."""
    blocks = tuple(
        make_block(make_samples_ns(runs, p50_ms=p50_ms, seed=seed + k), peak_bytes=104_500_000 + 100_000 * k)
        for k in range(processes)
    )
    return Measurement(
        artifact_digest=hashlib.sha256(rung.name.encode()).hexdigest(),
        runtime=rung.runtime,
        precision=rung.precision,
        threads=rung.threads,
        device=make_facts(),
        blocks=blocks,
        looks=1,
        planned_looks=3,
        confidence=0.95,
    )


def make_accuracy(correct: int = 465, total: int = 500, *, split: str = "validation", classes: int = 5) -> Accuracy:
    """A confusion matrix with equal classes; wrong answers are in the last classes and say the first."""
    size = total // classes
    rows = [[size if i == j else 0 for j in range(classes)] for i in range(classes)]
    wrong = total - correct
    for k in reversed(range(1, classes)):
        here = min(wrong, size)
        rows[k][k], rows[k][0] = size - here, here
        wrong -= here
    return Accuracy(
        split=split,
        confusion=tuple(tuple(row) for row in rows),
        class_names=tuple(f"class{i}" for i in range(classes)),
    )


def make_artifact(rung: Rung = INT8, size_bytes: int = 320_000) -> Artifact:
    """One file of the given size."""
    return Artifact(
        runtime=rung.runtime,
        precision=rung.precision,
        files=(ArtifactFile(name="model.xml", sha256="0" * 64, size_bytes=size_bytes),),
        inputs=(TensorSpec(name="input", shape=(1, 3, 32, 32), dtype="float32"),),
        outputs=(TensorSpec(name="logits", shape=(1, 5), dtype="float32"),),
        format="openvino ir 11",
    )


def make_evidence(
    limits: Limits = LIMITS,
    floors: Floors = FLOORS,
    *,
    measurement: Measurement | None = None,
    accuracy: Accuracy | None = None,
    artifact_bytes: int = 320_000,
) -> Evidence:
    """Evidence that passes every gate unless told otherwise."""
    return Evidence(
        limits=limits,
        floors=floors,
        artifact_bytes=artifact_bytes,
        measurement=measurement or make_measurement(),
        accuracy=accuracy or make_accuracy(480),
    )


def make_judgement(**changes: object) -> Judgement:
    """The judgement of `make_evidence`."""
    return judge(replace(make_evidence(), **changes))  # type: ignore[arg-type]


def make_candidate(
    rung: Rung,
    status: CandidateStatus,
    reason: str,
    *,
    p50_ms: float,
    correct: int,
    size_bytes: int,
    seed: int = 0,
    widths: tuple[GroupWidth, ...] = (),
) -> Candidate:
    """A measured candidate, judged unless it is the dense baseline."""
    measurement = make_measurement(rung, p50_ms=p50_ms, seed=seed, runs=300)
    accuracy = make_accuracy(correct)
    judged = judge(make_evidence(measurement=measurement, accuracy=accuracy, artifact_bytes=size_bytes))
    final = status in {CandidateStatus.DENSE, CandidateStatus.CHOSEN}
    share = sum(w.after for w in widths) / sum(w.before for w in widths) if widths else 1.0
    return Candidate(
        rung=rung,
        status=status,
        reason=reason,
        folder=f"candidates/{rung.name}",
        artifact=make_artifact(rung, size_bytes),
        parity=Parity(samples=32, max_relative_error=0.01, top1_agreement=1.0, passed=True, detail="limit 0.05"),
        measurement=measurement,
        percentiles=tuple(percentile(ProcessSamples(measurement.processes_ns), p, 0.95) for p in (50.0, 90.0, 99.0)),
        validation=accuracy,
        test=make_accuracy(correct - 5, split="test") if final else None,
        judgement=None if status is CandidateStatus.DENSE else judged,
        widths=widths,
        parameters=int(272_000 * share),
        macs=int(41_000_000 * share),
        load_ms=31.0,
        seconds=42.0,
    )


def make_dense() -> Candidate:
    """The baseline, with one disturbed block."""
    dense = make_candidate(
        FLOAT, CandidateStatus.DENSE, "baseline", p50_ms=6.1, correct=482, size_bytes=1_230_000, seed=10
    )
    assert dense.measurement is not None
    bad = make_block(make_samples_ns(300, p50_ms=6.1, seed=99), involuntary_switches=189)
    disturbed = DisturbedBlock(block=bad, reason="189 involuntary context switches in 1.85 s (limit 42)")
    return replace(dense, measurement=replace(dense.measurement, disturbed=(disturbed,)))


def make_breakdown(factor: float = 1.0, *, measured_ms: float | None = None) -> Breakdown:
    """A stem that nothing narrows, the groups' layers with an addition to the first, and a rest of 0.4 ms."""
    groups = [OperatorCost(layer=w.group, kind="conv3x3", latency_ms=0.25 * factor) for w in WIDTHS]
    return Breakdown(
        operators=(
            OperatorCost(layer="stem", kind="conv3x3", latency_ms=0.1, fixed=True),
            groups[0],
            OperatorCost(layer=WIDTHS[0].group, kind="add", latency_ms=0.05 * factor),
            *groups[1:],
        ),
        rest_ms=0.4,
        observations=3,
        measured_ms=measured_ms,
        runtime_ms=0.03,
    )


def make_survey(place: str = PRUNED.place) -> PlaceSurvey:
    """Staircases whose every multiple of 8 is a knee; one channel less than the full width is slower than that."""
    groups = []
    for w in WIDTHS:
        points = [(width, 0.02 * width) for width in range(8, w.before + 1, 8)]
        points.insert(-1, (w.before - 1, 0.021 * w.before))
        groups.append(GroupSteps(group=w.group, staircase=Staircase(operator=w.group, points=tuple(points))))
    return PlaceSurvey(place=place, full=make_breakdown(2.0, measured_ms=3.1), groups=tuple(groups))


def make_sensitivity() -> Sensitivity:
    """Each group loses more the narrower it is; one point is lower than a wider one, as noise makes it."""
    curves = tuple(
        GroupCurve(
            group=w.group,
            width=w.before,
            points=(
                CurvePoint(width=w.before // 4, loss_increase=0.9, accuracy=0.7),
                CurvePoint(width=w.before // 2, loss_increase=0.1, accuracy=0.9),
                CurvePoint(width=3 * w.before // 4, loss_increase=0.2, accuracy=0.9),
            ),
        )
        for w in WIDTHS
    )
    return Sensitivity(examples=500, loss=0.2, accuracy=0.93, criterion="l1", curves=curves)


def make_plan() -> Plan:
    """Three rungs taken, two refused."""
    planned = RungStatus.PLANNED
    rungs = (
        PlannedRung(
            rung=replace(FLOAT, precision=Precision.BF16), status=planned, reason="bf16 on this CPU", accuracy_cost=1.0,
            p50_ms=4.4, p99_ms=5.2, artifact_bytes=1_230_000, peak_bytes=112_000_000,
        ),
        PlannedRung(
            rung=INT8, status=planned, reason="INT8 costs less accuracy than cutting channels", accuracy_cost=2.0,
            p50_ms=3.1, p99_ms=3.6, artifact_bytes=420_000, peak_bytes=106_000_000,
        ),
        PlannedRung(
            rung=PRUNED, status=planned, reason="widths at knees: 8, 16, 24, 32, 48", accuracy_cost=3.0,
            p50_ms=2.1, p99_ms=2.4, artifact_bytes=320_000, peak_bytes=104_000_000, widths=WIDTHS,
            breakdown=make_breakdown(measured_ms=2.1),
        ),
        PlannedRung(
            rung=replace(PRUNED, pruning_ratio=0.75), status=planned, reason="widths at knees", accuracy_cost=5.0,
            p50_ms=1.4, p99_ms=1.7, artifact_bytes=180_000, peak_bytes=103_000_000,
        ),
        PlannedRung(
            rung=replace(FLOAT, pruning=PruningKind.UNSTRUCTURED, pruning_ratio=0.9), status=RungStatus.REFUSED,
            reason="zeros buy no time here: 90 % zeros ran at 1.00x", accuracy_cost=4.0,
        ),
    )  # fmt: skip
    dense = PlannedRung(
        rung=FLOAT, status=planned, reason="fastest dense float32", accuracy_cost=0.0, p50_ms=6.1, p99_ms=6.9
    )
    return Plan(
        rungs=rungs,
        limits=LIMITS,
        dense=dense,
        notes=("probed sparse kernels: none",),
        surveys=(make_survey(),),
        sensitivity=make_sensitivity(),
    )


def make_build_result(target: str = "door") -> BuildResult:
    """A build whose third rung passed after two were rejected."""
    rejected, chosen = CandidateStatus.REJECTED, CandidateStatus.CHOSEN
    bf16 = replace(FLOAT, precision=Precision.BF16)
    candidates = (
        make_candidate(bf16, rejected, "p99 is over its limit", p50_ms=4.4, correct=482, size_bytes=1_230_000, seed=20),
        make_candidate(INT8, rejected, "p99 is over its limit", p50_ms=3.1, correct=480, size_bytes=420_000, seed=30),
        make_candidate(
            PRUNED, chosen, "every gate passed", p50_ms=2.1, correct=480, size_bytes=320_000, seed=40, widths=WIDTHS
        ),
    )
    return BuildResult(
        target=target,
        profile="n100",
        device="box-7",
        verdict=Verdict.PASS,
        dense=make_dense(),
        chosen=candidates[-1],
        candidates=candidates,
        plan=make_plan(),
        folder="/runs/door",
        seconds=321.0,
        timeline=(
            TimelineEntry(step="baseline", seconds=60.0),
            TimelineEntry(step="plan", seconds=21.0),
            TimelineEntry(step="compress", seconds=180.0),
            TimelineEntry(step="measure", seconds=60.0),
        ),
        seed=7,
        versions=(("torch", "2.8.0"), ("openvino", "2025.3.0")),
    )


def make_failed_result() -> BuildResult:
    """The same build when no rung passed: the last one is the nearest miss."""
    result = make_build_result()
    missed = make_candidate(
        PRUNED, CandidateStatus.REJECTED, "p50 is over its limit", p50_ms=2.9, correct=480, size_bytes=320_000,
        seed=40, widths=WIDTHS,
    )  # fmt: skip
    broken = Candidate(
        rung=replace(PRUNED, pruning_ratio=0.75), status=CandidateStatus.FAILED,
        reason="the compiler ran out of memory", folder="candidates/x",
    )  # fmt: skip
    return replace(result, verdict=Verdict.FAIL, chosen=None, candidates=(*result.candidates[:-1], missed, broken))
