"""Two processes run the tests side by side (`pytest -n 2`): one has all that measure, the other keeps off their core.

A measurement beside a busy neighbour is INVALID, as it must be. The agent pins to the last cores, so tests that measure
nothing stay on the first one, with what they start.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

MEASURING = frozenset({"benchmarking", "cli", "e2e", "lab", "steps"})
"""Folders of tests whose figures come from a device, mostly this one."""

_ALL_CORES = os.sched_getaffinity(0)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of one group run in one process, one after the other."""
    for item in items:
        if _measures(item):
            item.add_marker(pytest.mark.xdist_group("measuring"))


@pytest.fixture(autouse=True)
def _on_its_cores(request: pytest.FixtureRequest) -> None:
    if "PYTEST_XDIST_WORKER" in os.environ and len(_ALL_CORES) > 1:
        _keep_to(_ALL_CORES if _measures(request.node) else {min(_ALL_CORES)})


def _measures(item: pytest.Item) -> bool:
    return item.path.relative_to(Path(__file__).parent).parts[0] in MEASURING


def _keep_to(cores: set[int]) -> None:
    if os.sched_getaffinity(0) != cores:
        os.sched_setaffinity(0, cores)
        if "torch" in sys.modules:
            # More threads than cores would wait for one another.
            sys.modules["torch"].set_num_threads(len(cores))
