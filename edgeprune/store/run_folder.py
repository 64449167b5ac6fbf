"""A folder of finished steps. A step that was finished with the same inputs is not repeated."""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from edgeprune.errors import BuildError, InputError
from edgeprune.files import write_atomically
from edgeprune.records.codec import from_json, to_json

Record = TypeVar("Record")

_STEP = "step.json"
_RECORD = "record.json"


def digest(*parts: object) -> str:
    """sha256 of the parts as canonical JSON: the key of a step.

    Args:
        parts: strings, numbers, None, and tuples, lists and dicts of them.
    """
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class StepOutcome:
    """How a step ended, for the event log and the report.

    Attributes:
        seconds: that it took by itself, without the steps that were made within it.
    """

    name: str
    seconds: float
    cached: bool


class RunFolder:
    """One build's folder.

    A step is a sub-folder that appears by one rename, with its files, `record.json` and `step.json` (its key).
    What a killed process left half done lies below `.partial` and is thrown away by the next one.

    Args:
        root: made when missing.
        clock: seconds, monotonic.
    """

    def __init__(self, root: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.root = root
        self._clock = clock
        self._partial = root / ".partial"
        self._inner_s = 0.0
        self.outcomes: list[StepOutcome] = []
        root.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for one process; a dead one's lock ends with it.

        Raises:
            InputError: another process is working in this folder.
        """
        with (self.root / ".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise InputError(f"{self.root}: another edgeprune is building in this folder") from error
            shutil.rmtree(self._partial, ignore_errors=True)
            yield

    def step(self, name: str, key: str, kind: type[Record], make: Callable[[Path], Record]) -> Record:
        """Return the record of a step, making it when it is missing or its inputs changed.

        Args:
            name: path of the step's folder below the root.
            key: digest of all that the outcome depends on.
            kind: class of the record.
            make: called with an empty folder to write files into; returns the record.
        """
        folder = self.root / name
        started = self._clock()
        kept = self._kept(folder, key, kind)
        if kept is not None:
            self.outcomes.append(StepOutcome(name, self._seconds_of(folder), cached=True))
            return kept
        partial = self._fresh_partial(name)
        outer_s, self._inner_s = self._inner_s, 0.0
        try:
            record = make(partial)
        finally:
            whole_s = self._clock() - started
            seconds, self._inner_s = whole_s - self._inner_s, outer_s + whole_s
        write_atomically(partial / _RECORD, to_json(record))
        write_atomically(partial / _STEP, json.dumps({"schema": 1, "key": key, "seconds": seconds}).encode())
        self._publish(partial, folder)
        self.outcomes.append(StepOutcome(name, seconds, cached=False))
        return record

    def forget(self, name: str) -> None:
        """Drop a finished step, so that it is made again the next time."""
        shutil.rmtree(self.root / name, ignore_errors=True)

    def is_done(self, name: str, key: str) -> bool:
        """Whether the step was finished with these inputs."""
        return self._key_of(self.root / name) == key

    def path(self, name: str) -> Path:
        """The folder of a finished step."""
        return self.root / name

    def _kept(self, folder: Path, key: str, kind: type[Record]) -> Record | None:
        """The record of a finished step; None where it is not there, or damaged: then it is made again."""
        if self._key_of(folder) != key:
            return None
        try:
            return from_json(kind, (folder / _RECORD).read_bytes())
        except (OSError, BuildError):
            return None

    def _fresh_partial(self, name: str) -> Path:
        partial = self._partial / name.replace("/", "--")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        return partial

    def _publish(self, partial: Path, folder: Path) -> None:
        folder.parent.mkdir(parents=True, exist_ok=True)
        if folder.exists():
            stale = self._partial / f"stale-{partial.name}"
            shutil.rmtree(stale, ignore_errors=True)
            folder.rename(stale)
        partial.rename(folder)

    @staticmethod
    def _read_step(folder: Path) -> dict[str, Any]:
        try:
            content: dict[str, Any] = json.loads((folder / _STEP).read_bytes())
        except (OSError, ValueError):
            return {}
        return content

    def _key_of(self, folder: Path) -> str | None:
        key = self._read_step(folder).get("key")
        return key if isinstance(key, str) else None

    def _seconds_of(self, folder: Path) -> float:
        return float(self._read_step(folder).get("seconds", 0.0))


def step_name(stage: str, subject: str) -> str:
    """Where a step lies below the run folder: what belongs to one subject lies together."""
    return stage if not subject else f"{_ROOMS.get(stage, 'candidates')}/{subject}/{stage}"


_ROOMS = {"shape": "shapes", "staircase": "shapes", "compress": "compressed"}
