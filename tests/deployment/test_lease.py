"""The lease of a device, with clients that are processes of their own, two of them under different users."""

from __future__ import annotations

import getpass
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from clients import Client
from devices_for_tests import here_device
from sshd import SshServer

from edgeprune.benchmarking.agent.package import agent_bytes, agent_digest
from edgeprune.deployment.connections import connect
from edgeprune.deployment.lease import DeviceLease, lease_status
from edgeprune.deployment.transfer import Agent, install_agent
from edgeprune.errors import MeasurementError
from edgeprune.schema.device import DeviceSpec

TTL_S = "1.5"


@pytest.fixture
def folder() -> Iterator[str]:
    """A place for the lease that all users of this machine can reach."""
    parent = Path(tempfile.mkdtemp(prefix="edgeprune-lease-"))
    parent.chmod(0o755)
    # Made by the first who measures, as /run/lock/edgeprune is.
    parent.chmod(0o777)
    yield str(parent / "lease")
    shutil.rmtree(parent)


@pytest.fixture
def here(tmp_path: Path, folder: str) -> DeviceSpec:
    return here_device(tmp_path, lease_folder=folder)


@pytest.fixture
def agent(here: DeviceSpec) -> Agent:
    return _agent(here)


@pytest.mark.parametrize("first", ["local", "ssh"])
def test_a_killed_holders_lease_goes_to_the_next_after_its_time(
    first: str, here: DeviceSpec, server: SshServer, folder: str
) -> None:
    """The two are different users of the device, where we may make one."""
    there = server.device(lease_folder=folder)
    holder, waiter = (here, there) if first == "local" else (there, here)
    with Client(holder, "hold", TTL_S) as one:
        one.said("held")
        with Client(waiter, "hold", TTL_S) as two:
            assert f"{getpass.getuser()}@" in two.said("waiting")[1]
            # Longer than the time to live: the heartbeat holds it.
            time.sleep(2)
            killed = time.monotonic()
            one.kill()
            granted, _ = two.said("held")
            assert 0.3 < granted - killed < 1.5 + 2
            two.let_go()


def test_two_clients_never_hold_it_at_once_and_are_served_in_order(here: DeviceSpec, agent: Agent) -> None:
    with ExitStack() as stack:
        clients = []
        for event in ("held", "waiting", "waiting"):
            clients.append(stack.enter_context(Client(here, "hold", TTL_S)))
            clients[-1].said(event)
        status = lease_status(agent, here.lease_folder)
        names = [f"process {c._process.pid})" for c in clients]
        assert all(n in told for n, told in zip(names, (status.holder, *status.waiting), strict=True))
        clients[0].let_go()
        before = clients[0].said("released")[0]
        for client in clients[1:]:
            granted, _ = client.said("held")
            assert granted >= before
            client.let_go()
            before = client.said("released")[0]
    assert str(lease_status(agent, here.lease_folder)) == "nobody is measuring there"


def test_a_client_that_died_in_the_queue_is_passed_over(here: DeviceSpec) -> None:
    with Client(here, "hold", TTL_S) as one:
        one.said("held")
        with Client(here, "hold", TTL_S) as two:
            two.said("waiting")
            with Client(here, "hold", TTL_S) as three:
                three.said("waiting")
                two.kill()
                one.let_go()
                three.said("held")
                three.let_go()


def test_patience_ends_with_the_holders_name(here: DeviceSpec, agent: Agent) -> None:
    told: list[str] = []
    with Client(here, "hold", TTL_S) as one:
        one.said("held")
        with (
            pytest.raises(MeasurementError, match=rf"process {one._process.pid}\) is measuring") as caught,
            DeviceLease(agent, here.lease_folder, wait_s=0.5, tell=told.append),
        ):
            pytest.fail("it was held")
        assert caught.value.facts["kind"] == "busy"
        assert len(told) == 1
        assert not lease_status(agent, here.lease_folder).waiting
        one.let_go()


def test_no_sign_is_sent_in_a_quiet_moment(here: DeviceSpec, agent: Agent) -> None:
    """Nor is one needed while the device sees the block's process; here there is none, and the lease is lost."""
    with DeviceLease(agent, here.lease_folder, ttl_s=0.6) as lease, lease.quiet():
        time.sleep(1.2)
        assert not lease_status(agent, here.lease_folder).holder


def _agent(device: DeviceSpec) -> Agent:
    connection = connect(device)
    path = install_agent(connection, device.python, device.work_folder, agent_bytes(), agent_digest())
    return Agent(connection, device.python, path)
