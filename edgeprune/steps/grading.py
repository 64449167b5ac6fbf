"""From what was found on a device to a grade for each of it, with what to do."""

from __future__ import annotations

from collections.abc import Sequence

from edgeprune.deployment.inventory import LOCAL
from edgeprune.records.health import Check, DeviceCondition, Grade
from edgeprune.records.measurement import DeviceFacts
from edgeprune.schema.device import DeviceSpec
from edgeprune.schema.profile import DeviceProfile
from edgeprune.units import bytes_from_mb, format_mb, format_seconds

# Of the agent; `make` checks it with vermin.
_OLDEST_PYTHON = (3, 8)
_LEAST_DISK_BYTES = 1_000_000
# A process with a runtime and a small model takes about so much.
_SCARCE_MEMORY_BYTES = 64_000_000
# Firmware and kernel keep some of the RAM on the data sheet.
_USABLE_MEMORY = 0.85
_CLOCK_TOLERANCE_S = 5.0


def grade_software(spec: DeviceSpec, facts: DeviceFacts) -> tuple[Check, ...]:
    """What nothing can be measured without: Python, numpy, a runtime, room on the disk."""
    return (_python(spec, facts), _numpy(spec, facts), _any_runtime(spec, facts), _disk(spec, facts))


def grade_hardware(
    spec: DeviceSpec, facts: DeviceFacts, profile: DeviceProfile, condition: DeviceCondition, *, offset_s: float
) -> tuple[Check, ...]:
    """What is held against the profile, and what is of the moment.

    Args:
        spec: of the device.
        facts: what it told.
        profile: its own.
        condition: of the device now.
        offset_s: of its clock to this host's, as far as it is certain; positive: the device is ahead.
    """
    return (
        _runtimes(spec, facts, profile),
        _machine(facts, profile),
        _cores(facts, profile),
        _memory(facts, profile, condition),
        _clock(offset_s),
        _limits(condition),
    )


def grade_change(before: DeviceFacts | None, now: DeviceFacts) -> Check:
    """Whether it is the device that it was at the check before."""
    found = f"{now.fingerprint[:16]} ({now.cpu_model or now.machine}, kernel {now.kernel})"
    changed = now.differing(before) if before else ()
    if not changed:
        return Check(name="fingerprint", grade=Grade.OK, found=found)
    return Check(
        name="fingerprint",
        grade=Grade.WARNING,
        found=f"{found}; since the check before it changed in: {', '.join(changed)}",
        advice="what was measured before is not comparable; calibrate it again: edgeprune device calibrate",
    )


def _python(spec: DeviceSpec, facts: DeviceFacts) -> Check:
    version = tuple(int(part) for part in facts.python.split(".")[:2])
    found = f"{facts.python} ({spec.python})"
    if version < _OLDEST_PYTHON:
        return Check(
            name="python",
            grade=Grade.PROBLEM,
            found=found,
            advice="name one of 3.8 or newer: edgeprune device add ... --python",
        )
    return Check(name="python", grade=Grade.OK, found=found)


def _numpy(spec: DeviceSpec, facts: DeviceFacts) -> Check:
    if facts.numpy:
        return Check(name="numpy", grade=Grade.OK, found=facts.numpy)
    return Check(
        name="numpy",
        grade=Grade.PROBLEM,
        found="not installed; nothing can be measured there without it",
        advice=_provision(spec),
    )


def _any_runtime(spec: DeviceSpec, facts: DeviceFacts) -> Check:
    if facts.runtimes:
        return Check(name="runtimes", grade=Grade.OK, found=", ".join(" ".join(r) for r in facts.runtimes))
    return Check(
        name="runtimes",
        grade=Grade.PROBLEM,
        found="none is installed",
        advice=_provision(spec),
    )


def _provision(spec: DeviceSpec, runtimes: Sequence[str] = ("RUNTIME",)) -> str:
    if spec.name == LOCAL:
        return f"install it for {spec.python}"
    return f"edgeprune device provision {spec.name} --runtime {','.join(runtimes)}"


def _disk(spec: DeviceSpec, facts: DeviceFacts) -> Check:
    free, wanted = facts.disk_free_bytes, bytes_from_mb(spec.cache_mb)
    found = f"{format_mb(free)} free in {spec.work_folder}"
    if free < _LEAST_DISK_BYTES:
        advice = "make room there, or set another work_folder in the device's file"
        return Check(name="disk", grade=Grade.PROBLEM, found=found, advice=advice)
    if free < wanted:
        advice = f"artifacts may take {format_mb(wanted)}: make room, or lower cache_mb in the device's file"
        return Check(name="disk", grade=Grade.WARNING, found=found, advice=advice)
    return Check(name="disk", grade=Grade.OK, found=found)


def _runtimes(spec: DeviceSpec, facts: DeviceFacts, profile: DeviceProfile) -> Check:
    missing = [r for r in profile.runtimes if facts.runtime_version(r) is None]
    if not missing:
        return Check(name="profile's runtimes", grade=Grade.OK, found=", ".join(profile.runtimes))
    return Check(
        name="profile's runtimes",
        grade=Grade.WARNING,
        found=f"not installed on the device: {', '.join(missing)}",
        advice=f"until then their rungs are refused: {_provision(spec, missing)}",
    )


def _machine(facts: DeviceFacts, profile: DeviceProfile) -> Check:
    if profile.hardware.arch in {"any", facts.machine}:
        return Check(name="machine", grade=Grade.OK, found=f"{facts.machine}, {facts.system} {facts.kernel}")
    return Check(
        name="machine",
        grade=Grade.WARNING,
        found=f"the profile says arch {profile.hardware.arch}, the device is {facts.machine}",
        advice=f"enrol it with a profile for {facts.machine}; a build for {profile.name} is refused there",
    )


def _cores(facts: DeviceFacts, profile: DeviceProfile) -> Check:
    if facts.cores >= profile.hardware.cores:
        return Check(name="cores", grade=Grade.OK, found=str(facts.cores))
    return Check(
        name="cores",
        grade=Grade.WARNING,
        found=f"the profile says {profile.hardware.cores} cores, the device lets us use {facts.cores}",
        advice="look at the affinity and the cgroup of that user, or correct the profile",
    )


def _memory(facts: DeviceFacts, profile: DeviceProfile, condition: DeviceCondition) -> Check:
    available = condition.memory_available_bytes
    room = f", {format_mb(available)} available" if available is not None else ""
    found = f"{format_mb(facts.memory_bytes)}{room}"
    nominal = profile.hardware.memory_mb
    if nominal is not None and facts.memory_bytes < _USABLE_MEMORY * bytes_from_mb(nominal):
        advice = f"the profile says {nominal} MB; correct it, or enrol the device with another"
        return Check(name="memory", grade=Grade.WARNING, found=found, advice=advice)
    if available is not None and available < _SCARCE_MEMORY_BYTES:
        advice = "end what takes it, or a measurement may page or be killed"
        return Check(name="memory", grade=Grade.WARNING, found=found, advice=advice)
    return Check(name="memory", grade=Grade.OK, found=found)


def _clock(offset_s: float) -> Check:
    if abs(offset_s) <= _CLOCK_TOLERANCE_S:
        return Check(name="clock", grade=Grade.OK, found=f"agrees with this host's within {_CLOCK_TOLERANCE_S:g} s")
    way = "ahead of" if offset_s > 0 else "behind"
    return Check(
        name="clock",
        grade=Grade.WARNING,
        found=f"{format_seconds(abs(offset_s))} {way} this host's",
        advice="latencies are right, times of day in the evidence are not: set it, as by timedatectl set-ntp true",
    )


def _limits(condition: DeviceCondition) -> Check:
    if condition.memory_limit:
        return Check(name="memory limits", grade=Grade.OK, found=f"can be imposed by {condition.memory_limit}")
    return Check(
        name="memory limits",
        grade=Grade.WARNING,
        found="cannot be imposed",
        advice="memory is measured there, not proved: it takes a delegated cgroup, or a kernel of 4.7 or newer",
    )
