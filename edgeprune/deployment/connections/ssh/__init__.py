"""Devices over SSH. The only package that imports paramiko; every exception of paramiko's ends in `translation.py`."""

from __future__ import annotations

from typing import Final

from edgeprune.deployment.connections.ssh.connector import SshConnector, scan_host_key
from edgeprune.protocols import Connector

__all__ = ["CONNECTOR", "scan_host_key"]

CONNECTOR: Final[Connector] = SshConnector()
