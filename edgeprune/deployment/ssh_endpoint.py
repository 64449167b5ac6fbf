"""The socket to an SSH server, the program that stands in for one, and the keys to log in with."""

from __future__ import annotations

import base64
import binascii
import contextlib
import shlex
import socket
import subprocess
from pathlib import Path

from edgeprune.deployment.known_hosts import KnownKeys
from edgeprune.deployment.ssh_config import Hop
from edgeprune.deployment.ssh_errors import Place
from edgeprune.schema.device import DeviceSpec

_PROXY_END_S = 2.0


def place_of(device: DeviceSpec, hop: Hop) -> Place:
    """How messages call the device, and what to do when its host key has changed."""
    values = (
        ("--host", device.host), ("--port", str(device.port or "")), ("--user", device.user),
        ("--identity", device.identity_file), ("--ssh-config", device.ssh_config), ("--profile", device.profile),
        ("--python", device.python),
    )  # fmt: skip
    given = [part for option in values if option[1] for part in option]
    again = shlex.join(["edgeprune", "device", "add", device.name, *given, "--replace"])
    return Place(name=device.name, host=hop.host, port=hop.port, user=hop.user, when_changed=f"enrol it again: {again}")


def jump_place_of(device: DeviceSpec, hop: Hop, known: KnownKeys) -> Place:
    """The same of a jump host, whose keys are the user's own known_hosts files' business."""
    config = ["-F", device.ssh_config] if device.ssh_config else []
    log_in = shlex.join(["ssh", *config, "-p", str(hop.port), f"{hop.user}@{hop.alias}"])
    forget = shlex.join(["ssh-keygen", "-R", hop.known_as, "-f", known.file])
    return Place(
        name=device.name,
        host=hop.host,
        port=hop.port,
        user=hop.user,
        jump=hop.alias,
        when_changed=f"forget its key and log in once to see the new one: {forget} && {log_in}",
        when_unknown=f"log in once and compare it: {log_in}",
    )


def public_blob(identity_file: str) -> bytes:
    """The public key beside a key file (or that is one itself); empty where there is none to be read."""
    path = Path(identity_file if identity_file.endswith(".pub") else f"{identity_file}.pub")
    with contextlib.suppress(OSError, UnicodeDecodeError, IndexError, binascii.Error):
        return base64.b64decode(path.read_text(encoding="utf-8").split()[1], validate=True)
    return b""


def open_socket(host: str, port: int, timeout_s: float) -> socket.socket:
    """A connected TCP socket that does not wait for a peer that is gone; OSError where there is none."""
    sock = socket.create_connection((host, port), timeout_s)
    # paramiko leaves Nagle's algorithm on: 44 ms for a command that takes 2 (measured, see docs).
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # A peer that acknowledges nothing for so long is gone; without it a put waits for ever.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(timeout_s * 1000))
    return sock


def start_proxy(argv: tuple[str, ...], stack: contextlib.ExitStack) -> socket.socket:
    """A ProxyCommand on the other end of a socket; it ends with the stack. OSError where it cannot be started."""
    ours, theirs = socket.socketpair()
    stack.callback(ours.close)
    with theirs:
        # A group of its own: Ctrl-C must not cut the link over which a command is ended on the device.
        process = subprocess.Popen(
            argv, stdin=theirs.fileno(), stdout=theirs.fileno(), stderr=subprocess.DEVNULL, process_group=0
        )
    stack.callback(_end, process)
    return ours


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_PROXY_END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
