"""Float32 files of the shapes that were compiled last: what INT8, bf16 and fp16 begin with too.

A plan asks for one shape in every precision of a runtime, and to export it again takes a second or two each time.
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from edgeprune.protocols import CompiledFiles

_MOST = 8
"""The full and the narrowest widths in each of three runtimes, and two that are being searched through."""
_MOST_BYTES = 1_000_000_000


class FloatFiles:
    """Keeps what was compiled last, in a folder that goes when this object does."""

    def __init__(self) -> None:
        self._kept: dict[str, CompiledFiles] = {}
        self._made = 0

    def of(self, key: str, make: Callable[[Path], CompiledFiles]) -> CompiledFiles:
        """The files under a key, which nobody may change.

        Args:
            key: equal where the model, the runtime and the input are.
            make: compiles them into an empty folder.

        Errors are those of `make`; nothing is kept then.
        """
        if key not in self._kept:
            self._made += 1
            own = self._folder / str(self._made)
            own.mkdir()
            self._kept[key] = make(own)
        # The one that was asked for last is the last to go.
        self._kept[key] = self._kept.pop(key)
        while len(self._kept) > _MOST or (len(self._kept) > 1 and self._bytes() > _MOST_BYTES):
            shutil.rmtree(self._kept.pop(next(iter(self._kept))).folder)
        return self._kept[key]

    @cached_property
    def _folder(self) -> Path:
        folder = Path(tempfile.mkdtemp(prefix="edgeprune-"))
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        return folder

    def _bytes(self) -> int:
        return sum((kept.folder / name).stat().st_size for kept in self._kept.values() for name in kept.names)


def copied(files: CompiledFiles, folder: Path) -> CompiledFiles:
    """The same files in another folder, which may be their own."""
    if files.folder == folder:
        return files
    for name in files.names:
        shutil.copyfile(files.folder / name, folder / name)
    return replace(files, folder=folder)
