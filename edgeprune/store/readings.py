"""How often the test split was read: a file in the run folder that outlives the builds in it.

A person who sees a figure of the test split, changes something and builds again has chosen by it. Nobody can prevent
that; it can be counted, and told in the model card.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from edgeprune.errors import BuildError, InputError
from edgeprune.files import write_atomically
from edgeprune.records.codec import from_json, to_json
from edgeprune.records.model_card import Reading

READINGS = "test_readings.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    readings: tuple[Reading, ...] = ()
    schema: int = 1


class ReadingLog:
    """What one build writes down of its readings; those of earlier builds are kept.

    Args:
        root: the run folder.
        data: sha256 of the test split.

    Raises:
        InputError: the file is damaged: nobody knows how often the split was read.
    """

    def __init__(self, root: Path, data: str) -> None:
        self._path = root / READINGS
        self._data = data
        self._number: int | None = None
        self._all = self._read()

    @property
    def readings(self) -> tuple[Reading, ...]:
        """Of this test split, in order."""
        return tuple(r for r in self._all if r.data == self._data)

    def note(self, model: str, digest: str) -> None:
        """Write down that the split is about to be read for a model; before it is, so that no kill hides it."""
        found = list(self._all)
        if self._number is None:
            self._number = 1 + len(self.readings)
            found.append(Reading(number=self._number, data=self._data, models=()))
        found[-1] = replace(found[-1], models=(*found[-1].models, (model, digest)))
        self._all = tuple(found)
        write_atomically(self._path, to_json(_File(readings=self._all), indent=1))

    def _read(self) -> tuple[Reading, ...]:
        try:
            return from_json(_File, self._path.read_bytes()).readings
        except FileNotFoundError:
            return ()
        except (OSError, BuildError) as error:
            raise InputError(
                f"{self._path}: damaged; it counts how often the test split was read. Build in another folder "
                "(--output), or take the file away and say so",
                path=str(self._path),
            ) from error
