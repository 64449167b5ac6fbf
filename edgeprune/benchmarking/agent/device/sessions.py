"""Finds the runtimes' session files by name: a file `<runtime>_session.py` beside this one is a runtime.

Such a file has `LIBRARIES`, the (module, distribution) pairs that can run it, the preferred one first; where a
distribution's own metadata do not say all that it needs, `REQUIREMENTS` of it beyond them;
`import_library()`, which imports one of them; and the class `Session(artifact, precision, threads)` with
`prepare(sample)`, `run(native)` and `results(native)`, of which only `run` is timed.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys
from typing import Any, List, Tuple

from .reply import AgentError

_SUFFIX = "_session"


def names() -> List[str]:
    """All runtimes that this agent knows, sorted; nothing is imported."""
    package = importlib.import_module(__package__ or "")
    found = (m.name for m in pkgutil.iter_modules(package.__path__))
    return sorted(n[: -len(_SUFFIX)] for n in found if n.endswith(_SUFFIX))


def module(name: str) -> Any:
    """The session file of a runtime; the runtime itself is not imported."""
    return importlib.import_module("." + name + _SUFFIX, __package__)


def distributions(name: str) -> List[Tuple[str, List[str]]]:
    """What package indexes call a runtime's libraries, the preferred one first, each with what it needs besides."""
    found = module(name)
    beyond = getattr(found, "REQUIREMENTS", {})
    return [(distribution, list(beyond.get(distribution, ()))) for _, distribution in found.LIBRARIES]


def import_library(name: str) -> None:
    """Import the runtime.

    Raises:
        AgentError: not_installed, with the import's own words.
    """
    # OpenVINO and ONNX Runtime would send usage data, and write ids into the home folder, from the timed process.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        module(name).import_library()
    except ImportError as error:
        raise AgentError("not_installed", "%s cannot be imported: %s" % (name, error)) from error


def load(name: str, artifact: str, precision: str, threads: int) -> Any:
    """Open an artifact.

    Raises:
        AgentError: bad_artifact, where the runtime refuses it; memory.
    """
    if not os.path.isfile(artifact):
        raise AgentError("bad_artifact", "no such artifact: %s" % artifact)
    try:
        return module(name).Session(artifact, precision, threads)
    except AgentError:
        raise
    except MemoryError as error:
        raise AgentError("memory", "out of memory while loading %s" % artifact) from error
    except Exception as error:
        raise AgentError("bad_artifact", "%s refuses %s: %s" % (name, artifact, error)) from error
