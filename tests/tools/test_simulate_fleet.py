from __future__ import annotations

import math

import pytest
import simulate_fleet

from edgeprune.gating.fleet import device_confidence
from edgeprune.records.fleet import FleetDemand

FLEETS = 4000
ALPHA = 0.05
MOST = ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / FLEETS)
SHARE = FleetDemand(share=0.9, confidence=0.95, device_confidence=device_confidence(0.95, 0.9), latency_limits=1)
EVERY = FleetDemand(share=None, confidence=0.95, device_confidence=0.95, latency_limits=1)


@pytest.mark.parametrize("devices", simulate_fleet.SIZES)
def test_the_share_is_wrong_no_more_often_than_it_says(devices: int) -> None:
    edge = simulate_fleet.simulate_share(SHARE, devices, 0.9, FLEETS, seed=1)
    assert edge.passed <= MOST
    assert edge.failed <= MOST


def test_many_good_devices_pass_and_many_bad_ones_fail() -> None:
    assert simulate_fleet.simulate_share(SHARE, 100, 0.99, FLEETS, seed=1).passed > 0.9
    assert simulate_fleet.simulate_share(SHARE, 100, 0.7, FLEETS, seed=1).failed > 0.9


@pytest.mark.parametrize("devices", [1, 5, 29])
def test_among_many_good_devices_none_is_called_bad_by_chance(devices: int) -> None:
    good, unsplit = simulate_fleet.simulate_every(EVERY, devices, 0, FLEETS, seed=1)
    assert good.failed <= MOST
    assert unsplit == pytest.approx(1 - 0.95**devices, abs=0.03)
    one_bad, _ = simulate_fleet.simulate_every(EVERY, devices, 1, FLEETS, seed=1)
    assert one_bad.passed <= MOST
