"""The last health of each device, kept beside the inventory. A cache: what cannot be read counts as never checked."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

from edgeprune.deployment.inventory import config_folder
from edgeprune.errors import BuildError
from edgeprune.files import write_atomically
from edgeprune.records.codec import from_json, to_json
from edgeprune.records.health import DeviceHealth
from edgeprune.schema.device import DeviceSpec

_log = logging.getLogger(__name__)


def save_health(health: DeviceHealth) -> Path:
    """Write it in place of the one before."""
    path = _path(health.device)
    write_atomically(path, to_json(health, indent=1))
    return path


def load_health(spec: DeviceSpec) -> DeviceHealth | None:
    """The last one of this device; None where it was never checked as its file is now."""
    path = _path(spec.name)
    try:
        health = from_json(DeviceHealth, path.read_bytes())
    except FileNotFoundError:
        return None
    except (BuildError, OSError) as error:
        _log.warning("%s: %s; the device counts as never checked", path, error)
        return None
    return health if health.spec_digest == spec_digest(spec) else None


def forget_health(name: str) -> None:
    """The device is no more."""
    _path(name).unlink(missing_ok=True)


def spec_digest(spec: DeviceSpec) -> str:
    """Of all that a device's file says."""
    return hashlib.sha256(spec.model_dump_json(by_alias=True).encode()).hexdigest()


def _path(name: str) -> Path:
    return config_folder() / "health" / f"{name}.json"
