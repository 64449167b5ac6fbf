"""Measuring one artifact on several devices at the same time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from edgeprune.errors import EdgepruneError, HostKeyError, InputError
from edgeprune.events import Event, Noted, Reporter
from edgeprune.gating.fleet import boxes_needed, device_confidence, judge_fleet, outliers, sure_fail_confidence
from edgeprune.gating.judge import judge
from edgeprune.records.fleet import FleetDemand, FleetDevice, FleetResult
from edgeprune.records.result import BenchResult
from edgeprune.records.rung import Limits
from edgeprune.records.verdict import Evidence, Verdict
from edgeprune.schema.device import DeviceSpec
from edgeprune.schema.profile import MeasurementPolicy
from edgeprune.steps.benching import bench_with_evidence
from edgeprune.steps.measuring import Subject

Measure = Callable[[DeviceSpec, Reporter], tuple[BenchResult, Evidence]]

_GRACE_S = 10.0
"""For the blocks in flight to end and the leases to be given back, after Ctrl-C."""


def bench_fleet(
    subject: Subject,
    devices: Sequence[DeviceSpec],
    policy: MeasurementPolicy,
    limits: Limits,
    reporter: Reporter,
    *,
    share: float | None = None,
) -> FleetResult:
    """Measure on all devices at once, each in a session and under a lease of its own, and judge them together.

    A device that cannot be measured does not stop the others: its error is in the result, and it is no PASS.

    Args:
        subject: the artifact.
        devices: at least one, of different names.
        policy: of the measurement; its confidence is the fleet's.
        limits: that each device is held to.
        reporter: hears what happens, device by device.
        share: of all such devices that must meet the limits; None asks it of every device.

    Raises:
        InputError: a share without limits.
    """
    started_s = time.monotonic()
    demand = fleet_demand(policy, limits, share)
    if share is not None and boxes_needed(share, 0, demand) > len(devices):
        few = f"{len(devices)} device(s) cannot show that {share:.1%} of such devices meet the limits"
        reporter.emit(Noted(message=f"{few}: it takes {boxes_needed(share, 0, demand)}", level="warning"))
    own_policy = policy.model_copy(update={"confidence": demand.device_confidence})

    def measure(spec: DeviceSpec, told: Reporter) -> tuple[BenchResult, Evidence]:
        return bench_with_evidence(subject, spec, own_policy, limits, told)

    outcomes = measure_all(devices, measure, reporter)
    sure = sure_fail_confidence(demand, len(devices))
    found = [_device(spec, outcome, sure) for spec, outcome in zip(devices, outcomes, strict=True)]
    odd = outliers({d.device: d.p50.value_ms for d in found if d.p50 is not None})
    found = [replace(d, outlier=odd.get(d.device)) for d in found]
    return FleetResult(
        artifact=subject.artifact,
        judgement=judge_fleet(found, demand),
        devices=tuple(found),
        seconds=time.monotonic() - started_s,
    )


def fleet_demand(policy: MeasurementPolicy, limits: Limits, share: float | None) -> FleetDemand:
    """What the verdict will be about.

    Raises:
        InputError: a share that is none, or without anything to meet.
    """
    if share is not None and not 0.0 < share < 1.0:
        raise InputError(f"fleet share: expected a number between 0 and 1, such as 0.9, got {share:g}")
    if share is not None and limits == Limits(memory_of=limits.memory_of):
        raise InputError("fleet share: nothing to meet; give a limit: p50, p99 or memory")
    return FleetDemand(
        share=share,
        confidence=policy.confidence,
        device_confidence=device_confidence(policy.confidence, share),
        latency_limits=sum(limit is not None for limit in (limits.p50_ms, limits.p99_ms)),
    )


def measure_all(
    devices: Sequence[DeviceSpec], measure: Measure, reporter: Reporter
) -> list[tuple[BenchResult, Evidence] | EdgepruneError]:
    """Run a function for every device at the same time; what it returned or was refused with, in their order.

    Ctrl-C, a changed host key, and any other exception in a thread, stops the others after the block that they are at.
    """
    crew = _Crew(reporter)
    outcomes: dict[str, tuple[BenchResult, Evidence] | EdgepruneError] = {}

    def work(spec: DeviceSpec) -> None:
        told = crew.reporter(spec.name)
        try:
            outcomes[spec.name] = measure(spec, told)
        except HostKeyError as error:
            # Somebody may be in between: nothing more is sent to any of them.
            crew.stop(error)
        except EdgepruneError as error:
            outcomes[spec.name] = error
            crew.tell(Noted(message=f"{spec.name}: not measured: {error.message}", level="error"))
        except _StoppedError:
            return
        except BaseException as error:  # noqa: BLE001 - raised again by the thread that waits
            crew.stop(error)

    # They do not keep the program from ending: what they left on a device ends there with the connection.
    threads = [threading.Thread(target=work, args=(spec,), name=f"bench-{spec.name}", daemon=True) for spec in devices]
    _run(threads, crew)
    return [outcomes[spec.name] for spec in devices]


def _run(threads: Sequence[threading.Thread], crew: _Crew) -> None:
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    except BaseException:
        crew.stop()
        end_s = time.monotonic() + _GRACE_S
        for thread in threads:
            if thread.ident is not None:
                thread.join(max(0.0, end_s - time.monotonic()))
        raise
    if crew.bug is not None:
        raise crew.bug


class _StoppedError(Exception):
    """Ends the work of one thread."""


class _Crew:
    """What the threads share: one reporter, to be used by one at a time, and the word to stop."""

    def __init__(self, reporter: Reporter) -> None:
        self.bug: BaseException | None = None
        self._reporter = reporter
        self._lock = threading.Lock()
        self._stopped = threading.Event()

    def stop(self, bug: BaseException | None = None) -> None:
        """Every thread ends at its next event."""
        self.bug = self.bug or bug
        self._stopped.set()

    def tell(self, event: Event) -> None:
        """One event, from any thread."""
        with self._lock:
            self._reporter.emit(event)

    def pass_on(self, device: str, event: Event) -> None:
        """One event of a device, with its name; the thread ends here where it is told to stop."""
        if self._stopped.is_set():
            raise _StoppedError
        if isinstance(event, Noted):
            self.tell(replace(event, message=f"{device}: {event.message}"))
        else:
            self.tell(replace(event, subject=f"{event.subject} on {device}"))

    def reporter(self, device: str) -> Reporter:
        """For one thread."""
        return _DeviceReporter(self, device)


class _DeviceReporter:
    """Passes events on. It is where a thread hears that it must stop: an event comes after every block."""

    def __init__(self, crew: _Crew, device: str) -> None:
        self._crew = crew
        self._device = device

    def emit(self, event: Event) -> None:
        """See `Reporter.emit`; unlike others it may raise, so that the `with` blocks below give the lease back."""
        self._crew.pass_on(self._device, event)


def _device(
    spec: DeviceSpec, outcome: tuple[BenchResult, Evidence] | EdgepruneError, sure_confidence: float
) -> FleetDevice:
    if isinstance(outcome, EdgepruneError):
        return FleetDevice(
            device=spec.name,
            profile=spec.profile,
            verdict=Verdict.INVALID,
            error=outcome.message,
            error_exit_code=outcome.exit_code,
        )
    result, evidence = outcome
    measurement = result.measurement
    of = {p.percent: p for p in result.percentiles}
    strict = replace(evidence, measurement=replace(measurement, confidence=sure_confidence))
    return FleetDevice(
        device=spec.name,
        profile=spec.profile,
        verdict=result.judgement.verdict,
        sure_fail=result.judgement.verdict is Verdict.FAIL and judge(strict).verdict is Verdict.FAIL,
        machine=measurement.device.boot_id,
        p50=of.get(50.0),
        p99=of.get(99.0),
        processes=len(measurement.blocks),
        disturbed=len(measurement.disturbed),
        result=result,
    )
