"""What decides which wheels this Python can use: markers, libc, word size, ABI. The build host fetches by it."""

from __future__ import annotations

import glob
import os
import platform
import re
import struct
import subprocess
import sys
import sysconfig
from typing import Any, Dict, List

_LOADERS = "/lib/ld-musl-*.so.1"
_LOADER_TIMEOUT_S = 10


def facts() -> Dict[str, Any]:
    """Every field of `records.provisioning.Interpreter`."""
    return {
        "markers": markers(),
        "libc": libc(),
        # Of the interpreter, not of the kernel: 32-bit systems run on 64-bit kernels.
        "bits": struct.calcsize("P") * 8,
        "multiarch": sysconfig.get_config_var("MULTIARCH") or "",
        "free_threaded": bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
    }


def markers() -> List[List[str]]:
    """The environment that requirements' markers are judged in.

    Source: https://packaging.python.org/en/latest/specifications/dependency-specifiers/#environment-markers
    """
    version = sys.implementation.version
    full = "%d.%d.%d" % version[:3]
    if version.releaselevel != "final":
        full += version.releaselevel[0] + str(version.serial)
    values = {
        "implementation_name": sys.implementation.name,
        "implementation_version": full,
        "os_name": os.name,
        "platform_machine": platform.machine(),
        "platform_python_implementation": platform.python_implementation(),
        "platform_release": platform.release(),
        "platform_system": platform.system(),
        "platform_version": platform.version(),
        "python_full_version": platform.python_version(),
        "python_version": "%d.%d" % sys.version_info[:2],
        "sys_platform": sys.platform,
    }
    return [[key, values[key]] for key in sorted(values)]


def libc() -> str:
    """`glibc 2.36` or `musl 1.2`; empty for another."""
    try:
        name = os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (ValueError, OSError):
        name = ""
    found = re.match(r"glibc (\d+\.\d+)", name)
    if found:
        return "glibc " + found.group(1)
    for loader in sorted(glob.glob(_LOADERS)):
        version = musl_version(_said_by(loader))
        if version:
            return "musl " + version
    return ""


def musl_version(said: str) -> str:
    """Major and minor from what musl's loader says when it is started without arguments; empty where it is none."""
    found = re.match(r"musl libc[^\n]*\nVersion (\d+\.\d+)", said)
    return found.group(1) if found else ""


def _said_by(loader: str) -> str:
    try:
        done = subprocess.run(
            [loader],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=_LOADER_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stderr.decode("utf-8", "replace")
