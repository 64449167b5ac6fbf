"""Errors of paramiko, of sockets and of the system become ours here, and nowhere else."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Final

import paramiko
from paramiko.ber import BERException
from paramiko.hostkeys import InvalidHostKey
from paramiko.packet import NeedRekeyException
from paramiko.pkey import UnknownKeyType

from edgeprune.deployment.host_keys import HostKey
from edgeprune.deployment.ssh_errors import Place, changed_host_key, system_reason
from edgeprune.deployment.watchdog import Watchdog
from edgeprune.errors import DeployError, DeviceTimeoutError, EdgepruneError
from edgeprune.units import format_seconds

# SFTP's own messages for "no such file" and "permission denied" become errno; what remains is a bare "Failure".
FOREIGN: Final = (
    paramiko.SSHException,
    UnknownKeyType,
    paramiko.SFTPError,
    BERException,
    InvalidHostKey,
    NeedRekeyException,
    EOFError,
    OSError,
    # Malformed keys and packets, from paramiko and from the cryptography library under it.
    ValueError,
)

_NEARLY = 0.9


@contextlib.contextmanager
def translated(place: Place, doing: str, watchdog: Watchdog | None = None) -> Iterator[None]:
    """The one place where paramiko's, the socket's and the system's errors become ours."""
    started_s = time.monotonic()
    with watchdog or contextlib.nullcontext():
        try:
            yield
        except FOREIGN as error:
            if watchdog is not None and (watchdog.fired or _gave_up(error, time.monotonic() - started_s, watchdog)):
                silence = format_seconds(watchdog.timeout_s)
                raise DeviceTimeoutError(f"{place}: cannot {doing}: no answer for {silence}") from error
            raise _ours(error, place, doing) from error


def _gave_up(error: Exception, seconds: float, watchdog: Watchdog) -> bool:
    """Whether paramiko's own thread waited in vain and ended just before the watchdog, the reason untold."""
    return "No existing session" in str(error) and seconds >= _NEARLY * watchdog.timeout_s


def _ours(error: Exception, place: Place, doing: str) -> EdgepruneError:
    if isinstance(error, paramiko.BadHostKeyException):
        return changed_host_key(place, host_key_of(error.expected_key), host_key_of(error.key))
    what = f"{place}: cannot {doing}"
    if isinstance(error, TimeoutError) or "timeout" in str(error).lower():
        # paramiko has no class of its own for most of its timeouts.
        return DeviceTimeoutError(f"{what}: no answer in time")
    if isinstance(error, paramiko.AuthenticationException):
        return DeployError(f"{what}: {place.user} was refused: {error}")
    if isinstance(error, OSError):
        return DeployError(f"{what}: {system_reason(error, place.user)}")
    if isinstance(error, EOFError):
        return DeployError(f"{what}: connection lost")
    refused = "its SSH server opens no further session (MaxSessions?): "
    return DeployError(
        f"{what}: {refused if isinstance(error, paramiko.ChannelException) else ''}{error or type(error).__name__}"
    )


def host_key_of(key: paramiko.PKey) -> HostKey:
    """A key of paramiko's, as the inventory writes it."""
    return HostKey(type=key.get_name(), base64=key.get_base64())
