"""Getting to a device whose host key is pinned, and looking at the key of one that is to be enrolled."""

from __future__ import annotations

import contextlib
from dataclasses import replace

from edgeprune.deployment.connections.ssh.connection import SshConnection
from edgeprune.deployment.connections.ssh.login import log_in
from edgeprune.deployment.connections.ssh.translation import host_key_of, translated
from edgeprune.deployment.connections.ssh.way import KEEPALIVE_S, set_out
from edgeprune.deployment.host_keys import HostKey, parse_host_key
from edgeprune.deployment.ssh_config import route
from edgeprune.deployment.ssh_endpoint import place_of
from edgeprune.deployment.ssh_errors import changed_host_key
from edgeprune.deployment.watchdog import Watchdog
from edgeprune.errors import HostKeyError
from edgeprune.protocols import Connection
from edgeprune.schema.device import DeviceSpec


class SshConnector:
    """Opens SSH connections to enrolled devices."""

    def connect(self, device: DeviceSpec) -> Connection:
        """See `protocols.Connector.connect`."""
        hops = route(device)
        place = place_of(device, hops[-1])
        if not device.host_key:
            raise HostKeyError(f"{place}: no host key is pinned; enrol it: edgeprune device add {device.name} ...")
        pinned = parse_host_key(device.host_key, where=f"device {device.name}")
        with contextlib.ExitStack() as stack:
            way = set_out(device, hops, stack)
            with translated(place, "connect", Watchdog(way.sock, way.timeout_s)):
                transport = way.greet([pinned])
                found = host_key_of(transport.get_remote_server_key())
                if found != pinned:
                    raise changed_host_key(place, pinned, found)
                log_in(transport, hops[-1], place)
                transport.set_keepalive(KEEPALIVE_S)
            kept = replace(way, stack=stack.pop_all())
        return SshConnection(transport, kept, place, way.timeout_s)


def scan_host_key(device: DeviceSpec) -> HostKey:
    """The host key that a device shows, for a person to compare its fingerprint at enrolment.

    Raises:
        InputError: the OpenSSH configuration cannot be used.
        DeployError: unreachable, or no SSH server; a jump host on the way is unknown or refuses us.
    """
    hops = route(device)
    with contextlib.ExitStack() as stack:
        way = set_out(device, hops, stack)
        with translated(place_of(device, hops[-1]), "connect", Watchdog(way.sock, way.timeout_s)):
            return host_key_of(way.greet([]).get_remote_server_key())
