"""The loop, and the one place that knows the order of the stages.

plan (shapes on the device) -> dense baseline -> each planned rung: compress, compile, evaluate, measure, judge ->
the first that passes -> test split, once -> report. What was finished before is not repeated.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from edgeprune.events import Reporter
from edgeprune.gating.limits import with_absolute_limits
from edgeprune.planning.feasibility import over_budget
from edgeprune.records.accuracy import Accuracy
from edgeprune.records.result import BuildResult, Candidate, CandidateStatus, TimelineEntry
from edgeprune.records.rung import Plan, PlannedRung, Precision, PruningKind
from edgeprune.records.verdict import Evidence, Verdict, worst_verdict
from edgeprune.steps.candidates import CandidateMaker, Compiled
from edgeprune.steps.compressing import Compressor
from edgeprune.steps.inputs import tool_versions
from edgeprune.steps.outcome import BuildInputs, forget_undecided, write_outcome
from edgeprune.steps.planning import make_plan, no_plan_error
from edgeprune.steps.session import open_host_session, open_session
from edgeprune.steps.shapes import ShapeBench
from edgeprune.steps.workbench import Workbench
from edgeprune.store.event_log import EventLog, TeeReporter
from edgeprune.store.inputs_file import write_inputs
from edgeprune.store.run_folder import RunFolder, digest


def run_plan(inputs: BuildInputs, reporter: Reporter) -> Plan:
    """Measure the ladder's shapes on the device; nothing is trained."""
    with _workbench(inputs, reporter) as bench:
        return make_plan(bench)


def run_build(inputs: BuildInputs, reporter: Reporter) -> BuildResult:
    """Build; steps that were finished before with the same inputs are not repeated.

    Raises:
        PlanError: no rung's shape fits the budget.
    """
    identity = inputs.identity()
    forget_undecided(inputs.folder)
    with _workbench(inputs, reporter) as bench:
        result, evidence = _Build(bench).run()
        write_outcome(bench.run.root, result, evidence)
        write_inputs(bench.run.root, identity)
    return result


@contextmanager
def _workbench(inputs: BuildInputs, reporter: Reporter) -> Iterator[Workbench]:
    run = RunFolder(inputs.folder)
    with run.locked(), EventLog(run.root / "events.jsonl") as log:
        told = TeeReporter((reporter, log))
        with open_session(inputs.device) as device, open_host_session() as host:
            yield Workbench(
                target=inputs.target,
                profile=inputs.profile,
                device_spec=inputs.device,
                run=run,
                reporter=told,
                device=device,
                host=host,
            )


class _Build:
    """One pass through the ladder."""

    def __init__(self, bench: Workbench) -> None:
        self.bench = bench
        self.maker = CandidateMaker(bench, Compressor(bench))
        self.started_s = time.monotonic()

    def run(self) -> tuple[BuildResult, Evidence | None]:
        plan = make_plan(self.bench)
        if not plan.planned:
            raise no_plan_error(plan)
        compiled, dense = self.maker.dense(plan.dense)
        tried, evidence = self._climb(plan, compiled, dense)
        chosen = next((c for c in tried if c.status is CandidateStatus.CHOSEN), None)
        beside = self._dense_on_same_runtime(plan, chosen)
        if chosen is not None:
            dense, chosen = self._tested(dense), self._tested(chosen)
            tried = [chosen if c.rung == chosen.rung else c for c in tried]
        result = BuildResult(
            target=self.bench.target.spec.name,
            profile=self.bench.profile.name,
            device=self.bench.device_spec.name,
            verdict=Verdict.PASS if chosen else _nearest_miss(tried),
            dense=dense,
            chosen=chosen,
            candidates=(*beside, *tried),
            plan=replace(plan, limits=with_absolute_limits(evidence).limits) if evidence else plan,
            folder=str(self.bench.run.root.resolve()),
            seconds=time.monotonic() - self.started_s,
            timeline=tuple(TimelineEntry(step=o.name, seconds=o.seconds) for o in self.bench.run.outcomes),
            seed=self.bench.target.spec.seed,
            versions=tool_versions(),
        )
        return result, evidence

    def _climb(self, plan: Plan, compiled: Compiled, dense: Candidate) -> tuple[list[Candidate], Evidence | None]:
        """Try the planned rungs in order; the first that passes ends it."""
        tried: list[Candidate] = []
        evidence: Evidence | None = None
        dense_p50_ms = dense.percentile_ms(50.0) or plan.dense.p50_ms or 1.0
        for planned in plan.planned:
            weaker = _weaker_that_lost_accuracy(planned, tried)
            if weaker is not None:
                self.bench.note(f"{planned.rung.name} is not tried: {weaker.rung.name} already lost too much accuracy")
                continue
            if planned.p50_ms is None and not self._shape_fits(planned, plan):
                continue
            candidate, found = self.maker.attempt(planned, compiled, dense_p50_ms)
            tried.append(candidate)
            evidence = found or evidence
            verdict = candidate.judgement.verdict if candidate.judgement else candidate.status
            level = "info" if candidate.status is CandidateStatus.CHOSEN else "warning"
            self.bench.note(f"{planned.rung.name}: {verdict}: {candidate.reason}", level)
            if candidate.status is CandidateStatus.CHOSEN:
                break
        return tried, evidence

    def _shape_fits(self, planned: PlannedRung, plan: Plan) -> bool:
        """A fallback is measured before it is trained, like every other rung."""
        refusal = over_budget(ShapeBench(self.bench).measure(planned.rung), plan.limits)
        if refusal is not None:
            self.bench.note(f"{planned.rung.name} is not tried: {refusal}", "warning")
        return refusal is None

    def _dense_on_same_runtime(self, plan: Plan, chosen: Candidate | None) -> tuple[Candidate, ...]:
        """Dense float32 on the chosen model's own runtime and threads, where the fastest dense one is another."""
        if chosen is None:
            return ()
        place = (chosen.rung.runtime, chosen.rung.threads)
        for planned in plan.rungs:
            rung = planned.rung
            is_dense = rung.precision is Precision.FLOAT32 and rung.pruning is PruningKind.NONE
            if is_dense and rung != plan.dense.rung and (rung.runtime, rung.threads) == place:
                return (self.maker.dense(planned)[1],)
        return ()

    def _tested(self, candidate: Candidate) -> Candidate:
        name = candidate.rung.name
        self.bench.note(f"reading the test split for {name}: all choices are made")
        key = digest(candidate.artifact.digest if candidate.artifact else "", self.bench.data_key)
        accuracy = self.bench.step(
            "test",
            name,
            key,
            Accuracy,
            lambda _: self.maker.test_accuracy(candidate, self.bench.data.test),
            lambda a: f"test accuracy {100 * a.overall:.2f} %",
        )
        return replace(candidate, test=accuracy)


def _weaker_that_lost_accuracy(planned: PlannedRung, tried: list[Candidate]) -> Candidate | None:
    """A rung that takes out less of the same model, and failed for accuracy: taking out more cannot help."""

    def same_but_less(other: Candidate) -> bool:
        ours, theirs = planned.rung, other.rung
        alike = (ours.runtime, ours.precision, ours.pruning) == (theirs.runtime, theirs.precision, theirs.pruning)
        return alike and ours.pruning is not PruningKind.NONE and theirs.pruning_ratio <= ours.pruning_ratio

    return next((c for c in tried if same_but_less(c) and _failed_gates(c) & {"accuracy", "worst_class"}), None)


def _failed_gates(candidate: Candidate) -> set[str]:
    gates = candidate.judgement.gates if candidate.judgement else ()
    return {g.gate for g in gates if g.verdict is Verdict.FAIL}


def _nearest_miss(tried: list[Candidate]) -> Verdict:
    """Undecided beats decided: when one candidate could still pass, the build does not say that none can."""
    verdicts = {c.judgement.verdict for c in tried if c.judgement}
    for undecided in (Verdict.INVALID, Verdict.INCONCLUSIVE):
        if undecided in verdicts:
            return undecided
    return worst_verdict(verdicts or {Verdict.FAIL})
