"""This machine as a device of its own, what is said on the way to a device, and what is left running there."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from edgeprune.protocols import CommandResult, Connection
from edgeprune.schema.device import DeviceSpec


def here_device(folder: Path, **changes: object) -> DeviceSpec:
    """The device `here`, reached without a network, with its work folder below `folder`; `changes` replace fields."""
    values: dict[str, object] = {
        "schema": 1,
        "name": "here",
        "connection": "local",
        "profile": "local",
        "python": sys.executable,
        "work_folder": str(folder / "work"),
    }
    return DeviceSpec.model_validate({**values, **changes})


class Listening:
    """A real connection whose lines somebody else hears first."""

    def __init__(self, connection: Connection, listener: Callable[[str], None]) -> None:
        self._connection = connection
        self._listener = listener

    def run(
        self, argv: Sequence[str], *, timeout_s: float, on_line: Callable[[str], None] | None = None
    ) -> CommandResult:
        def both(line: str) -> None:
            self._listener(line)
            if on_line is not None:
                on_line(line)

        return self._connection.run(argv, timeout_s=timeout_s, on_line=both)

    def put(self, source: Path, destination: str, *, offset: int = 0) -> None:
        self._connection.put(source, destination, offset=offset)

    def get(self, source: str, destination: Path) -> None:
        self._connection.get(source, destination)

    def close(self) -> None:
        self._connection.close()


def gone(pids: list[str], within_s: float = 3.0) -> bool:
    """Whether all of these processes are dead in time; a zombie is dead."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if not any(_runs(pid) for pid in pids):
            return True
        time.sleep(0.02)
    return False


def _runs(pid: str) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
