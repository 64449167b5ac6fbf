"""The Python API: what the commands do, with the same records that they print."""

from __future__ import annotations

from edgeprune.api.benching import bench, bench_fleet, bench_paced, calibrate, compare
from edgeprune.api.building import build, explain, plan
from edgeprune.api.devices import provision
from edgeprune.api.judging import gate
from edgeprune.api.policy import BenchPolicy
from edgeprune.api.sensing import sensitivity
from edgeprune.steps.inputs import load_profile, load_target

__all__ = [
    "BenchPolicy",
    "bench",
    "bench_fleet",
    "bench_paced",
    "build",
    "calibrate",
    "compare",
    "explain",
    "gate",
    "load_profile",
    "load_target",
    "plan",
    "provision",
    "sensitivity",
]
