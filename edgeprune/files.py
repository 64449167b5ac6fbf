"""Files that appear whole or not at all, whoever is killed meanwhile, and the hash of one."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def appearing(path: Path) -> Iterator[Path]:
    """Somewhere beside `path` to write to, in a folder that is made; it gets that name when the block ends well.

    Where the block raises, nothing of it is left, and an older file of that name stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # No two threads of this machine have one number.
    partial = path.with_name(f".{path.name}.{threading.get_native_id()}.part")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_atomically(path: Path, content: bytes, *, mode: int = 0o666) -> None:
    """Write a file that appears whole or not at all, and stays when the power goes.

    Args:
        path: its folder is made.
        content: all of it.
        mode: who may read it, less the process's umask.
    """
    with appearing(path) as partial:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())


def sha256_of(path: Path) -> str:
    """Hash of a file's content; OSError where it cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
