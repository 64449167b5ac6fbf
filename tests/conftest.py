"""Two processes run the tests side by side (`pytest -n 2`): one has all that measure, the other keeps off their core.

A measurement beside a busy neighbour is INVALID, as it must be. The agent pins to the last cores, so tests that measure
nothing stay on the first one, with what they start.
"""

from __future__ import annotations

import os
import sys
from typing import NoReturn

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from edgeprune.benchmarking.client import AgentClient

MEASURING = (
    "tests/benchmarking/",
    "tests/cli/",
    "tests/e2e/",
    "tests/lab/",
    "tests/steps/test_comparing_and_pacing.py",
    "tests/steps/test_finer_places.py",
    "tests/steps/test_fleet_step.py",
    "tests/steps/test_health.py",
    "tests/steps/test_planning_step.py",
    "tests/steps/test_quick_look.py",
    "tests/steps/test_refusal.py",
    "tests/steps/test_tables_step.py",
)
"""Tests whose figures come from a device, mostly this one. Beside them, a test of another file that takes one fails."""

_ALL_CORES = os.sched_getaffinity(0)


class MeasuringApart(LoadScopeScheduling):
    """All tests that measure in one process, the largest part and so the first; of the others a file at a time."""

    def _split_scope(self, nodeid: str) -> str:
        return "measuring" if _measures(nodeid) else nodeid.partition("::")[0]


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> MeasuringApart:
    """In the place of `--dist`."""
    return MeasuringApart(config, log)


@pytest.fixture(autouse=True)
def _takes_figures_only_where_told(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "PYTEST_XDIST_WORKER" in os.environ and not _measures(request.node.nodeid):
        for takes_figures in ("bench", "pace", "profile"):
            monkeypatch.setattr(AgentClient, takes_figures, _refuse)


def _refuse(*_: object, **__: object) -> NoReturn:
    pytest.fail("a figure is taken beside other tests: name this file in MEASURING of tests/conftest.py")


@pytest.fixture(autouse=True)
def _on_its_cores(request: pytest.FixtureRequest) -> None:
    if "PYTEST_XDIST_WORKER" in os.environ and len(_ALL_CORES) > 1:
        _keep_to(_ALL_CORES if _measures(request.node.nodeid) else {min(_ALL_CORES)})


def _measures(nodeid: str) -> bool:
    return nodeid.startswith(MEASURING)


def _keep_to(cores: set[int]) -> None:
    if os.sched_getaffinity(0) != cores:
        os.sched_setaffinity(0, cores)
        if "torch" in sys.modules:
            # More threads than cores would wait for one another.
            sys.modules["torch"].set_num_threads(len(cores))
