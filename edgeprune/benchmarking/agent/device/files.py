"""Takes uploaded files in: nothing appears under its final name before its size and hash are right."""

from __future__ import annotations

import hashlib
import os

from .reply import AgentError, Replies


def receive(replies: Replies, part: str, sha256: str, size: int, to: str) -> None:
    """Check an uploaded part and move it to its name; a wrong part is removed.

    Raises:
        AgentError: io, when the size or the hash is another one.
    """
    found = os.path.getsize(part)
    if found != size:
        os.remove(part)
        raise AgentError("io", "%s has %d bytes, not %d: the upload was cut short" % (part, found, size))
    if digest(part) != sha256:
        os.remove(part)
        raise AgentError("io", "%s has another sha256 than what was sent" % part)
    _flush(part, os.O_RDWR)
    os.replace(part, to)
    _flush(os.path.dirname(to) or ".", os.O_RDONLY)
    replies.emit("received", path=to, size_bytes=size)


def have(replies: Replies, path: str, sha256: str) -> None:
    """Say whether a file is there with this content."""
    replies.emit("have", path=path, there=os.path.isfile(path) and digest(path) == sha256)


def digest(path: str) -> str:
    """The sha256 of a file, in hex."""
    state = hashlib.sha256()
    with open(path, "rb") as stream:
        for chunk in iter(lambda: stream.read(1 << 20), b""):
            state.update(chunk)
    return state.hexdigest()


def _flush(path: str, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
