"""What pip says when it fails, as errors that say what to do."""

from __future__ import annotations

import re

from packaging.requirements import Requirement
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import Version

from edgeprune.deployment.platform_tags import wheel_machine
from edgeprune.errors import BuildError, DeployError
from edgeprune.records.provisioning import Interpreter

_UNMATCHED = re.compile(r"No matching distribution found for (.+)")
_UNREACHABLE = re.compile(r"^.*(?:Could not fetch URL|connection broken by|Failed to establish).*$", re.MULTILINE)
_WHEEL = re.compile(r"[\w.+!%-]+\.whl")
_SHOWN = 8


def unmatched(said: str) -> str | None:
    """The requirement that pip found nothing for; None where it failed for another reason."""
    found = _UNMATCHED.findall(said)
    # pip adds in brackets who asked.
    return str(found[-1]).split(" (from ")[0].strip() if found else None


def pip_failed(said: str) -> BuildError:
    """The build host's pip could not do its work."""
    lines = [line for line in said.splitlines() if line.startswith("ERROR:")] or said.splitlines()[-3:]
    return BuildError(f"pip on this host failed: {' '.join(lines)[-800:]}")


def no_wheel(text: str, interpreter: Interpreter, said: str) -> DeployError | BuildError:
    """There is none for the device: says which package, platform and Python, and what there is instead."""
    unreachable = _UNREACHABLE.search(said)
    existing = existing_wheels(Requirement(text), interpreter, said)
    if unreachable and not existing:
        return BuildError(f"pip on this host finds no {text}: {unreachable[0].strip()[:400]}")
    shown = ", ".join(existing[:_SHOWN]) + (f" and {len(existing) - _SHOWN} more" if len(existing) > _SHOWN else "")
    there = f"there is: {shown}" if existing else "pip's package index (`pip config list`) has no wheel of it at all"
    return DeployError(
        f"no wheel of {text} for the device: {interpreter}; {there}",
        package=text,
        platform=f"{interpreter.marker('platform_machine')} {interpreter.libc}",
        python=interpreter.marker("python_full_version"),
        existing=existing,
    )


def existing_wheels(wanted: Requirement, interpreter: Interpreter, said: str) -> list[str]:
    """The nearest misses among all file names that pip has mentioned, the device's machine and Python first.

    They are those of the newest release that the requirement allows; of the newest at all where it allows none.
    """
    found: dict[Version, set[str]] = {}
    for file in _WHEEL.findall(said.replace("%2B", "+")):
        try:
            name, version, _, tags = parse_wheel_filename(file)
        except InvalidWheelFilename:
            continue
        if name == canonicalize_name(wanted.name):
            found.setdefault(version, set()).add(f"{version} for {' '.join(sorted(map(str, tags)))}")
    released = [v for v in found if not v.is_prerelease] or list(found)
    allowed = list(wanted.specifier.filter(released)) or released
    likely = (wheel_machine(interpreter), "linux", f"-{interpreter.abi}-")
    return sorted(found[max(allowed)], key=lambda text: ([part not in text for part in likely], text)) if found else []
