"""A zip file with exactly one right sequence of bytes, so that any other is a changed one.

Members are stored, not compressed, sorted by name behind `SHA256SUMS`, with one fixed time. What was read is written
again and compared byte for byte: a changed bit in a header, a comment, an added or doubled member, bytes in front of or
behind the archive, all of it shows. Nothing is ever decompressed, so no small file can grow into a large one.

`unzip evidence.zip && sha256sum -c SHA256SUMS` checks the members without edgeprune.
"""

from __future__ import annotations

import hashlib
import io
import re
import struct
import zipfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from edgeprune.errors import InputError

SUMS = "SHA256SUMS"
MOST_BYTES = 256_000_000
"""No archive is larger: a million samples take about 10 MB."""
MOST_MEMBERS = 64

_TIME = (1980, 1, 1, 0, 0, 0)
_SUM_LINE = re.compile(r"([0-9a-f]{64})  ([A-Za-z0-9][A-Za-z0-9._-]*)")
# All that `zipfile` raises on bytes that are no zip file of ours.
_UNREADABLE = (
    zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, EOFError, OSError, OverflowError, struct.error,
)  # fmt: skip


def pack(members: Mapping[str, bytes]) -> bytes:
    """The archive of these members; the same members give the same bytes on every machine."""
    sums = "".join(f"{hashlib.sha256(members[name]).hexdigest()}  {name}\n" for name in sorted(members))
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for name, content in ((SUMS, sums.encode()), *((n, members[n]) for n in sorted(members))):
            info = zipfile.ZipInfo(name, _TIME)
            info.create_system = 3  # Unix, wherever it is made
            info.external_attr = 0o644 << 16
            archive.writestr(info, content)
    return stream.getvalue()


def unpack(content: bytes, *, where: str) -> dict[str, bytes]:
    """The members, `SHA256SUMS` left out.

    Args:
        content: of the file.
        where: its name, for messages.

    Raises:
        InputError: any byte is not the one that was written; the message says in which member where that is known.
    """
    members = _read_members(content, where)
    sums = _parse_sums(members.pop(SUMS, None), where)
    added, missing = sorted(members.keys() - sums.keys()), sorted(sums.keys() - members.keys())
    if added or missing:
        found = [f"{name} was added" for name in added] + [f"{name} is missing" for name in missing]
        raise _damaged(where, ", ".join(found))
    for name, member in members.items():
        if hashlib.sha256(member).hexdigest() != sums[name]:
            raise _damaged(where, f"{name} is not the one that {SUMS} names")
    if pack(members) != content:
        raise _damaged(where, "its members are whole, and bytes around them were changed")
    return members


def read_bytes(path: Path) -> bytes:
    """The content of an archive file.

    Raises:
        InputError: missing, unreadable, or larger than any archive of ours.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file", path=str(path)) from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}", path=str(path)) from error
    if len(content) > MOST_BYTES:
        raise InputError(f"{path}: expected at most {MOST_BYTES:,} bytes; this is no evidence of ours", path=str(path))
    return content


def _read_members(content: bytes, where: str) -> dict[str, bytes]:
    if len(content) > MOST_BYTES:
        raise InputError(f"{where}: expected at most {MOST_BYTES:,} bytes; this is no evidence of ours")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = archive.infolist()
            _check_entries(entries, len(content), where)
            return {entry.filename: archive.read(entry) for entry in entries}
    except _UNREADABLE as error:
        raise _damaged(where, str(error)) from error


def _check_entries(entries: list[zipfile.ZipInfo], size: int, where: str) -> None:
    """What must hold before a member is read."""
    if len(entries) > MOST_MEMBERS:
        raise _damaged(where, f"{len(entries)} members, at most {MOST_MEMBERS} can be")
    doubled = [name for name, count in Counter(e.filename for e in entries).items() if count > 1]
    if doubled:
        raise _damaged(where, f"{doubled[0]} is there more than once")
    packed = [e.filename for e in entries if e.compress_type != zipfile.ZIP_STORED or e.compress_size != e.file_size]
    if packed:
        raise _damaged(where, f"{packed[0]} is compressed, and evidence never is")
    if sum(e.file_size for e in entries) > size:
        raise _damaged(where, "its members claim to be larger than the file")


def _parse_sums(text: bytes | None, where: str) -> dict[str, str]:
    if text is None:
        raise _damaged(where, f"{SUMS} is missing")
    sums = {}
    for line in text.decode("ascii", errors="replace").splitlines():
        found = _SUM_LINE.fullmatch(line)
        if found is None:
            raise _damaged(where, f"{SUMS} is damaged")
        sums[found[2]] = found[1]
    return sums


def _damaged(where: str, what: str) -> InputError:
    return InputError(f"{where}: damaged or changed after it was written: {what}", path=where)
