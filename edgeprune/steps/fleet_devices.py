"""Which devices a person means: names, `profile:NAME`, or `all`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgeprune.deployment.inventory import ALL, LOCAL, list_devices, load_device
from edgeprune.errors import InputError
from edgeprune.schema.device import DeviceSpec
from edgeprune.steps.inputs import load_profile

PROFILE_PREFIX = "profile:"


def names_group(text: str) -> bool:
    """Whether it names a group of devices: `all`, or `profile:` and a profile."""
    return text == ALL or text.startswith(PROFILE_PREFIX)


def choose_devices(named: Sequence[str]) -> tuple[DeviceSpec, ...]:
    """The devices, each once, in the order in which they are first named; those of a group by name.

    Args:
        named: names of devices, `local` among them; `all` for every enrolled one (not `local`, which is this host);
            `profile:NAME` or `profile:FILE.toml` for the enrolled ones of a profile.

    Raises:
        InputError: none at all, an unknown name or profile, or a group without a device.
    """
    found: dict[str, DeviceSpec] = {}
    for text in named:
        for spec in _group(text) if names_group(text) else (load_device(text),):
            found.setdefault(spec.name, spec)
    if not found:
        raise InputError("expected at least one device; `edgeprune device list` shows them")
    return tuple(found.values())


def _group(text: str) -> tuple[DeviceSpec, ...]:
    enrolled = tuple(load_device(name) for name in list_devices() if name != LOCAL)
    if not enrolled:
        raise InputError(f"{text}: no device is enrolled; `edgeprune device add NAME ...` enrols one")
    if text == ALL:
        return enrolled
    profile = load_profile(text.removeprefix(PROFILE_PREFIX)).name
    chosen = tuple(spec for spec in enrolled if _profile_name(spec) == profile)
    if not chosen:
        known = ", ".join(sorted({_profile_name(spec) for spec in enrolled}))
        raise InputError(f"{text}: no enrolled device has that profile; those enrolled have: {known}")
    return chosen


def _profile_name(spec: DeviceSpec) -> str:
    """A device's file names its profile, or says where it lies; a profile's file is called as the profile is."""
    return Path(spec.profile).stem if spec.profile.endswith(".toml") else spec.profile
