"""One file a way to reach a device; the file's name is what a device's `connection` says."""

from __future__ import annotations

from typing import Final

from edgeprune.protocols import Connection, Connector
from edgeprune.registry import Registry
from edgeprune.schema.device import DeviceSpec

CONNECTIONS: Final[Registry[Connector]] = Registry(__name__, "CONNECTOR", "connection")


def connect(device: DeviceSpec) -> Connection:
    """Open the connection that the device's file asks for.

    Raises:
        InputError: there is no such connection, or the device's file lacks what it needs.
        DeployError: the device cannot be reached or is not the one that was enrolled.
    """
    return CONNECTIONS.get(device.connection).connect(device)
