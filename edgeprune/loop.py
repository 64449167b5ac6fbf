"""The loop, and the one place that knows the order of the stages.

plan (shapes on the device, sensitivity) -> dense baseline -> each planned rung: compress, compile, evaluate, measure,
judge -> the first that passes -> test split, once -> report. What was finished before is not repeated.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial

from edgeprune.errors import BuildError, InputError, MeasurementError
from edgeprune.events import Noted, Reporter
from edgeprune.gating.judge import ACCURACY_GATES
from edgeprune.gating.limits import absolute_limits
from edgeprune.planning.feasibility import over_budget
from edgeprune.records.control import Control
from edgeprune.records.quantization import DEFAULT_VARIANT
from edgeprune.records.result import BuildResult, Candidate, CandidateStatus, TimelineEntry
from edgeprune.records.rung import Plan, PlannedRung, Precision, RungStatus
from edgeprune.records.verdict import Evidence, Verdict
from edgeprune.reporting.timeline import time_line
from edgeprune.steps.candidates import Attempt, CandidateMaker, Compiled
from edgeprune.steps.changes import changes_of
from edgeprune.steps.compressing import Compressor
from edgeprune.steps.controls import ControlMaker, MadeControl
from edgeprune.steps.costs import AccuracyCosts
from edgeprune.steps.examination import check_parts_fit
from edgeprune.steps.final_accuracy import FinalAccuracy
from edgeprune.steps.guarding import check_guards
from edgeprune.steps.health import differences, ready_session
from edgeprune.steps.inputs import tool_versions
from edgeprune.steps.late_fallback import LateFallback, planned_of, sure_to_be_late
from edgeprune.steps.measuring import measured_in_turn
from edgeprune.steps.model_card import split_identities
from edgeprune.steps.narrowing import Narrower
from edgeprune.steps.outcome import BuildInputs, forget_outcome, write_outcome, write_plan, write_refused_plan
from edgeprune.steps.planning import make_plan
from edgeprune.steps.racing import Race
from edgeprune.steps.refusal import no_plan_error
from edgeprune.steps.sensitivity import GroupLosses
from edgeprune.steps.session import DeviceSession, open_host_session
from edgeprune.steps.shapes import ShapeBench, settled
from edgeprune.steps.workbench import Workbench
from edgeprune.store.event_log import EventLog, TeeReporter
from edgeprune.store.inputs_file import write_inputs
from edgeprune.store.readings import ReadingLog
from edgeprune.store.run_folder import RunFolder


def run_plan(inputs: BuildInputs, reporter: Reporter) -> Plan:
    """Measure the ladder's shapes on the device; nothing is trained. The run folder has the plan and a page of it."""
    with _workbench(inputs, reporter) as bench:
        plan = make_plan(bench, GroupLosses(Compressor(bench), may_train=False))
        bench.note(f"the plan and what it rests on are drawn in {write_plan(inputs, plan)}")
        return plan


def run_build(inputs: BuildInputs, reporter: Reporter) -> BuildResult:
    """Build; steps that were finished before with the same inputs are not repeated.

    Raises:
        PlanError: no rung's shape fits the budget; the run folder has the plan and a report of it.
    """
    identity = inputs.identity()
    with _workbench(inputs, reporter) as bench:
        kept_aside = forget_outcome(bench.run.root)
        if kept_aside is not None:
            bench.note(f"what the last build here ended with is kept in {kept_aside}")
        build = _Build(bench, inputs.controls)
        plan = build.plan()
        if not plan.planned:
            raise no_plan_error(plan, write_refused_plan(inputs, plan))
        result, evidence = build.run(plan)
        bench.note(time_line(result))
        write_outcome(inputs, result, evidence)
        write_inputs(bench.run.root, identity)
    return result


@contextmanager
def _workbench(inputs: BuildInputs, reporter: Reporter) -> Iterator[Workbench]:
    run = RunFolder(inputs.folder)
    with run.locked(), EventLog(run.root / "events.jsonl") as log:
        told = TeeReporter((reporter, log))
        with ready_session(inputs.device) as device, open_host_session() as host:
            _check_device(inputs, device, told)
            bench = Workbench(
                target=inputs.target,
                profile=inputs.profile,
                device_spec=inputs.device,
                run=run,
                reporter=told,
                device=device,
                host=host,
                workers=inputs.workers,
            )
            check_parts_fit(inputs.target, bench.data, bench.fresh_model())
            check_guards(inputs.target, bench.data)
            yield bench


def _check_device(inputs: BuildInputs, device: DeviceSession, reporter: Reporter) -> None:
    """A PASS for a class of devices must come from a device of that class.

    Raises:
        InputError: the device has another architecture than the profile.
    """
    wanted, found = inputs.profile.hardware.arch, device.facts.machine
    if wanted not in {"any", found}:
        raise InputError(
            f"profile {inputs.profile.name}: hardware.arch is {wanted}, device {inputs.device.name} is {found}; "
            "enrol a device of that profile and name it with --device",
            expected=wanted,
            found=found,
        )
    for difference in differences(device.facts, inputs.profile):
        reporter.emit(Noted(message=f"device {inputs.device.name}: {difference}", level="warning"))


@dataclass(slots=True)
class _Climbed:
    """What was tried, in order, and which planned rungs were not, with the reason. The plan may have grown."""

    plan: Plan
    attempts: list[Attempt] = field(default_factory=list)
    skipped: list[PlannedRung] = field(default_factory=list)


class _Build:
    """One pass through the ladder."""

    def __init__(self, bench: Workbench, controls: tuple[str, ...] = ()) -> None:
        self.bench = bench
        self.controls = controls
        self.maker = CandidateMaker(bench, Compressor(bench))
        self.losses = GroupLosses(self.maker.compressor, may_train=True)
        self.readings = ReadingLog(bench.run.root, bench.data.test.identity())
        self.started_s = time.monotonic()
        self.planning_s = 0.0

    def plan(self) -> Plan:
        """The plan; what of its time is no step of its own is kept: pricing operators and searching."""
        plan = make_plan(self.bench, self.losses)
        steps_s = sum(o.seconds for o in self.bench.run.outcomes if not o.cached)
        self.planning_s = max(0.0, time.monotonic() - self.started_s - steps_s)
        return plan

    def _timeline(self) -> tuple[TimelineEntry, ...]:
        entries = [TimelineEntry(step="plan", seconds=self.planning_s)]
        for outcome in self.bench.run.outcomes:
            # A step that is asked for again took no time, whoever made it first.
            if not (outcome.cached and any(e.step == outcome.name for e in entries)):
                entries.append(TimelineEntry(step=outcome.name, seconds=outcome.seconds, cached=outcome.cached))
        return tuple(entries)

    def run(self, plan: Plan) -> tuple[BuildResult, Evidence | None]:
        compiled, dense = self.maker.dense(plan.dense)
        plan = Race(AccuracyCosts(self.losses)).decided(plan)
        climbed = self._climb(plan, compiled, dense)
        deciding = _deciding(climbed.attempts)
        chosen = deciding.candidate if deciding and deciding.candidate.status is CandidateStatus.CHOSEN else None
        beside = self._dense_on_same_runtime(plan, chosen)
        tried = [a.candidate for a in climbed.attempts]
        made = self._made_controls(climbed.plan, chosen)
        controls = tuple(m.control for m in made)
        if chosen is not None:
            final = FinalAccuracy(self.bench, self.readings)
            dense, chosen = final.of(dense), final.of(chosen)
            controls = tuple(m.tested(partial(final.test, chosen.rung)) for m in made)
            tried[-1] = chosen
        evidence = deciding.evidence if deciding else None
        if evidence is not None:
            dense = measured_in_turn(dense, evidence, self.bench.profile.measurement)
        result = BuildResult(
            target=self.bench.target.spec.name,
            profile=self.bench.profile.name,
            device=self.bench.device_spec.name,
            verdict=deciding.verdict if deciding else Verdict.FAIL,
            dense=dense,
            chosen=chosen,
            candidates=(*beside, *tried),
            plan=_with_outcome(climbed.plan, climbed.skipped, evidence),
            folder=str(self.bench.run.root.resolve()),
            seconds=time.monotonic() - self.started_s,
            timeline=self._timeline(),
            seed=self.bench.target.spec.seed,
            versions=tool_versions(),
            data=split_identities(self.bench.data),
            test_readings=self.readings.readings,
            controls=controls,
        )
        return replace(result, changes=changes_of(self.bench, result)), evidence

    def _climb(self, plan: Plan, compiled: Compiled, dense: Candidate) -> _Climbed:
        """Try the planned rungs in order; where none passes, what is searched for only then."""
        climbed = _Climbed(plan)
        dense_p50_ms = dense.percentile_ms(50.0) or plan.dense.p50_ms or 1.0
        ended = self._ended_by(plan.planned, climbed, compiled, dense_p50_ms)
        # Widths that a person tells are not searched for.
        if not ended and self.bench.target.spec.pruning.selection != "told":
            late = LateFallback(Narrower(ShapeBench(self.bench), self.losses), AccuracyCosts(self.losses))
            climbed.plan = late.extended(plan, [a.candidate for a in climbed.attempts])
            self._ended_by(planned_of(plan, climbed.plan), climbed, compiled, dense_p50_ms)
        return climbed

    def _ended_by(
        self, rungs: tuple[PlannedRung, ...], climbed: _Climbed, compiled: Compiled, dense_p50_ms: float
    ) -> bool:
        """Whether one of the rungs ended the climb: the first that passes does, and so does a disturbed device."""
        for planned in rungs:
            reason = self._why_skipped(planned, climbed)
            if reason is not None:
                self.bench.note(f"{planned.rung.name} is not tried: {reason}", "warning")
                climbed.skipped.append(replace(planned, status=RungStatus.REFUSED, reason=reason))
                continue
            attempt = self.maker.attempt(planned, compiled, dense_p50_ms, climbed.plan.limits)
            climbed.attempts.append(attempt)
            passed = attempt.candidate.status is CandidateStatus.CHOSEN
            told = f"{planned.rung.name}: {attempt.verdict}: {attempt.candidate.reason}"
            self.bench.note(told, "info" if passed else "warning")
            if attempt.verdict is Verdict.INVALID:
                # What disturbed this one would disturb the next, and hours of training would end in the same word.
                self.bench.note("no other rung is tried: stop what runs on the device and build again", "warning")
            if passed or attempt.verdict is Verdict.INVALID:
                return True
        return False

    def _why_skipped(self, planned: PlannedRung, climbed: _Climbed) -> str | None:
        """Why a planned rung need not be trained, now that others were tried; None when it must be."""
        plan = climbed.plan
        weaker = _weaker_that_lost_accuracy(planned, [a.candidate for a in climbed.attempts], plan)
        if weaker is not None:
            which = "takes out less" if planned.rung != planned.rung.unpruned else "is the same model"
            how = "lost too much accuracy" if _failed_gates(weaker) else "is undecided by its accuracy alone"
            return f"{weaker.rung.name} {which} and {how} already"
        if planned.p50_ms is not None:
            return None
        try:
            # A fallback is measured before it is trained, like every other rung.
            shapes = ShapeBench(self.bench)
            shape = shapes.measure(planned.rung, planned.widths, planned.removed_blocks)
            shape = settled(shapes, shape, plan.limits)
            tried = [a.candidate for a in climbed.attempts]
            return over_budget(shape, plan.limits) or sure_to_be_late(shape, tried)
        except (BuildError, MeasurementError) as error:
            if isinstance(error, MeasurementError) and not error.about_artifact:
                raise
            return error.message

    def _dense_on_same_runtime(self, plan: Plan, chosen: Candidate | None) -> tuple[Candidate, ...]:
        """Dense float32 on the chosen model's own runtime and placement, where the fastest dense one is another."""
        if chosen is None:
            return ()
        place = replace(chosen.rung.unpruned, precision=Precision.FLOAT32)
        for planned in plan.rungs:
            rung = planned.rung
            if rung == place and rung != plan.dense.rung:
                return (self.maker.dense(planned)[1],)
        return ()

    def _made_controls(self, plan: Plan, chosen: Candidate | None) -> list[MadeControl]:
        """Before the test split is read, so that a build that is killed on the way has not read it."""
        if not self.controls:
            return []
        if chosen is None:
            made = [_no_control(name) for name in self.controls]
        else:
            planned = next(r for r in plan.rungs if r.rung == chosen.rung)
            maker = ControlMaker(self.maker.compressor)
            variant = chosen.variants.chosen if chosen.variants else DEFAULT_VARIANT
            made = [maker.made(name, planned, variant) for name in self.controls]
        for control in (m.control for m in made if m.control.reason):
            self.bench.note(f"no {control.name} control: {control.reason}", "warning")
        return made


def _no_control(name: str) -> MadeControl:
    reason = "no candidate passed: there is nothing to set it beside"
    return MadeControl(control=Control(name=name, how="", reason=reason))


def _weaker_that_lost_accuracy(planned: PlannedRung, tried: list[Candidate], plan: Plan) -> Candidate | None:
    """A rung that takes less from the same model, and failed or is undecided for accuracy: taking more cannot help."""
    costs = {r.rung: r.accuracy_cost or 0.0 for r in plan.rungs}

    def same_but_less(other: Candidate) -> bool:
        ours, theirs = planned.rung, other.rung
        alike = (ours.runtime, ours.precision, ours.pattern) == (theirs.runtime, theirs.precision, theirs.pattern)
        # The same model elsewhere, or one that takes out more.
        return alike and (ours == ours.unpruned or costs[theirs] <= costs[ours]) and not _was_too_slow_to_keep(other)

    return next((c for c in tried if same_but_less(c) and _is_held_up_by_accuracy(c)), None)


def _is_held_up_by_accuracy(candidate: Candidate) -> bool:
    """Whether accuracy failed it, or alone leaves it undecided: it is not to be hoped that less has more."""
    gates = candidate.judgement.gates if candidate.judgement else ()
    missed = {g.gate for g in gates if g.verdict is not Verdict.PASS}
    return bool(_failed_gates(candidate) & ACCURACY_GATES) or (bool(missed) and missed <= ACCURACY_GATES)


def _was_too_slow_to_keep(candidate: Candidate) -> bool:
    """Whether a better way to quantize it kept what is wanted, and was over the budget: a faster place has room."""
    trials = candidate.variants.trials if candidate.variants else ()
    return any(trial.over and trial.meets_floors for trial in trials)


def _failed_gates(candidate: Candidate) -> set[str]:
    gates = candidate.judgement.gates if candidate.judgement else ()
    return {g.gate for g in gates if g.verdict is Verdict.FAIL}


def _deciding(attempts: list[Attempt]) -> Attempt | None:
    """The attempt whose verdict is the build's: the one that passed, else the nearest miss.

    Undecided beats decided: when one candidate could still pass, the build does not say that none can.
    """
    for verdict in (Verdict.PASS, Verdict.INVALID, Verdict.INCONCLUSIVE, Verdict.FAIL):
        found = [a for a in attempts if a.verdict is verdict]
        judged = [a for a in found if a.evidence is not None]
        if found:
            return (judged or found)[0]
    return None


def _with_outcome(plan: Plan, skipped: list[PlannedRung], evidence: Evidence | None) -> Plan:
    """The plan as it came out: what was skipped and why, and the limits that were judged by."""
    reasons = {rung.rung: rung for rung in skipped}
    rungs = tuple(reasons.get(rung.rung, rung) for rung in plan.rungs)
    return replace(plan, rungs=rungs, limits=absolute_limits(evidence) if evidence else plan.limits)
