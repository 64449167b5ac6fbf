"""A target's own Python file: imported, and named where it raises."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from edgeprune.errors import InputError

_PREFIX = "edgeprune_target_"


def load_module(path: Path, *, where: str) -> ModuleType:
    """Import a target's Python file.

    Args:
        path: of the file.
        where: file and key that name it, for messages.

    Raises:
        InputError: it is not there, or what it does when it is imported raises.
    """
    if not path.is_file():
        raise InputError(f"{where}: no such file: {path}")
    # Path and content: a file that was edited is imported again, also by a long-lived Python process.
    identity = hashlib.sha256(str(path).encode() + path.read_bytes()).hexdigest()
    name = f"{_PREFIX}{identity[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise InputError(f"{where}: not a Python file: {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # A user's code may raise anything; it becomes one clear message.
        del sys.modules[name]
        raise InputError(
            f"{where}: {path} cannot be imported: {type(error).__name__}: {error}{last_line_in(error, path.parent)}"
        ) from error
    return module


def imported_files() -> tuple[Path, ...]:
    """The targets' files that this process has imported: another one must import them to know their classes."""
    found = (getattr(module, "__file__", None) for name, module in sorted(sys.modules.items()) if _is_target(name))
    return tuple(Path(file) for file in found if file)


def import_files(paths: tuple[Path, ...]) -> None:
    """Import what `imported_files` named in another process."""
    for path in paths:
        load_module(path, where="a worker")


def _is_target(name: str) -> bool:
    return name.startswith(_PREFIX)


def last_line_in(error: BaseException, folder: Path) -> str:
    """` (model.py line 12)`: the deepest frame of the traceback that lies in the user's own folder."""
    place = ""
    trace = error.__traceback__
    while trace is not None:
        file = Path(trace.tb_frame.f_code.co_filename)
        if file.is_relative_to(folder):
            place = f" ({file.name} line {trace.tb_lineno})"
        trace = trace.tb_next
    return place
