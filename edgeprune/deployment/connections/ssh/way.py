"""The way to a device's SSH server, through its jump hosts, whose keys must stand in the user's known_hosts."""

from __future__ import annotations

import contextlib
import itertools
import logging
import socket
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import paramiko

from edgeprune.deployment.connections.ssh.login import log_in
from edgeprune.deployment.connections.ssh.translation import host_key_of, translated
from edgeprune.deployment.host_keys import HostKey
from edgeprune.deployment.known_hosts import KnownKeys, known_keys
from edgeprune.deployment.ssh_config import Hop
from edgeprune.deployment.ssh_endpoint import jump_place_of, open_socket, place_of, start_proxy
from edgeprune.deployment.ssh_errors import Place, changed_host_key, revoked_host_key, unknown_host_key
from edgeprune.deployment.watchdog import Watchdog
from edgeprune.errors import DeployError
from edgeprune.schema.device import DeviceSpec

# Its thread logs tracebacks of errors that are raised to us as well; without a handler they would go to stderr.
logging.getLogger("paramiko").addHandler(logging.NullHandler())

KEEPALIVE_S: Final = 10
# RFC 4254, section 5.1: "administratively prohibited".
_PROHIBITED = 1
# What a server signs with a key of this type.
_SIGNED_AS: Final = {"ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256")}
# One pass over the data in the processor's own instructions, where CTR with an HMAC takes two: 1.5 times the speed.
_QUICK_CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com")


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """What is open towards a device; the stack closes all of it.

    Attributes:
        sock: what leaves this host: cut, it ends all transports that go through it.
        lane: what a transport to the device's own SSH server runs over.
    """

    stack: contextlib.ExitStack
    sock: socket.socket
    lane: socket.socket | paramiko.Channel
    timeout_s: float

    def greet(self, keys: Sequence[HostKey]) -> paramiko.Transport:
        """Begin to speak SSH; a key of one of these types is asked for. It is the caller who looks at it."""
        transport = _transport(self.lane)
        self.stack.callback(transport.close)
        transport.banner_timeout = transport.auth_timeout = transport.channel_timeout = self.timeout_s
        security = transport.get_security_options()
        ours = {kind for key in keys for kind in _SIGNED_AS.get(key.type, (key.type,))}
        wanted = [kind for kind in security.key_types if kind in ours]
        security.key_types = (*wanted, *(kind for kind in security.key_types if kind not in ours))
        transport.start_client(timeout=self.timeout_s)
        return transport

    def through(self, device: DeviceSpec, jump: Hop, beyond: Hop) -> Way:
        """Log in to the jump host that this way leads to, and have it connect further."""
        known = known_keys(jump.known_as, jump.known_hosts)
        place = jump_place_of(device, jump, known)
        with translated(place, "connect", Watchdog(self.sock, self.timeout_s)):
            transport = self.greet(known.keys)
            _check_jump(place, known, host_key_of(transport.get_remote_server_key()))
            log_in(transport, jump, place)
            transport.set_keepalive(KEEPALIVE_S)
        to = (beyond.host, beyond.port)
        with translated(place, f"go on to {beyond.host}:{beyond.port}", Watchdog(self.sock, self.timeout_s)):
            try:
                lane = transport.open_channel("direct-tcpip", to, ("127.0.0.1", 0), timeout=self.timeout_s)
            except paramiko.ChannelException as error:
                forbidden = " (AllowTcpForwarding?)" if error.code == _PROHIBITED else ""
                raise DeployError(
                    f"{place}: it does not connect to {beyond.host}:{beyond.port}: {error.text}{forbidden}"
                ) from error
        return replace(self, lane=lane)


def set_out(device: DeviceSpec, hops: Sequence[Hop], stack: contextlib.ExitStack) -> Way:
    """Go to the device's own SSH server, through all jump hosts."""
    first, timeout_s = hops[0], device.connect_timeout_s
    place = place_of(device, first) if len(hops) == 1 else jump_place_of(device, first, KnownKeys())
    with translated(place, f"start {first.proxy_command[0]}" if first.proxy_command else "connect"):
        if first.proxy_command:
            sock = start_proxy(first.proxy_command, stack)
        else:
            sock = open_socket(first.host, first.port, timeout_s)
            stack.callback(sock.close)
    way = Way(stack=stack, sock=sock, lane=sock, timeout_s=timeout_s)
    for jump, beyond in itertools.pairwise(hops):
        way = way.through(device, jump, beyond)
    return way


def _check_jump(place: Place, known: KnownKeys, found: HostKey) -> None:
    if found in known.revoked:
        raise revoked_host_key(place, found)
    if found in known.keys:
        return
    if not known.keys:
        raise unknown_host_key(place, found)
    raise changed_host_key(place, next((k for k in known.keys if k.type == found.type), known.keys[0]), found)


def _transport(sock: socket.socket | paramiko.Channel) -> paramiko.Transport:
    transport = paramiko.Transport(sock)
    security = transport.get_security_options()
    quick = [c for c in _QUICK_CIPHERS if c in security.ciphers]
    security.ciphers = (*quick, *(c for c in security.ciphers if c not in quick))
    return transport
