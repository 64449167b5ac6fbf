"""Measured operators, kept for all models: a file for each place, below a folder of the user's.

A file is read, merged and replaced under a lock, so that two builds lose nothing of each other's. It keeps the newest
20,000 operators (about 3 MB). A folder of a device's earlier state is never read again and can be deleted.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from edgeprune.errors import BuildError
from edgeprune.files import write_atomically
from edgeprune.records.codec import from_json, to_json
from edgeprune.records.operators import TableEntry

MOST_ENTRIES = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class _Table:
    entries: tuple[TableEntry, ...]
    schema: int = 1


class TableFile:
    """The operators of one place.

    Args:
        path: of the file; it need not be there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> dict[str, TableEntry]:
        """By the operator's name; nothing where the file is missing or damaged: then it is measured again."""
        try:
            table = from_json(_Table, self.path.read_bytes())
        except (OSError, BuildError):
            return {}
        return {e.operator: e for e in table.entries}

    def add(self, entries: Iterable[TableEntry]) -> None:
        """Keep these too, in place of older ones of the same operators."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            merged = {**self.read(), **{e.operator: e for e in entries}}
            newest = sorted(merged.values(), key=lambda e: e.measured_unix_s)[-MOST_ENTRIES:]
            write_atomically(self.path, to_json(_Table(entries=tuple(newest))))
