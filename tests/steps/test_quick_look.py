"""How long an untrained shape is looked at, and what of."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from compressors import compressor
from records_for_tests import make_block

from edgeprune.records.measurement import Block
from edgeprune.records.rung import Precision, PruningKind, Rung
from edgeprune.steps import shapes
from edgeprune.steps.shapes import ShapeBench, quick_look

RUNG = Rung(runtime="onnxruntime", precision=Precision.FLOAT32)
MS = 1_000_000


def block(latencies_ms: list[float], *, disturbed: bool = False) -> Block:
    wall_ns = int(sum(latencies_ms) * MS)
    cpu_ns = wall_ns // 2 if disturbed else wall_ns
    return make_block(tuple(round(x * MS) for x in latencies_ms), wall_ns=wall_ns, cpu_ns=cpu_ns)


class _Device:
    """Answers with blocks that are told beforehand, and keeps how many runs it was asked for."""

    def __init__(self, *blocks: Block) -> None:
        self.blocks, self.runs = list(blocks), list[int]()

    def leased(self, _tell: object) -> nullcontext[None]:
        return nullcontext()

    def block(self, _rung: Rung, _artifact: str, _samples: str, runs: int, _estimate: float | None = None) -> Block:
        self.runs.append(runs)
        return self.blocks.pop(0)


def look(device: _Device, *, tail: bool) -> shapes.Look:
    return quick_look(SimpleNamespace(device=device, note=print), RUNG, "a", "s", tail=tail)


@pytest.mark.parametrize(
    ("median_ms", "tail", "runs"),
    [
        (1.0, False, [20, 300]),
        (40.0, False, [20, 60]),
        (1.0, True, [20, 3000]),
        (100.0, True, [20, 299]),
        (0.01, True, [20, 5000]),
        # Two seconds are a look already.
        (100.0, False, [20]),
    ],
)
def test_a_look_at_the_tail_takes_enough_runs_to_bound_a_p99(*, median_ms: float, tail: bool, runs: list[int]) -> None:
    device = _Device(block([median_ms] * 20), block([median_ms] * 50))
    look(device, tail=tail)
    assert device.runs == runs


def test_of_disturbed_looks_the_one_with_the_least_of_what_is_compared_counts(monkeypatch: Any) -> None:
    monkeypatch.setattr(shapes, "_BACK_OFF_S", 0.0)
    fast_with_a_tail, slow_without = [1.0] * 90 + [9.0] * 10, [2.0] * 100
    for tail, wanted in ((False, fast_with_a_tail), (True, slow_without)):
        told = [block(b, disturbed=True) for b in (slow_without, fast_with_a_tail, slow_without, slow_without)]
        device = _Device(block([1.0] * 20), *told, block(slow_without, disturbed=True))
        found = look(device, tail=tail)
        assert found.block.samples_ns == block(wanted).samples_ns
        assert "had its core 50%" in found.disturbed


@pytest.mark.parametrize(
    ("profile", "looks"),
    [
        ({"threads": [1, 2], "hardware.cores": 2}, True),
        ({"threads": [1, 2], "hardware.cores": 2, "budget.p99_ms": None}, False),
        ({}, False),
    ],
    ids=["p99 and two counts", "no p99", "one count"],
)
def test_the_tail_is_looked_at_only_where_threads_are_chosen_by_it(
    tmp_path: Path, *, profile: dict[str, object], looks: bool
) -> None:
    with compressor(tmp_path, profile=profile) as made:
        bench = ShapeBench(made.bench)
        enough = made.bench.device.facts.cores > 1
        assert bench.shows_tail(RUNG) == (looks and enough)
        cut = Rung(runtime="onnxruntime", precision=Precision.FLOAT32, pruning=PruningKind.STRUCTURED)
        assert not bench.shows_tail(cut)
