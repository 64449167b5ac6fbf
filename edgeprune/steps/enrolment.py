"""Enrolling a device: see its host key, have it confirmed, pin it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgeprune.deployment.inventory import list_devices, load_device, save_device
from edgeprune.deployment.ssh_config import NO_CONFIG
from edgeprune.errors import HostKeyError, InputError
from edgeprune.schema.device import DeviceSpec
from edgeprune.steps.inputs import load_profile

_NEVER_ASKED = ("work_folder", "lease_folder", "cache_mb", "connect_timeout_s")


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolment:
    """What a person says about a new device.

    Attributes:
        host: name, address, or a `Host` of the OpenSSH configuration.
        port, user, identity_file: 0 and empty leave it to that configuration.
        ssh_config: that configuration's file; empty for the usual ones, `none` for none.
    """

    name: str
    host: str
    port: int
    user: str
    identity_file: str
    profile: str
    python: str
    ssh_config: str = ""
    replace: bool = False


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
    found = scan_host_key(spec)
    if fingerprint is not None and found.fingerprint != fingerprint:
        raise HostKeyError(
            f"{request.host}: expected host key {fingerprint}, found {found.fingerprint}; not enrolled",
            expected=fingerprint,
            found=found.fingerprint,
        )
    if fingerprint is None and not confirm(found.type, found.fingerprint):
        raise HostKeyError(f"{request.host}: host key {found.fingerprint} was refused; not enrolled")
    pinned = spec.model_copy(update={"host_key": found.line, **_kept(request.name)})
    save_device(pinned)
    return pinned


def _kept(name: str) -> dict[str, object]:
    """What enrolling does not ask for and a person may have written into the device's file."""
    if name not in list_devices():
        return {}
    try:
        before = load_device(name)
    except InputError:
        # Enrolling again is a way to mend it.
        return {}
    return {key: getattr(before, key) for key in _NEVER_ASKED}


def _absolute(ssh_config: str) -> str:
    return ssh_config if ssh_config in {"", NO_CONFIG} else str(Path(ssh_config).expanduser().resolve())


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
            ssh_config=_absolute(request.ssh_config),
            python=request.python,
        )
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise InputError(f"device {request.name!r}: {key}: {first['msg']}, got {first['input']!r}") from error
