"""This machine as a device of its own, and what is left running on it."""

from __future__ import annotations

import sys
import time
from pathlib import Path

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
