"""Unpacks wheels into an environment. A wheel is a zip file that is made to be unpacked: no pip is needed for it.

Source: https://packaging.python.org/en/latest/specifications/binary-distribution-format/
"""

from __future__ import annotations

import os
import shutil
import zipfile
from typing import List, Optional, Tuple

from .reply import AgentError

_EXECUTABLE = 0o111


def unpacked_bytes(path: str) -> int:
    """What a wheel's files take.

    Raises:
        AgentError: io, where it is no wheel.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return sum(member.file_size for member in archive.infolist())
    except zipfile.BadZipFile as error:
        raise AgentError("io", "%s is no wheel: %s" % (path, error)) from error


def unpack(path: str, site: str, prefix: str) -> None:
    """Unpack one wheel.

    Args:
        path: of the wheel.
        site: the environment's folder of libraries.
        prefix: the environment's own folder.

    Raises:
        AgentError: io, where a file of it would land elsewhere.
    """
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            place = destination(member.filename)
            if place is None:
                continue
            root, parts = site if place[0] == "site" else prefix, place[1]
            if not parts or any(part in ("", ".", "..") for part in parts):
                raise AgentError("io", "%s: %r would leave the environment" % (path, member.filename))
            target = os.path.join(root, *parts)
            os.makedirs(os.path.dirname(target), exist_ok=True)
            with archive.open(member) as source, open(target, "wb") as sink:
                shutil.copyfileobj(source, sink, 1 << 20)
            mode = member.external_attr >> 16
            if mode & _EXECUTABLE:
                os.chmod(target, 0o755)  # noqa: S103 - a program of the user's own


def destination(name: str) -> Optional[Tuple[str, List[str]]]:
    """Where a file of a wheel belongs: below `site` or `prefix`; None for folders, and for what is not needed here."""
    if name.endswith("/"):
        return None
    parts = name.split("/")
    if not parts[0].endswith(".data"):
        return "site", parts
    kind, rest = (parts[1:2] or [""])[0], parts[2:]
    if kind in ("purelib", "platlib"):
        return "site", rest
    # Scripts and headers: nobody starts or compiles anything there.
    return ("prefix", rest) if kind == "data" else None
