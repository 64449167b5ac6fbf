"""An emulated aarch64 device with ai-edge-litert, made by the device lab.

The root file system is made once (0.4 GB) where EDGELAB_AARCH64 says, or in ~/.cache/edgeprune-lab; not below /tmp,
which a device hides. A test that adds a user to this machine meanwhile takes the device's own user from it: its
/etc/passwd is mounted over the machine's.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from targets_for_tests import own_home  # noqa: F401

from edgeprune.schema.device import DeviceSpec

PACKAGES = ("numpy==1.26.4", "ai-edge-litert==2.3.0")


@pytest.fixture(scope="session")
def arm_device() -> Iterator[DeviceSpec]:
    """As it would stand in the inventory; skipped where there is no lab."""
    lab_script = os.environ.get("EDGELAB")
    if not lab_script:
        pytest.skip("EDGELAB names no lab: make test-lab EDGELAB=...")
    root = Path(os.environ.get("EDGELAB_AARCH64", Path.home() / ".cache/edgeprune-lab/aarch64"))
    if not root.exists():
        root.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run([lab_script, "rootfs", str(root), "--arch", "aarch64", "--pip", *PACKAGES], check=True)
    lab = root.parent / f"lab-{os.getpid()}"
    subprocess.run([lab_script, "up", str(lab), "--arch", "aarch64", "--rootfs", str(root)], check=True)
    try:
        (found,) = json.loads((lab / "inventory.json").read_text())["devices"]
        yield spec_of(found)
    finally:
        subprocess.run([lab_script, "down", str(lab)], check=True)


def spec_of(found: dict[str, str]) -> DeviceSpec:
    """From the lab's inventory."""
    known = Path(found["known_hosts"]).read_text().splitlines()
    (key,) = [line.split(maxsplit=1)[1] for line in known if line.startswith(f"[{found['host']}]:{found['port']} ")]
    return DeviceSpec(
        schema=1,
        name=found["name"],
        profile="emulated",
        host=found["host"],
        port=int(found["port"]),
        user=found["user"],
        identity_file=found["identity_file"],
        host_key=key,
        connect_timeout_s=60.0,
    )
