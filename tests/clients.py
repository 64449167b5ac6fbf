"""Clients of a device as processes of their own, to be killed: `python -m clients` with PYTHONPATH holding tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import edgeprune
from edgeprune.benchmarking.agent.package import agent_bytes, agent_digest
from edgeprune.deployment.connections import connect
from edgeprune.deployment.lease import DeviceLease
from edgeprune.deployment.transfer import Agent, install_agent
from edgeprune.schema.device import DeviceSpec

_PATIENCE_S = 30.0


class Client:
    """`hold`: takes the lease, says `held`, and gives it back when its stdin ends. `run`: runs a command there.

    Everything that it says is a line with the time of `time.monotonic`, which all processes here share.
    """

    def __init__(self, device: DeviceSpec, what: str, *arguments: str) -> None:
        spec = device.model_dump_json(by_alias=True)
        root = Path(edgeprune.__file__).parents[1]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "clients", what, spec, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": f"{root}:{Path(__file__).parent}"},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def said(self, word: str) -> tuple[float, str]:
        """Wait until it says a line that begins so; returns when it said it, and the rest of the line."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            said, _, rest = line.strip().partition(" ")
            if said == word:
                at, _, text = rest.partition(" ")
                return float(at), text
        raise AssertionError(f"the client ended without {word!r}")

    def let_go(self) -> None:
        """Let it end as it should, and wait for that."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        assert self._process.wait(_PATIENCE_S) == 0

    def kill(self) -> None:
        """As a crash would."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


def _say(word: str, text: str = "") -> None:
    sys.stdout.write(f"{word} {time.monotonic()} {text}\n")
    sys.stdout.flush()


def _main(what: str, spec: str, *arguments: str) -> None:
    device = DeviceSpec.model_validate(json.loads(spec))
    connection = connect(device)
    if what == "run":
        connection.run(list(arguments), timeout_s=_PATIENCE_S, on_line=lambda line: _say("line", line))
        return
    path = install_agent(connection, device.python, device.work_folder, agent_bytes(), agent_digest())
    agent = Agent(connection, device.python, path)
    with DeviceLease(
        agent, device.lease_folder, ttl_s=float(arguments[0]), tell=lambda text: _say("waiting", text)
    ) as lease:
        _say("held", lease.token)
        sys.stdin.read()
        _say("released")
    connection.close()


if __name__ == "__main__":
    _main(*sys.argv[1:])
