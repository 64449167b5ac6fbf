"""What goes wrong over SSH, in words; which paramiko classes these are is known to `connections/ssh/` alone."""

from __future__ import annotations

from dataclasses import dataclass

from edgeprune.deployment.host_keys import HostKey
from edgeprune.errors import DeployError, HostKeyError
from edgeprune.units import format_mb


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A device, or a jump host on the way to it, as messages name it.

    Attributes:
        name: the device's.
        jump: the jump host's alias; empty for the device itself.
        when_changed, when_unknown: what to do when its host key is another one, or is not known.
    """

    name: str
    host: str
    port: int
    user: str = ""
    jump: str = ""
    when_changed: str = ""
    when_unknown: str = ""

    def __str__(self) -> str:
        login = f"{self.user}@" if self.user else ""
        at = f"{login}{self.host}:{self.port}"
        return f"jump host {self.jump} ({at}) of device {self.name}" if self.jump else f"device {self.name} ({at})"


def changed_host_key(place: Place, pinned: HostKey, found: HostKey) -> HostKeyError:
    """It showed another key than the pinned one; a jump host's is pinned by known_hosts."""
    return HostKeyError(
        f"{place}: the host key has CHANGED: pinned {pinned.type} {pinned.fingerprint}, found {found.type} "
        f"{found.fingerprint}. Somebody may be in between, or it was installed anew; if you know that it "
        f"was, {place.when_changed}",
        pinned=pinned.fingerprint,
        found=found.fingerprint,
    )


def unknown_host_key(place: Place, found: HostKey) -> HostKeyError:
    """A jump host that is in no known_hosts file; no key is ever added there by us."""
    return HostKeyError(
        f"{place}: its host key is not known: it shows {found.type} {found.fingerprint}; {place.when_unknown}",
        found=found.fingerprint,
    )


def revoked_host_key(place: Place, found: HostKey) -> HostKeyError:
    """The user has marked this very key as stolen."""
    return HostKeyError(
        f"{place}: its host key {found.type} {found.fingerprint} is marked @revoked in your known_hosts",
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


def system_reason(error: OSError, user: str) -> str:
    """What the socket or the file system said."""
    if isinstance(error, PermissionError):
        return f"permission denied for {user}"
    if isinstance(error, FileNotFoundError):
        return "no such file or folder there"
    return error.strerror or str(error) or type(error).__name__
