"""The platform tags of wheels that a device accepts, best first.

Sources: PEP 600 (a wheel `manylinux_2_Y` runs where glibc is 2.Y or newer; the older names are those of a version
each), PEP 656 (musllinux). packaging knows the tags of the running interpreter only.
"""

from __future__ import annotations

from typing import Final

from edgeprune.errors import DeployError
from edgeprune.records.provisioning import Interpreter

# manylinux1, 2010 and 2014 are other names of these. Nothing older than them was ever defined, and the first two for
# x86 alone.
_LEGACY: Final = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}
_OLDEST_X86: Final = 5
_OLDEST: Final = 17
_X86: Final = ("x86_64", "i686")
_NARROW: Final = {"x86_64": "i686", "i386": "i686", "i586": "i686", "aarch64": "armv7l", "armv8l": "armv7l"}
_HARD_FLOAT: Final = "gnueabihf"


def platform_tags(interpreter: Interpreter) -> tuple[str, ...]:
    """All platform tags, from the device's own libc version down to the oldest.

    Raises:
        DeployError: no Linux, or not CPython: nobody builds the runtimes' wheels for it.
    """
    system, python = interpreter.marker("platform_system"), interpreter.marker("platform_python_implementation")
    if system != "Linux" or python != "CPython":
        raise DeployError(f"wheels are chosen for CPython on Linux; the device has {python} on {system}")
    machine = wheel_machine(interpreter)
    kind, _, version = interpreter.libc.partition(" ")
    major, minor = (int(part) for part in version.split(".")) if version else (0, 0)
    linux = f"linux_{machine}"
    if kind == "musl":
        return (*(f"musllinux_{major}_{m}_{machine}" for m in range(minor, -1, -1)), linux)
    if kind == "glibc" and major == 2 and _has_manylinux(machine, interpreter.multiarch):  # noqa: PLR2004
        return (*_manylinux(machine, minor), linux)
    return (linux,)


def wheel_machine(interpreter: Interpreter) -> str:
    """The machine as wheels' names have it: a 32-bit interpreter needs 32-bit wheels, whatever the kernel is."""
    machine = interpreter.marker("platform_machine")
    if machine == "arm64":
        machine = "aarch64"
    return _NARROW.get(machine, machine) if interpreter.bits == 32 else machine  # noqa: PLR2004


def _has_manylinux(machine: str, multiarch: str) -> bool:
    """On 32-bit ARM manylinux means hard float; a system that tells it has soft float does not take them."""
    return machine != "armv7l" or not multiarch or multiarch.endswith(_HARD_FLOAT)


def _manylinux(machine: str, newest: int) -> list[str]:
    tags = []
    for minor in range(newest, (_OLDEST_X86 if machine in _X86 else _OLDEST) - 1, -1):
        tags.append(f"manylinux_2_{minor}_{machine}")
        if minor in _LEGACY:
            tags.append(f"{_LEGACY[minor]}_{machine}")
    return tags
