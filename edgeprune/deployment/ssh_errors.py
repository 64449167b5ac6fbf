"""What goes wrong over SSH, in words; which paramiko classes these are is known to `connections/ssh.py` alone."""

from __future__ import annotations

from dataclasses import dataclass

from edgeprune.deployment.host_keys import HostKey
from edgeprune.errors import DeployError, HostKeyError
from edgeprune.units import format_mb


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A device as messages name it."""

    name: str
    host: str
    port: int
    user: str = ""

    def __str__(self) -> str:
        login = f"{self.user}@" if self.user else ""
        return f"device {self.name} ({login}{self.host}:{self.port})"


def changed_host_key(place: Place, pinned: HostKey, found: HostKey) -> HostKeyError:
    """The device showed another key than the pinned one."""
    return HostKeyError(
        f"{place}: the host key has CHANGED: pinned {pinned.type} {pinned.fingerprint}, found {found.type} "
        f"{found.fingerprint}. Somebody may be in between, or the device was installed anew; if you know that it "
        f"was, enrol it again: edgeprune device add {place.name} --host {place.host} --port {place.port} ...",
        pinned=pinned.fingerprint,
        found=found.fingerprint,
    )


def disk_full(place: Place, destination: str, needed_bytes: int, free_bytes: int) -> DeployError:
    """The file does not fit."""
    return DeployError(
        f"{place}: cannot write {destination}: disk full on {place.name}: "
        f"needs {format_mb(needed_bytes)}, {format_mb(free_bytes)} free",
        needed_bytes=needed_bytes,
        free_bytes=free_bytes,
    )


def not_started(place: Place, program: str, noise: str) -> DeployError:
    """The login shell never came to the command."""
    said = f"; it said: {noise.strip()[:200]}" if noise.strip() else ""
    return DeployError(f"{place}: the login shell does not run commands such as {program}{said}")
