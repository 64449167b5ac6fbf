"""Two processes run the tests side by side (`pytest -n 2`): one has all that measure, the other keeps off their core.

A measurement beside a busy neighbour is INVALID, as it must be. The agent pins to the last cores, so tests that measure
nothing stay on the first one, with what they start.
"""

from __future__ import annotations

import os
import sys
from pathlib import PurePosixPath

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

MEASURING = frozenset({"benchmarking", "cli", "e2e", "lab", "steps"})
"""Folders of tests whose figures come from a device, mostly this one."""

_ALL_CORES = os.sched_getaffinity(0)


class MeasuringApart(LoadScopeScheduling):
    """All tests that measure in one process, the largest part and so the first; of the others a file at a time."""

    def _split_scope(self, nodeid: str) -> str:
        return "measuring" if _measures(nodeid) else nodeid.partition("::")[0]


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> MeasuringApart:
    """In the place of `--dist`."""
    return MeasuringApart(config, log)


@pytest.fixture(autouse=True)
def _on_its_cores(request: pytest.FixtureRequest) -> None:
    if "PYTEST_XDIST_WORKER" in os.environ and len(_ALL_CORES) > 1:
        _keep_to(_ALL_CORES if _measures(request.node.nodeid) else {min(_ALL_CORES)})


def _measures(nodeid: str) -> bool:
    return not MEASURING.isdisjoint(PurePosixPath(nodeid.partition("::")[0]).parts)


def _keep_to(cores: set[int]) -> None:
    if os.sched_getaffinity(0) != cores:
        os.sched_setaffinity(0, cores)
        if "torch" in sys.modules:
            # More threads than cores would wait for one another.
            sys.modules["torch"].set_num_threads(len(cores))
