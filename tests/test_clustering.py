from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune.clustering import ProcessSamples, unseen_share

groups = st.lists(st.lists(st.integers(1, 10**9), min_size=1, max_size=50), min_size=1, max_size=8)


def drawn(offset: float, processes: int = 20, runs: int = 200, seed: int = 0) -> ProcessSamples:
    random = np.random.default_rng(seed)
    return ProcessSamples(
        list(random.standard_normal((processes, runs)) + offset * random.standard_normal((processes, 1)))
    )


def test_one_process_tells_nothing_of_others() -> None:
    assert ProcessSamples([range(1, 501)]).effective_samples(0.99, 0.95) == 500
    assert ProcessSamples([range(1, 501), []]).effective_samples(0.99, 0.95) == 500


def test_two_processes_that_share_nothing_are_worth_less_than_two_runs() -> None:
    apart = ProcessSamples([[1] * 100 + [2] * 100, [3] * 100 + [4] * 100])
    assert apart.effective_samples(0.5, 0.95) < 2


def test_design_effect_at_the_quantile_by_hand() -> None:
    # 10 of 1000 runs lie over p99. 2 in each of 5 processes: no surplus. All 10 in one: surplus 8, -2, -2, -2, -2,
    # variance 5/4 * 80 / 1000^2 against 0.99 * 0.01 / 1000, an effect of 10.1; t to normal, 4 degrees: (2.13 / 1.64)^2.
    even = [[*range(1, 199), 1000, 1000] for _ in range(5)]
    alone = [[*range(1, 201)] for _ in range(4)] + [[*range(1, 191), *([1000] * 10)]]
    assert ProcessSamples(even).effective_samples(0.99, 0.95) == 1000
    assert ProcessSamples(alone).effective_samples(0.99, 0.95) == pytest.approx(1000 / (10.101 * 1.6798), rel=1e-3)


@pytest.mark.parametrize(("offset", "correlation"), [(0.0, 0.0), (0.5, 0.2), (1.0, 0.5)])
def test_correlation_is_that_of_the_offsets(offset: float, correlation: float) -> None:
    found = [drawn(offset, seed=seed).correlation for seed in range(20)]
    assert np.mean(found) == pytest.approx(correlation, abs=0.05)


def test_the_more_processes_differ_the_less_their_runs_are_worth() -> None:
    for q in (0.5, 0.99):
        worth = [drawn(offset).effective_samples(q, 0.95) for offset in (0.0, 0.25, 1.0)]
        assert worth == sorted(worth, reverse=True)
        assert worth[0] > 1500


def test_more_processes_of_alike_runs_are_worth_more() -> None:
    few, many = drawn(0.5, processes=5, runs=800), drawn(0.5, processes=40, runs=100)
    assert few.effective_samples(0.5, 0.95) < many.effective_samples(0.5, 0.95)


def test_ties_are_no_difference() -> None:
    assert ProcessSamples([[7] * 200 for _ in range(5)]).effective_samples(0.99, 0.95) == 1000
    coarse = np.random.default_rng(3).integers(10, 13, (5, 200))
    assert ProcessSamples(list(coarse)).correlation < 0.02


@given(groups, st.floats(0.01, 0.999), st.floats(0.5, 0.999))
@settings(max_examples=100, deadline=None)
def test_worth_is_positive_and_at_most_what_there_is(processes: list[list[int]], q: float, confidence: float) -> None:
    samples = ProcessSamples(processes)
    worth = samples.effective_samples(q, confidence)
    assert 0 < worth <= len(samples)
    assert math.isfinite(worth)


@given(groups, st.floats(0.01, 0.999), st.integers(2, 1000))
@settings(max_examples=50, deadline=None)
def test_worth_ignores_units_and_order(processes: list[list[int]], q: float, factor: int) -> None:
    changed = [[factor * s for s in reversed(p)] for p in reversed(processes)]
    expected = ProcessSamples(processes).effective_samples(q, 0.95)
    assert ProcessSamples(changed).effective_samples(q, 0.95) == pytest.approx(expected, rel=1e-6)


def test_unseen_share_by_hand() -> None:
    assert unseen_share(1, 0.95) == pytest.approx(0.95)
    assert unseen_share(5, 0.95) == pytest.approx(0.4507, abs=1e-4)
    assert (1 - unseen_share(20, 0.95)) ** 20 == pytest.approx(0.05)
