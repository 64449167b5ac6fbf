"""What is known of a device's Python, the wheels that were chosen for it, and what became of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Interpreter:
    """What decides which wheels a Python can use.

    Attributes:
        markers: the environment that requirements' markers are judged in.
        libc: `glibc 2.36`, `musl 1.2`, or empty for another one.
        bits: of the interpreter's pointers; the kernel's may be more.
        multiarch: such as `arm-linux-gnueabihf`, on systems that tell.
        free_threaded: a build without the global lock, which takes wheels of its own.
    """

    markers: tuple[tuple[str, str], ...]
    libc: str
    bits: int
    multiarch: str = ""
    free_threaded: bool = False

    def marker(self, name: str) -> str:
        """One of the markers; empty where it is not told."""
        return dict(self.markers).get(name, "")

    @property
    def abi(self) -> str:
        """As wheels' names have it: `cp311`."""
        return f"cp{self.marker('python_version').replace('.', '')}{'t' if self.free_threaded else ''}"

    def __str__(self) -> str:
        libc = self.libc or "an unknown libc"
        machine = f"{self.marker('platform_machine')}, {self.bits} bit"
        return f"{self.marker('platform_system')} ({machine}), {libc}, Python {self.marker('python_full_version')}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wheel:
    """One wheel of an environment. `name` is the normalised name of the distribution."""

    name: str
    version: str
    file: str
    sha256: str
    size_bytes: int

    @property
    def lock_line(self) -> str:
        """As `pip install --require-hashes -r` takes it."""
        return f"{self.name}=={self.version} --hash=sha256:{self.sha256}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Provision:
    """A device's environment.

    Attributes:
        python: the environment's interpreter, on the device.
        base_python: the one it was made with.
        interpreter: what the wheels were chosen for, in words.
        numpy: its version there.
        runtimes: (name, version), as they were imported there.
        before: the runtimes that the environment had before; empty where there was none.
        wheels: all that it has.
        lock_file: on this host: each wheel with its sha256.
        sent_bytes: of wheels that were not on the device yet.
        changed: whether a new environment was made; False where it was there already.
    """

    device: str
    python: str
    base_python: str
    interpreter: str
    numpy: str
    runtimes: tuple[tuple[str, str], ...]
    before: tuple[tuple[str, str], ...]
    wheels: tuple[Wheel, ...]
    lock_file: str
    sent_bytes: int
    changed: bool


def environment_digest(base: tuple[str, Interpreter], runtimes: Sequence[str], wheels: Sequence[Wheel]) -> str:
    """The identity of an environment: the Python that it is made with, what must be importable, the wheels by content.

    Args:
        base: path on the device, and what it is.
        runtimes: names.
        wheels: all of it.
    """
    executable, interpreter = base
    lines = [f"python {executable} {interpreter.abi}", f"runtimes {' '.join(sorted(runtimes))}"]
    lines += sorted(f"{wheel.file} {wheel.sha256}" for wheel in wheels)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
