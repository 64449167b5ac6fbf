"""The user's devices: one TOML file each below the configuration folder, and the build host as `local`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from edgeprune.errors import InputError
from edgeprune.files import write_atomically
from edgeprune.registry import suggest
from edgeprune.schema.base import load_toml, parse_toml
from edgeprune.schema.device import DeviceSpec

LOCAL = "local"
ALL = "all"
"""Every enrolled device, where several may be named."""


def config_folder() -> Path:
    """`$EDGEPRUNE_HOME`, else `$XDG_CONFIG_HOME/edgeprune`, else `~/.config/edgeprune`."""
    own = os.environ.get("EDGEPRUNE_HOME")
    return Path(own).expanduser() if own else _xdg_folder("XDG_CONFIG_HOME", ".config")


def list_devices() -> tuple[str, ...]:
    """The names of all devices, sorted; `local` is always among them."""
    enrolled = {p.stem for p in _devices_folder().glob("*.toml")}
    return tuple(sorted(enrolled | {LOCAL}))


def load_device(name: str) -> DeviceSpec:
    """One device.

    Raises:
        InputError: unknown, with the known names and the closest; or its file is not what it must be.
    """
    if name == LOCAL:
        return _local_device()
    if name not in list_devices():
        raise InputError(f"unknown device {name!r}{suggest(name, list_devices())}", name=name)
    path = _path(name)
    spec = load_toml(path, DeviceSpec)
    if spec.name != name:
        raise InputError(f"{path}: name: expected {name!r}, as the file is called, got {spec.name!r}")
    return spec


def save_device(spec: DeviceSpec) -> Path:
    """Write a device's file, readable by its owner only; it appears by atomic rename.

    Raises:
        InputError: `local` is built in, and `all` means every device; or a value cannot be written as TOML.
    """
    if spec.name == LOCAL:
        raise InputError("the device name 'local' is the build host itself; choose another name")
    if spec.name == ALL:
        raise InputError("the device name 'all' means every enrolled device; choose another name")
    path = _path(spec.name)
    text = _to_toml(spec)
    if parse_toml(text, DeviceSpec, where=str(path)) != spec:
        raise InputError(f"{path}: a value of device {spec.name!r} cannot be written as TOML")
    write_private(path, text)
    return path


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read; it appears by atomic rename."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_atomically(path, text.encode(), mode=0o600)


def remove_device(name: str) -> None:
    """Forget a device.

    Raises:
        InputError: unknown, or `local`.
    """
    if name == LOCAL:
        raise InputError("the device 'local' is the build host itself and cannot be removed")
    if name not in list_devices():
        raise InputError(f"unknown device {name!r}{suggest(name, list_devices())}", name=name)
    _path(name).unlink()
    lock_file(name).unlink(missing_ok=True)


def lock_file(name: str) -> Path:
    """Where the lock of a device's provisioned environment lies, beside the device's file."""
    return _devices_folder() / f"{name}.lock"


def _local_device() -> DeviceSpec:
    return DeviceSpec(
        schema=1,
        name=LOCAL,
        connection="local",
        profile=LOCAL,
        python=sys.executable,
        work_folder=str(_xdg_folder("XDG_CACHE_HOME", ".cache")),
    )


def _to_toml(spec: DeviceSpec) -> str:
    """JSON's strings and numbers are TOML's, but for DEL, which TOML wants escaped."""
    values = spec.model_dump(mode="json", by_alias=True)
    lines = (f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in values.items())
    return "\n".join(lines).replace("\x7f", "\\u007f") + "\n"


def _devices_folder() -> Path:
    return config_folder() / "devices"


def _path(name: str) -> Path:
    return _devices_folder() / f"{name}.toml"


def _xdg_folder(variable: str, fallback: str) -> Path:
    """The XDG base directory specification asks to ignore relative values."""
    base = os.environ.get(variable, "")
    return (Path(base) if os.path.isabs(base) else Path.home() / fallback) / "edgeprune"  # noqa: PTH117
