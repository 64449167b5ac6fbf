"""Where an SSH device is, who logs in there with which key, and the socket to it."""

from __future__ import annotations

import getpass
import socket
from pathlib import Path

from edgeprune.deployment.ssh_errors import Place
from edgeprune.errors import InputError
from edgeprune.schema.device import DeviceSpec


def place_of(device: DeviceSpec) -> Place:
    """How messages call the device.

    Raises:
        InputError: its file names no host.
    """
    if not device.host:
        raise InputError(f"device {device.name}: host: missing; a device over ssh needs it")
    user = device.user or getpass.getuser()
    return Place(name=device.name, host=device.host, port=device.port, user=user)


def identity_file(device: DeviceSpec) -> str | None:
    """The private key file; None for ssh-agent's keys.

    Raises:
        InputError: it does not exist.
    """
    if not device.identity_file:
        return None
    path = Path(device.identity_file).expanduser()
    if not path.is_file():
        raise InputError(f"device {device.name}: identity_file: no such file: {path}")
    return str(path)


def open_socket(host: str, port: int, timeout_s: float) -> socket.socket:
    """A connected TCP socket that does not wait for a peer that is gone; OSError where there is none."""
    sock = socket.create_connection((host, port), timeout_s)
    # paramiko leaves Nagle's algorithm on: 44 ms for a command that takes 2 (measured, see docs).
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # A peer that acknowledges nothing for so long is gone; without it a put waits for ever.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(timeout_s * 1000))
    return sock
