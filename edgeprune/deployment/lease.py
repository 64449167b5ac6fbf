"""The client's side of a device's lease: one measurement at a time on it, whoever measures and from wherever.

The device's side, with the rules, is `benchmarking/agent/device/lease.py`.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from edgeprune.deployment.transfer import Agent, last_reply
from edgeprune.errors import DeployError, MeasurementError
from edgeprune.units import format_seconds

_log = logging.getLogger(__name__)
TTL_S = 30.0
WAIT_S = 1800.0
_COMMAND_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseStatus:
    """Who measures on a device now.

    Attributes:
        holder: empty where nobody does.
        held_s: for how long by now.
        waiting: who will be next, in turn.
    """

    holder: str
    held_s: float
    waiting: tuple[str, ...]

    def __str__(self) -> str:
        if not self.holder:
            return "nobody is measuring there"
        queue = f"; waiting: {', '.join(self.waiting)}" if self.waiting else ""
        return f"{self.holder} is measuring there since {format_seconds(self.held_s)}{queue}"


class DeviceLease:
    """The lease of one device, for as long as the `with` block lasts; entering it waits in the device's queue.

    Between blocks a thread gives a sign of life every third of the time to live. While a block is timed the device
    sees its process instead, so that nothing else is started there: time blocks inside `quiet()`.

    Args:
        agent: on the device.
        folder: of the device's file: `lease_folder`.
        uses: folders on the device that must not be tidied away meanwhile.
        ttl_s: the device gives the lease to the next after so long without a sign.
        wait_s: patience in the queue.
        tell: hears who is before us, whenever that changes.
    """

    def __init__(
        self,
        agent: Agent,
        folder: str,
        *,
        uses: Sequence[str] = (),
        ttl_s: float = TTL_S,
        wait_s: float = WAIT_S,
        tell: Callable[[str], None] = _log.info,
    ) -> None:
        self.token = ""
        self._agent = agent
        self._folder = folder
        self._uses = tuple(uses)
        self._ttl_s = ttl_s
        self._wait_s = wait_s
        self._tell = tell
        self._busy = threading.Lock()
        self._over = threading.Event()
        self._heart = threading.Thread(target=self._beat, name="edgeprune-lease", daemon=True)

    def __enter__(self) -> Self:
        limits = ["--ttl-s", str(self._ttl_s), "--wait-s", str(self._wait_s)]
        uses = [argument for folder in self._uses for argument in ("--uses", folder)]
        arguments = ["acquire", "--holder", this_client(), *limits, *uses]
        self.token = str(self._run(arguments, self._wait_s + self._command_timeout_s, self._heard)["token"])
        self._heart.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._heart.join()
        try:
            self._run(["release", "--token", self.token], self._command_timeout_s)
        except (DeployError, MeasurementError) as error:
            # It ends by itself, after its time to live.
            _log.info("the lease could not be given back: %s", error.message)

    @contextlib.contextmanager
    def quiet(self) -> Iterator[None]:
        """No sign of life is sent meanwhile: what is timed must not be disturbed by it."""
        with self._busy:
            yield

    @property
    def _command_timeout_s(self) -> float:
        """A long time to live was chosen because commands are slow there."""
        return max(_COMMAND_TIMEOUT_S, self._ttl_s)

    def _beat(self) -> None:
        while not self._over.wait(self._ttl_s / 3):
            with self._busy:
                if self._over.is_set():
                    return
                try:
                    self._run(["renew", "--token", self.token], self._ttl_s)
                except (DeployError, MeasurementError) as error:
                    # The next block is told by the device whether the lease still holds.
                    _log.warning("the lease could not be renewed: %s", error.message)

    def _run(
        self, arguments: Sequence[str], timeout_s: float, on_line: Callable[[str], None] | None = None
    ) -> dict[str, Any]:
        return _run(self._agent, self._folder, arguments, timeout_s, on_line)

    def _heard(self, line: str) -> None:
        with contextlib.suppress(ValueError, KeyError, TypeError):
            event = json.loads(line)
            if event["event"] == "waiting":
                self._tell(f"waiting for {event['holder']}, {event['ahead']} before us in the queue")


def lease_status(agent: Agent, folder: str) -> LeaseStatus:
    """Ask the device who holds it.

    Raises:
        DeployError: it cannot be reached.
        MeasurementError: the lease cannot be read there.
    """
    reply = _run(agent, folder, ["status"], _COMMAND_TIMEOUT_S)
    return LeaseStatus(holder=reply["holder"], held_s=reply["held_s"], waiting=tuple(reply["waiting"]))


def this_client() -> str:
    """How others see us in the queue."""
    return f"{getpass.getuser()}@{socket.gethostname()} (process {os.getpid()})"


def _run(
    agent: Agent,
    folder: str,
    arguments: Sequence[str],
    timeout_s: float,
    on_line: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    place = ["--lease-folder", folder] if folder else []
    argv = [*agent.argv, "lease", *arguments, *place]
    result = agent.connection.run(argv, timeout_s=timeout_s, on_line=on_line)
    reply = last_reply(result)
    if result.returncode != 0:
        reason = reply.get("message") or result.stderr.strip()[-500:] or f"exit code {result.returncode}"
        raise MeasurementError(f"no lease of the device: {reason}", kind=str(reply.get("kind", "lost")))
    return reply
