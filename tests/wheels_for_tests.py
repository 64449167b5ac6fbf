"""Tiny wheels of libraries that are called like real ones, and a folder of them as pip's only index."""

from __future__ import annotations

import platform
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from edgeprune.records.provisioning import Interpreter

ANY = "py3-none-any"
HERE = f"py3-none-linux_{platform.machine()}"


def make_wheel(
    folder: Path,
    name: str,
    version: str,
    *,
    tag: str = ANY,
    code: str = "",
    requires: tuple[str, ...] = (),
    more: Mapping[str, bytes] | None = None,
) -> Path:
    """A wheel with one package; `more` are files of it by their names in the archive."""
    folder.mkdir(parents=True, exist_ok=True)
    module = name.replace("-", "_")
    info = f"{module}-{version}.dist-info"
    lines = [
        "Metadata-Version: 2.1",
        f"Name: {name}",
        f"Version: {version}",
        *(f"Requires-Dist: {r}" for r in requires),
    ]
    files = {
        f"{module}/__init__.py": f"__version__ = {version!r}\n{code}\n".encode(),
        f"{info}/METADATA": "\n".join([*lines, "", ""]).encode(),
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: {tag}\n".encode(),
        f"{info}/RECORD": b"",
        **(more or {}),
    }
    path = folder / f"{module}-{version}-{tag}.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file, content in files.items():
            archive.writestr(file, content)
    return path


def only_index(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """pip sees this folder and nothing else, whatever this machine's own configuration says."""
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))


def interpreter(
    python: str = "3.11.2", machine: str = "aarch64", libc: str = "glibc 2.31", bits: int = 64
) -> Interpreter:
    """What a device's agent would tell."""
    markers = {
        "implementation_name": "cpython",
        "implementation_version": python,
        "os_name": "posix",
        "platform_machine": machine,
        "platform_python_implementation": "CPython",
        "platform_release": "6.1.0",
        "platform_system": "Linux",
        "platform_version": "#1 SMP",
        "python_full_version": python,
        "python_version": ".".join(python.split(".")[:2]),
        "sys_platform": "linux",
    }
    return Interpreter(markers=tuple(markers.items()), libc=libc, bits=bits)
