"""edgeprune: compress a neural network until it meets a latency budget measured on the real device.

The names below are loaded when they are first used, so that `import edgeprune` is quick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from edgeprune.api import bench, build, gate, load_profile, load_target, plan
    from edgeprune.data.splits import DataSplits, Split

_HOMES = {
    "DataSplits": "edgeprune.data.splits",
    "Split": "edgeprune.data.splits",
    "bench": "edgeprune.api",
    "build": "edgeprune.api",
    "gate": "edgeprune.api",
    "plan": "edgeprune.api",
    "load_profile": "edgeprune.api",
    "load_target": "edgeprune.api",
}

__all__ = ["DataSplits", "Split", "__version__", "bench", "build", "gate", "load_profile", "load_target", "plan"]


def __getattr__(name: str) -> Any:  # noqa: ANN401
    if name not in _HOMES:
        raise AttributeError(f"module 'edgeprune' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
