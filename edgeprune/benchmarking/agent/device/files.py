"""Takes uploaded files in: nothing appears under its final name before its size and hash are right."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from typing import List, Optional, Set, Tuple

from .reply import AgentError, Replies

STALE_PART_S = 24 * 3600


def receive(replies: Replies, part: str, sha256: str, size: int, to: str) -> None:
    """Check an uploaded part and move it to its name; a wrong part is removed.

    Raises:
        AgentError: io, when the size or the hash is another one.
    """
    if not os.path.exists(part) and os.path.isfile(to) and digest(to) == sha256:
        # Another build sent the same file at the same time and was first.
        replies.emit("received", path=to, size_bytes=size)
        return
    found = os.path.getsize(part)
    if found != size:
        os.remove(part)
        raise AgentError("io", "%s has %d bytes, not %d: the upload was cut short" % (part, found, size))
    if digest(part) != sha256:
        os.remove(part)
        raise AgentError("io", "%s has another sha256 than what was sent" % part)
    _flush(part, os.O_RDWR)
    os.makedirs(os.path.dirname(to) or ".", exist_ok=True)
    os.replace(part, to)
    _flush(os.path.dirname(to) or ".", os.O_RDONLY)
    replies.emit("received", path=to, size_bytes=size)


def have(replies: Replies, path: str, sha256: str, part: Optional[str] = None) -> None:
    """Say whether a file is there with this content, and what an earlier upload left of it.

    A file that is there counts as used now. Of a part, `part_bytes` and `part_sha256` tell what there is to go on from.
    """
    there = os.path.isfile(path) and digest(path) == sha256
    if there:
        touch(os.path.dirname(path))
    begun = not there and part is not None and os.path.isfile(part)
    replies.emit(
        "have",
        path=path,
        there=there,
        part_bytes=os.path.getsize(part) if begun and part else 0,
        part_sha256=digest(part) if begun and part else "",
    )


def tidy(replies: Replies, work: str, limit: int, spared: Set[str]) -> None:
    """Make room: remove the artifacts that were not used for longest, and the parts that nobody went on with.

    Args:
        replies: where to tell.
        work: the work folder.
        limit: bytes that what is there already may take.
        spared: folders that are not removed, whatever their age: real paths.
    """
    for part in _entries(os.path.join(work, "parts")):
        if time.time() - os.path.getmtime(part) > STALE_PART_S:
            _remove(part)
    held = sorted((os.path.getmtime(f), size_of(f), f) for f in _entries(os.path.join(work, "artifacts")))
    total = sum(size for _, size, _ in held)
    removed = []
    for _, size, folder in held:
        if total <= limit:
            break
        if os.path.realpath(folder) not in spared:
            _remove(folder)
            removed.append(os.path.basename(folder))
            total -= size
    replies.emit("tidied", removed=removed, artifact_bytes=total)


def touch(folder: str) -> None:
    """Count a folder as used now."""
    try:
        os.utime(folder)
    except OSError:
        # Read-only, or another user's: its age is only for tidying.
        return


def size_of(folder: str) -> int:
    """Bytes of all files in a folder."""
    found: List[Tuple[str, List[str], List[str]]] = list(os.walk(folder))
    paths = [os.path.join(parent, name) for parent, _, names in found for name in names]
    return sum(os.path.getsize(p) for p in paths if os.path.isfile(p))


def digest(path: str) -> str:
    """The sha256 of a file, in hex."""
    state = hashlib.sha256()
    with open(path, "rb") as stream:
        for chunk in iter(lambda: stream.read(1 << 20), b""):
            state.update(chunk)
    return state.hexdigest()


def _entries(folder: str) -> List[str]:
    if not os.path.isdir(folder):
        return []
    return [os.path.join(folder, name) for name in os.listdir(folder)]


def _remove(path: str) -> None:
    if os.path.isdir(path):
        # Another build may be tidying the same.
        shutil.rmtree(path, ignore_errors=True)
    elif os.path.exists(path):
        os.remove(path)


def _flush(path: str, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
