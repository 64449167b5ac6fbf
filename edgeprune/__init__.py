"""edgeprune: compress a neural network until it meets a latency budget measured on the real device.

The names below are loaded when they are first used, so that `import edgeprune` is quick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from edgeprune.api import (
        BenchPolicy,
        bench,
        bench_fleet,
        bench_paced,
        build,
        calibrate,
        compare,
        gate,
        load_profile,
        load_target,
        plan,
        provision,
        sensitivity,
    )
    from edgeprune.data.splits import DataSplits, Split

_API = "edgeprune.api"
_HOMES = {
    "DataSplits": "edgeprune.data.splits",
    "Split": "edgeprune.data.splits",
    "BenchPolicy": _API,
    "bench": _API,
    "bench_fleet": _API,
    "bench_paced": _API,
    "build": _API,
    "calibrate": _API,
    "compare": _API,
    "gate": _API,
    "load_profile": _API,
    "load_target": _API,
    "plan": _API,
    "provision": _API,
    "sensitivity": _API,
}

__all__ = [
    "BenchPolicy",
    "DataSplits",
    "Split",
    "__version__",
    "bench",
    "bench_fleet",
    "bench_paced",
    "build",
    "calibrate",
    "compare",
    "gate",
    "load_profile",
    "load_target",
    "plan",
    "provision",
    "sensitivity",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401
    if name not in _HOMES:
        raise AttributeError(f"module 'edgeprune' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
