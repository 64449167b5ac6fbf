"""What devices were found able to resolve, kept beside the inventory: a file for each device, state and runtime."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from edgeprune.cpu_list import format_cpus
from edgeprune.deployment.inventory import config_folder
from edgeprune.errors import BuildError, InputError
from edgeprune.files import write_atomically
from edgeprune.records.codec import from_json, to_json
from edgeprune.records.comparison import Calibration


def save_calibration(calibration: Calibration) -> Path:
    """Write it in place of an earlier one of the same device, fingerprint, runtime and cores."""
    cores = f"-cpu{format_cpus(calibration.cpus).replace(',', '+')}" if calibration.cpus else ""
    path = _folder(calibration.device) / f"{calibration.fingerprint[:16]}-{calibration.runtime}{cores}.json"
    write_atomically(path, to_json(calibration, indent=1))
    return path


def load_calibrations(device: str, fingerprint: str) -> tuple[Calibration, ...]:
    """All runtimes' calibrations of a device in the state that the fingerprint tells; those of another are left out.

    Raises:
        InputError: a file is damaged.
    """
    found = []
    for path in sorted(_folder(device).glob(f"{fingerprint[:16]}-*.json")):
        try:
            calibration = from_json(Calibration, path.read_bytes())
        except BuildError as error:
            raise InputError(
                f"{path}: damaged: {error.message}; `edgeprune device calibrate {device}` writes it anew"
            ) from error
        if calibration.fingerprint == fingerprint:
            found.append(calibration)
    return tuple(found)


def smallest_resolvable(
    device: str,
    fingerprint: str,
    percent: float,
    runtimes: Collection[str] = (),
    cpus: Collection[tuple[int, ...]] = (),
) -> float | None:
    """The smallest relative difference of a percentile that a device can resolve, such as 0.018 for 1.8 %.

    Args:
        device: its name.
        fingerprint: of its state now; a calibration of another state says nothing.
        percent: 50.0 or 99.0.
        runtimes: that are compared.
        cpus: the sets of cores that they run on, as for `Rung`.
            Where none of these was asked for or calibrated, the coarsest calibration that there is stands in.

    Returns:
        None where the device was not calibrated in this state.
    """
    calibrations = load_calibrations(device, fingerprint)
    chosen = [c for c in calibrations if c.runtime in runtimes] or calibrations
    chosen = [c for c in chosen if c.cpus in cpus] or chosen
    resolutions = [found.smallest for c in chosen if (found := c.resolution(percent)) is not None]
    return max(resolutions, default=None)


def _folder(device: str) -> Path:
    return config_folder() / "calibrations" / device
