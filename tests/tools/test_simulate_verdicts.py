from __future__ import annotations

import math

import numpy as np
import pytest
import simulate_verdicts

from edgeprune.benchmarking.sampling import plan_schedule
from edgeprune.schema.profile import MeasurementPolicy

CAMPAIGNS = 1000
ALPHA = 0.05
SCHEDULE = plan_schedule(MeasurementPolicy(), estimate_ns=5e6)
INDEPENDENT = [kind for kind in simulate_verdicts.kinds() if kind.independent]


@pytest.mark.parametrize("kind", simulate_verdicts.kinds(), ids=lambda kind: kind.name)
@pytest.mark.parametrize("q", [0.5, 0.99])
def test_true_quantiles_are_true(kind: simulate_verdicts.Latency, q: float) -> None:
    drawn = kind.draw(np.random.default_rng(1), (2000, 100, 1))
    assert np.mean(drawn <= kind.quantile(q)) == pytest.approx(q, abs=4 * math.sqrt(q * (1 - q) / drawn.size))


@pytest.mark.parametrize("kind", INDEPENDENT, ids=lambda kind: kind.name)
@pytest.mark.parametrize("q", [0.5, 0.99])
def test_errors_at_the_edge_stay_within_what_the_policy_allows(kind: simulate_verdicts.Latency, q: float) -> None:
    rates = simulate_verdicts.simulate(kind, q, 1.0, SCHEDULE, CAMPAIGNS, seed=3)
    most = ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / CAMPAIGNS)
    assert rates.false_pass <= most
    assert rates.false_fail <= most
    assert rates.mean_samples > 2000


def test_a_clear_case_is_decided_at_the_first_look() -> None:
    fast = simulate_verdicts.simulate(INDEPENDENT[0], 0.99, 1.5, SCHEDULE, 200, seed=3)
    slow = simulate_verdicts.simulate(INDEPENDENT[0], 0.99, 0.7, SCHEDULE, 200, seed=3)
    assert (fast.passed, fast.mean_samples) == (1.0, 600)
    assert (slow.failed, slow.mean_samples) == (1.0, 600)
