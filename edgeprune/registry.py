"""A folder is the registry: a file's name is its entry's name, loaded when asked for."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from typing import Generic, TypeVar, cast

from edgeprune.errors import InputError

Entry = TypeVar("Entry")


class Registry(Generic[Entry]):
    """The entries of one folder, each a module that ends with `<ATTRIBUTE>: Final = ...`.

    Args:
        package: dotted name of the folder, such as `edgeprune.runtimes`.
        attribute: the name that each module defines, such as `RUNTIME`.
        kind: what an entry is called in messages, such as `runtime`.
    """

    def __init__(self, package: str, attribute: str, kind: str) -> None:
        self.package = package
        self.attribute = attribute
        self.kind = kind

    def names(self) -> tuple[str, ...]:
        """All entries, sorted, without importing any of them."""
        paths = importlib.import_module(self.package).__path__
        return tuple(sorted(m.name for m in pkgutil.iter_modules(paths) if not m.name.startswith("_")))

    def get(self, name: str) -> Entry:
        """Import one entry.

        Raises:
            InputError: there is no such entry; the message has the known names and the closest.
        """
        if name not in self.names():
            raise InputError(f"unknown {self.kind} {name!r}{suggest(name, self.names())}", name=name)
        module = importlib.import_module(f"{self.package}.{name}")
        return cast("Entry", getattr(module, self.attribute))


def suggest(name: str, known: tuple[str, ...]) -> str:
    """`; did you mean 'tflite'? known: onnxruntime, openvino, tflite`, or what part of it applies."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"{hint} known: {', '.join(known)}" if hint else f"; known: {', '.join(known)}"
