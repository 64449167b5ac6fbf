"""Plans under a memory limit, on this machine: the activations of a net over large images outweigh its weights."""

from __future__ import annotations

from pathlib import Path

import pytest
from targets_for_tests import make_target, until_quiet

import edgeprune
from edgeprune.cli.render import results
from edgeprune.records.rung import PlannedRung
from edgeprune.units import mb_from_bytes

SIDE = 192

CODE = f'''
import numpy as np
import torch
from torch import nn

from edgeprune import DataSplits, Split


class WideNet(nn.Module):
    """Tensors of 4.7 and 2.4 MB at the second convolution, and few weights."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 3, padding=1)
        self.conv2 = nn.Conv2d(32, 16, 1)
        self.conv3 = nn.Conv2d(16, 8, 1)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        x = torch.relu(self.conv3(torch.relu(self.conv2(torch.relu(self.conv1(x))))))
        return self.head(x.mean(dim=(2, 3)))


def build_model():
    return WideNet()


def load_data(seed):
    return DataSplits(train=_split(24, 1), validation=_split(16, 2), test=_split(16, 3), class_names=tuple("abcd"))


def _split(count, seed):
    labels = np.arange(count) % 4
    images = np.random.default_rng(seed).normal(0.0, 0.3, (count, 1, {SIDE}, {SIDE})).astype(np.float32)
    images += labels[:, None, None, None]
    return Split(images, labels)
'''


def planned(folder: Path, memory_mb: float) -> edgeprune.Plan:
    made = make_target(
        folder,
        target={"pruning.ignored": ["conv3"], "pruning.ratios": [0.5]},
        profile={"budget.memory_mb": memory_mb, "budget.memory_of": "model"},
        code=CODE,
    )
    return until_quiet(lambda: edgeprune.plan(made.folder, output=folder))


def peak_mb(rung: PlannedRung) -> float:
    peak = rung.memory_bytes("model")
    assert peak is not None
    return mb_from_bytes(peak)


@pytest.mark.slow
def test_widths_are_chosen_to_fit_a_memory_limit_before_anything_is_trained(tmp_path: Path) -> None:
    # First a limit that nothing meets: it is told what could be met.
    none = planned(tmp_path, 0.5)
    assert none.planned == ()
    (narrow,) = [r for r in none.rungs if r.widths]
    assert narrow.reason.startswith("even with the narrowest widths (no group may lose more than 50%): peak memory of")
    last = results.plan(none, "text").splitlines()[-1]
    assert last.startswith("no plan fits the budget (p50 500 ms")
    least = results.format_mb(narrow.memory_bytes("model"))
    assert f"a peak memory of the model of {least} (by {narrow.rung.name}) could be met" in last
    assert peak_mb(narrow) < peak_mb(none.dense)
    # Then one in between: some widths meet it, and full ones do not.
    limit_mb = (peak_mb(narrow) + peak_mb(none.dense)) / 2
    plan = planned(tmp_path, limit_mb)
    chosen = plan.planned[0]
    assert plan.dense.rung not in [r.rung for r in plan.planned]
    assert peak_mb(chosen) <= limit_mb
    assert 0 < sum(w.before - w.after for w in chosen.widths) < 16 + 8
    # What was predicted is told beside what the agent measured.
    assert chosen.memory is not None
    # One answer a shape, disturbed device or not: what the trip measured is what is planned.
    assert chosen.memory.measured_bytes == chosen.memory_bytes("model")
    assert chosen.memory.activation_bytes == pytest.approx(chosen.memory.measured_activation_bytes, rel=0.01)
    assert all(trip.memory is not None for trip in chosen.trips)
    assert any(chosen.memory.summary in note for note in plan.notes)
    assert chosen.memory.summary in " ".join(results.plan(plan, "text").split())
