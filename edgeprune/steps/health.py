"""Checking a device, keeping what was found, and not using one that failed.

A failed check is believed for ten minutes, so that no command waits again for a device that is known to be off; after
that it is taken anew before the device is used. A check that passed is not repeated: whoever uses the device finds out
soon enough, and what the agent tells at every start is graded again anyway.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from edgeprune.deployment.connections import connect
from edgeprune.deployment.host_keys import parse_host_key
from edgeprune.deployment.lease import LeaseStatus
from edgeprune.errors import DeployError, HostKeyError, MeasurementError, UnfitDeviceError
from edgeprune.protocols import Connection
from edgeprune.records.health import Check, DeviceHealth, Grade
from edgeprune.records.measurement import DeviceFacts
from edgeprune.schema.device import DeviceSpec
from edgeprune.schema.profile import DeviceProfile
from edgeprune.steps.grading import grade_change, grade_hardware, grade_software
from edgeprune.steps.health_files import load_health, save_health, spec_digest
from edgeprune.steps.inputs import load_profile
from edgeprune.steps.session import DeviceSession, open_session
from edgeprune.units import format_seconds

TRUSTED_S = 600.0
"""How long a failed check is believed without being taken again."""
Clock = Callable[[], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceReport:
    """The health of a device, and what is not kept of a check.

    Attributes:
        lease: who measures there now; None where that could not be asked.
        differences: from its profile, in words.
    """

    health: DeviceHealth
    lease: LeaseStatus | None = None
    differences: tuple[str, ...] = ()


def check_device(spec: DeviceSpec, *, now: Clock = time.time) -> DeviceReport:
    """Look at all that measuring there needs, and keep the result beside the inventory.

    Raises:
        InputError: the device's file names a profile, key or configuration that cannot be used.
    """
    profile = load_profile(spec.profile)
    seen = _Seen()
    _look(spec, profile, seen, now)
    health = DeviceHealth(
        device=spec.name,
        checked_unix_s=now(),
        spec_digest=spec_digest(spec),
        checks=tuple(seen.checks),
        facts=seen.facts,
    )
    save_health(health)
    different = differences(seen.facts, profile) if seen.facts else ()
    return DeviceReport(health=health, lease=seen.lease, differences=different)


@contextmanager
def ready_session(spec: DeviceSpec, *, now: Clock = time.time) -> Iterator[DeviceSession]:
    """A session to measure in, on a device that is fit for it.

    Raises:
        UnfitDeviceError: it failed its check lately, or lacks what nothing can be measured without.
        DeployError: as for `open_session`.
    """
    refuse_failing(spec, now=now)
    with open_session(spec) as session:
        lacking = [c for c in grade_software(spec, session.facts) if c.grade is Grade.PROBLEM]
        if lacking:
            raise _unfit(spec, lacking, "cannot be used")
        yield session


def refuse_failing(spec: DeviceSpec, *, now: Clock = time.time) -> None:
    """Stop where the last check failed; one of more than ten minutes ago is taken again first.

    Raises:
        UnfitDeviceError: naming what failed and what to do.
    """
    health = load_health(spec)
    if health is None or health.grade is not Grade.PROBLEM:
        return
    age_s = now() - health.checked_unix_s
    if not 0 <= age_s < TRUSTED_S:
        health, age_s = check_device(spec, now=now).health, 0.0
    if health.grade is Grade.PROBLEM:
        ago = f"{format_seconds(age_s)} ago" if age_s else "just now"
        raise _unfit(spec, health.graded(Grade.PROBLEM), f"failed its check {ago}")


def differences(facts: DeviceFacts, profile: DeviceProfile) -> tuple[str, ...]:
    """What the profile says and the device does not have, in words."""
    found = []
    if profile.hardware.arch not in ("any", facts.machine):
        found.append(f"the profile says arch {profile.hardware.arch}, the device is {facts.machine}")
    if facts.cores < profile.hardware.cores:
        found.append(f"the profile says {profile.hardware.cores} cores, the device lets us use {facts.cores}")
    missing = [r for r in profile.runtimes if facts.runtime_version(r) is None]
    if missing:
        found.append(f"not installed on the device: {', '.join(missing)}; those rungs will be refused")
    if not facts.numpy:
        found.append("numpy is not installed on the device; nothing can be measured there without it")
    return tuple(found)


@dataclass(slots=True)
class _Seen:
    """What a check has come to by now."""

    checks: list[Check] = field(default_factory=list)
    facts: DeviceFacts | None = None
    lease: LeaseStatus | None = None

    def add(self, name: str, found: str, *, advice: str = "", grade: Grade = Grade.OK) -> None:
        self.checks.append(Check(name=name, grade=grade, found=found, advice=advice))


def _look(spec: DeviceSpec, profile: DeviceProfile, seen: _Seen, now: Clock) -> None:
    connection = _reach(spec, seen)
    if connection is None:
        return
    try:
        _examine(spec, DeviceSession(spec, connection), profile, seen, now)
    except (DeployError, MeasurementError) as error:
        about = {"program": "python", "needed_bytes": "disk"}
        name = next((about[fact] for fact in error.facts if fact in about), "agent")
        advice = {
            "python": "name an interpreter of the device: edgeprune device add ... --python, with --replace",
            "disk": "make room there, or set another work_folder in the device's file",
            "agent": "see the message; work_folder and python stand in the device's file",
        }[name]
        seen.add(name, error.message, advice=advice, grade=Grade.PROBLEM)
    finally:
        connection.close()


def _reach(spec: DeviceSpec, seen: _Seen) -> Connection | None:
    try:
        connection = connect(spec)
    except HostKeyError as error:
        seen.add("host key", error.message, grade=Grade.PROBLEM)
        return None
    except DeployError as error:
        advice = "is it on, and does `ssh` reach it from here? host, port, user and key stand in the device's file"
        seen.add("reachable", error.message, advice=advice, grade=Grade.PROBLEM)
        return None
    seen.add("reachable", f"over {spec.connection}")
    if spec.host_key:
        key = parse_host_key(spec.host_key, where=f"device {spec.name}")
        seen.add("host key", f"the pinned one: {key.type} {key.fingerprint}")
    return connection


def _examine(spec: DeviceSpec, session: DeviceSession, profile: DeviceProfile, seen: _Seen, now: Clock) -> None:
    before = load_health(spec)
    seen.facts = session.facts
    seen.checks += grade_software(spec, session.facts)
    asked_s = now()
    condition = session.condition()
    offset_s = _offset(condition.unix_s, asked_s, now())
    seen.checks += grade_hardware(session.spec, session.facts, profile, condition, offset_s=offset_s)
    seen.checks.append(grade_change(before.facts if before else None, session.facts))
    seen.lease = session.lease_status()


def _offset(device_s: float, asked_s: float, answered_s: float) -> float:
    """How far the device's clock is off for certain: it told the time somewhen between question and answer."""
    if device_s > answered_s:
        return device_s - answered_s
    return min(0.0, device_s - asked_s)


def _unfit(spec: DeviceSpec, problems: tuple[Check, ...] | list[Check], what: str) -> UnfitDeviceError:
    said = "; ".join(f"{c.name}: {c.found}" + (f" ({c.advice})" if c.advice else "") for c in problems)
    return UnfitDeviceError(
        f"device {spec.name} {what}: {said}. When that is mended: edgeprune device check {spec.name}",
        problems=[c.name for c in problems],
    )
