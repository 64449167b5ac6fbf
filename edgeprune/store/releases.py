"""A folder of releases: `<name>/` with what ships and its evidence, and `current`, a link to the one that is out.

A release appears by one rename and is never changed; what is out is decided by one link, replaced by one rename. So a
program may read `current/artifact` at any time, and a kill at any point leaves one whole release current.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edgeprune.errors import InputError
from edgeprune.files import write_atomically

CURRENT = "current"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_BEFORE = "before.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseEntry:
    """One release.

    Attributes:
        before: what was current when this one was promoted: where a rollback goes; None for the first.
    """

    name: str
    folder: Path
    before: str | None
    current: bool


class ReleaseFolder:
    """The releases of one product.

    Args:
        root: made when the first release is promoted.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def releases(self) -> tuple[ReleaseEntry, ...]:
        """All of them, by name."""
        if not self.root.is_dir():
            return ()
        names = sorted(p.name for p in self.root.iterdir() if p.is_dir() and not p.is_symlink() and _is_name(p.name))
        current = self._current()
        return tuple(
            ReleaseEntry(name=n, folder=self.root / n, before=self._before(n), current=n == current) for n in names
        )

    def find(self, name: str) -> ReleaseEntry:
        """One release, by its name or as `current`.

        Raises:
            InputError: there is none of that name; the message has those that there are.
        """
        wanted = self._current() if name == CURRENT else name
        found = next((r for r in self.releases() if r.name == wanted), None)
        if found is None:
            known = ", ".join(r.name for r in self.releases()) or "none yet"
            raise InputError(f"{self.root}: no release {name!r}; there are: {known}", release=name)
        return found

    def promote(self, name: str, fill: Callable[[Path], None], is_same: Callable[[Path], bool]) -> ReleaseEntry:
        """Make a release current. One that is there already, from the same run, is made current again.

        Args:
            name: of the release: letters, digits, `.`, `_` and `-`.
            fill: writes the release's files into an empty folder.
            is_same: whether a release folder holds what `fill` would write.

        Raises:
            InputError: not a name, or the name was given to another release.
        """
        if not _is_name(name):
            raise InputError(f"release name: expected letters, digits, '.', '_', '-', at most 64, got {name!r}")
        with self._locked():
            before, folder = self._current(), self.root / name
            if folder.exists() and not is_same(folder):
                raise InputError(f"{folder}: is another release; a name is given once", release=name)
            if not folder.exists():
                partial = self._fresh_partial()
                fill(partial)
                self._write_before(partial, before)
                partial.rename(folder)
            elif before != name:
                self._write_before(folder, before)
            self._point_to(name)
        return self.find(name)

    def rollback(self) -> ReleaseEntry:
        """Make the release current that was before the current one; nothing is deleted.

        Raises:
            InputError: nothing is current, or nothing was before it.
        """
        with self._locked():
            current = self._current()
            if current is None:
                raise InputError(f"{self.root}: no release is current")
            before = self._before(current)
            if before is None:
                raise InputError(f"{self.root}: {current} is the first release, there is none to go back to")
            self.find(before)
            self._point_to(before)
        return self.find(before)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _current(self) -> str | None:
        link = self.root / CURRENT
        return link.readlink().name if link.is_symlink() else None

    def _before(self, name: str) -> str | None:
        path = self.root / name / _BEFORE
        try:
            before = json.loads(path.read_bytes())["before"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path}: damaged; no edgeprune wrote it like this") from error
        return before if isinstance(before, str) else None

    @staticmethod
    def _write_before(folder: Path, before: str | None) -> None:
        write_atomically(folder / _BEFORE, json.dumps({"schema": 1, "before": before}).encode())

    def _fresh_partial(self) -> Path:
        partial = self.root / ".partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        return partial

    def _point_to(self, name: str) -> None:
        """Relative, so that the folder may be moved."""
        link = self.root / ".current.part"
        link.unlink(missing_ok=True)
        link.symlink_to(name)
        os.replace(link, self.root / CURRENT)  # noqa: PTH105 - Path.replace says nothing of links


def _is_name(text: str) -> bool:
    return text != CURRENT and _NAME.fullmatch(text) is not None
