from __future__ import annotations

import math

import numpy as np
import pytest
import simulate_verdicts

from edgeprune.benchmarking.sampling import plan_schedule
from edgeprune.schema.profile import MeasurementPolicy

CAMPAIGNS = 200
ALPHA = 0.05
SCHEDULE = plan_schedule(MeasurementPolicy(), estimate_ns=5e6)
GUARANTEED = [kind for kind in simulate_verdicts.kinds() if kind.guaranteed]
INDEPENDENT = simulate_verdicts.kinds()[0]


@pytest.mark.parametrize("kind", simulate_verdicts.kinds(), ids=lambda kind: kind.name)
@pytest.mark.parametrize("q", [0.5, 0.99])
def test_true_quantiles_are_true(kind: simulate_verdicts.Latency, q: float) -> None:
    drawn = kind.draw(np.random.default_rng(1), (100_000, 2))[:, -1]
    assert np.mean(drawn <= kind.quantile(q)) == pytest.approx(q, abs=4 * math.sqrt(q * (1 - q) / drawn.size))


@pytest.mark.parametrize("kind", GUARANTEED, ids=lambda kind: kind.name)
def test_errors_at_the_edge_stay_within_what_the_policy_allows(kind: simulate_verdicts.Latency) -> None:
    most = ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / CAMPAIGNS)
    for row in simulate_verdicts.simulate(kind, SCHEDULE, CAMPAIGNS, seed=3, budgets=(1.0,)):
        assert row.false_pass(row.clustered) <= most
        assert row.false_fail(row.clustered) <= most


def test_pooling_runs_of_differing_processes_breaks_the_promise() -> None:
    offset = next(kind for kind in GUARANTEED if kind.name == "process offset 0.5 sd")
    for row in simulate_verdicts.simulate(offset, SCHEDULE, CAMPAIGNS, seed=3, budgets=(1.0,)):
        assert row.false_pass(row.pooled) > 3 * ALPHA


def test_a_clear_case_is_decided_within_two_looks() -> None:
    for row in simulate_verdicts.simulate(INDEPENDENT, SCHEDULE, 50, seed=3, budgets=(0.7, 1.5)):
        right = row.clustered.passed if row.budget > 1 else row.clustered.failed
        assert right == 50
        assert row.clustered.samples / 50 <= (1000 if row.q == 0.5 or row.budget < 1 else 1800)
