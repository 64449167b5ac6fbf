"""Devices: one that may be used now, and one that is given what it needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgeprune.events import NullReporter, Reporter

if TYPE_CHECKING:
    from edgeprune.records.provisioning import Provision
    from edgeprune.schema.device import DeviceSpec


def provision(
    device: str,
    runtimes: Sequence[str] = (),
    *,
    base_python: str = "",
    reporter: Reporter | None = None,
) -> Provision:
    """Give a device a Python environment with exactly these runtimes, from wheels that this host's pip fetches.

    Args:
        device: an enrolled device's name.
        runtimes: names; empty for those of the device's profile.
        base_python: the interpreter there to make it with; empty for that of the last time, or of the enrolment.
        reporter: hears what happens; None for silence.

    Raises:
        InputError: unknown device or runtime, or `local`.
        NotInstalledError: this host's Python has no pip.
        BuildError: this host's pip failed.
        DeployError: no Python there, no wheel for it, too little disk, or an import that fails there; the earlier
            environment is in place.
        MeasurementError: others measured there for too long.
    """
    from edgeprune.steps import provisioning

    return provisioning.provision(device, runtimes, reporter or NullReporter(), base_python=base_python)


def usable(device: str) -> DeviceSpec:
    """A device that did not fail its last check; asked before anything is read or compiled for it."""
    from edgeprune.deployment.inventory import load_device
    from edgeprune.steps.health import refuse_failing

    spec = load_device(device)
    refuse_failing(spec)
    return spec
