"""Enrolling a device: see its host key, have it confirmed, pin it; and looking at what a device has."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgeprune.deployment.inventory import list_devices, save_device
from edgeprune.deployment.lease import LeaseStatus
from edgeprune.errors import HostKeyError, InputError
from edgeprune.records.measurement import DeviceFacts
from edgeprune.schema.device import DeviceSpec
from edgeprune.schema.profile import DeviceProfile
from edgeprune.steps.inputs import load_profile
from edgeprune.steps.session import open_session

_TIMEOUT_S = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolment:
    """What a person says about a new device."""

    name: str
    host: str
    port: int
    user: str
    identity_file: str
    profile: str
    python: str
    replace: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceReport:
    """What a device has, and how that differs from its profile."""

    name: str
    facts: DeviceFacts
    differences: tuple[str, ...]
    lease: LeaseStatus


def enrol(request: Enrolment, *, fingerprint: str | None, confirm: Callable[[str, str], bool]) -> DeviceSpec:
    """Pin a device's host key and keep it in the inventory.

    Args:
        request: where and as whom to log in.
        fingerprint: the expected `SHA256:...`; None to ask.
        confirm: called with key type and fingerprint when none was expected; False refuses.

    Raises:
        InputError: the name is taken, the profile or the identity file is missing.
        HostKeyError: the key is not the expected one, or was refused.
        DeployError: unreachable.
    """
    from edgeprune.deployment.connections.ssh import scan_host_key

    load_profile(request.profile)
    spec = _spec(request)
    if request.name == "local" or (request.name in list_devices() and not request.replace):
        raise InputError(f"device {request.name!r} is enrolled already; --replace enrols it again with its key of now")
    if request.identity_file and not Path(request.identity_file).expanduser().is_file():
        raise InputError(f"--identity: no such file: {request.identity_file}")
    found = scan_host_key(request.host, request.port, _TIMEOUT_S)
    if fingerprint is not None and found.fingerprint != fingerprint:
        raise HostKeyError(
            f"{request.host}:{request.port}: expected host key {fingerprint}, found {found.fingerprint}; not enrolled",
            expected=fingerprint,
            found=found.fingerprint,
        )
    if fingerprint is None and not confirm(found.type, found.fingerprint):
        raise HostKeyError(f"{request.host}:{request.port}: host key {found.fingerprint} was refused; not enrolled")
    pinned = spec.model_copy(update={"host_key": found.line})
    save_device(pinned)
    return pinned


def _spec(request: Enrolment) -> DeviceSpec:
    from pydantic import ValidationError

    identity = str(Path(request.identity_file).expanduser().resolve()) if request.identity_file else ""
    profile = request.profile
    try:
        return DeviceSpec(
            schema=1,
            name=request.name,
            profile=str(Path(profile).resolve()) if profile.endswith(".toml") else profile,
            host=request.host,
            port=request.port,
            user=request.user,
            identity_file=identity,
            python=request.python,
        )
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise InputError(f"device {request.name!r}: {key}: {first['msg']}, got {first['input']!r}") from error


def check_device(spec: DeviceSpec) -> DeviceReport:
    """Connect and compare what is there with the device's profile.

    Raises:
        DeployError: unreachable, a stranger, or without Python.
    """
    with open_session(spec) as session:
        facts, lease = session.facts, session.lease_status()
    found = differences(facts, load_profile(spec.profile))
    return DeviceReport(name=spec.name, facts=facts, differences=found, lease=lease)


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
