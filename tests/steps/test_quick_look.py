"""How long an untrained shape is looked at, and what of."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from compressors import compressor
from records_for_tests import make_block

from edgeprune.benchmarking.validity import Watch
from edgeprune.errors import MeasurementError
from edgeprune.planning.feasibility import ShapeFigures, decide, needs_closer_look, over_budget
from edgeprune.records.artifact import Artifact
from edgeprune.records.measurement import Block
from edgeprune.records.rung import Limits, Precision, PruningKind, Rung
from edgeprune.statistics import smallest_sample_count
from edgeprune.steps import looks, shapes
from edgeprune.steps.compiling import CompileJob, compile_artifact
from edgeprune.steps.looks import Look, quick_look
from edgeprune.steps.session import BlockLength
from edgeprune.steps.shapes import ShapeBench, settled
from edgeprune.units import format_ms

RUNG = Rung(runtime="onnxruntime", precision=Precision.FLOAT32)
CUT = replace(RUNG, precision=Precision.INT8)
MS = 1_000_000
COMPARES_TAILS = {"budget.p99_ms": None, "budget.p99_speedup": 1.5}


def block(latencies_ms: list[float], *, disturbed: bool = False) -> Block:
    wall_ns = int(sum(latencies_ms) * MS)
    cpu_ns = wall_ns // 2 if disturbed else wall_ns
    return make_block(tuple(round(x * MS) for x in latencies_ms), wall_ns=wall_ns, cpu_ns=cpu_ns)


class _Device:
    """Answers with blocks that are told beforehand, and keeps what it was asked for."""

    def __init__(self, *blocks: Block) -> None:
        self.blocks, self.asked = list(blocks), list[tuple[int | BlockLength, float | None]]()
        self.watch = Watch()

    def leased(self, _tell: object) -> nullcontext[None]:
        return nullcontext()

    def block(
        self, _rung: Rung, _artifact: str, _samples: str, runs: int | BlockLength, estimate_ns: float | None = None
    ) -> Block:
        self.asked.append((runs, estimate_ns))
        return self.blocks.pop(0)


def look(device: _Device, *, tail: bool = False) -> Look:
    return quick_look(SimpleNamespace(device=device, note=print), RUNG, "a", "s", tail=tail)


def test_a_look_is_one_process_and_one_at_the_tail_takes_enough_runs_to_bound_a_p99() -> None:
    device = _Device(block([2.0] * 50))
    look(device)
    [(length, estimate_ns)] = device.asked
    assert isinstance(length, BlockLength)
    assert estimate_ns is None
    device = _Device(block([2.0] * 20), block([2.0] * 50))
    look(device, tail=True)
    first, (length, estimate_ns) = device.asked
    assert first == (20, None)
    assert isinstance(length, BlockLength)
    assert length.runs >= smallest_sample_count(0.99, 0.95)
    assert estimate_ns == 2.0 * MS


def test_the_deadline_of_another_look_is_by_what_the_first_showed() -> None:
    device = _Device(block([2.0] * 50, disturbed=True), block([2.0] * 50))
    look(device)
    assert [estimate for _, estimate in device.asked] == [None, 2.0 * MS]


def test_a_core_that_is_slow_all_through_is_a_disturbance_beside_the_looks_before(monkeypatch: Any) -> None:
    monkeypatch.setattr(looks, "_BACK_OFF_S", 0.0)
    quiet = replace(block([1.0] * 100), probe_before_ns=1_240_000, probe_after_ns=1_240_000)
    slow = replace(block([1.5] * 100), probe_before_ns=1_850_000, probe_after_ns=1_850_000)
    device = _Device(quiet, slow, quiet)
    for _ in range(2):
        assert look(device).block == quiet
    assert len(device.asked) == 3
    # Without one before, nobody can tell.
    assert look(_Device(slow)).block == slow


def test_a_core_that_stays_slow_is_what_the_device_has_now(monkeypatch: Any) -> None:
    """A board that is warm after a minute must not have every later look taken five times, and none of them kept."""
    monkeypatch.setattr(looks, "_BACK_OFF_S", 0.0)
    cool = replace(block([1.0] * 100), probe_before_ns=1_000_000, probe_after_ns=1_000_000)
    warm = replace(block([1.4] * 100), probe_before_ns=1_400_000, probe_after_ns=1_400_000)
    device = _Device(cool, *[warm] * 6)
    look(device)
    assert look(device).disturbed == ""
    assert len(device.asked) == 1 + 5
    assert look(device).disturbed == ""
    assert len(device.asked) == 1 + 5 + 1


def test_how_long_a_block_may_take() -> None:
    quick, slow = 0.001, 5.0
    assert BlockLength(100).longest_s(slow) == 500.0
    length = BlockLength(60, fill_s=0.5, max_runs=4000, max_s=3.0)
    assert length.longest_s(quick) == 0.5
    assert length.longest_s(0.04) == 60 * 0.04
    assert length.longest_s(0.1) == 3.0
    # 20 of them in any case.
    assert length.longest_s(slow) == 100.0


def test_of_disturbed_looks_the_one_with_the_least_of_what_is_compared_counts(monkeypatch: Any) -> None:
    monkeypatch.setattr(looks, "_BACK_OFF_S", 0.0)
    fast_with_a_tail, slow_without = [1.0] * 90 + [9.0] * 10, [2.0] * 100
    for tail, wanted in ((False, fast_with_a_tail), (True, slow_without)):
        told = [block(b, disturbed=True) for b in (slow_without, fast_with_a_tail, slow_without, slow_without)]
        first = [block([1.0] * 20)] if tail else []
        found = look(_Device(*first, *told, block(slow_without, disturbed=True)), tail=tail)
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


def test_a_shape_has_one_answer_a_session_until_it_is_looked_at_longer(tmp_path: Path, monkeypatch: Any) -> None:
    """The device is never left in peace: what is measured then is not kept for another build, but for this one."""
    told = [
        block([1.0] * 98 + [9.0] * 2, disturbed=True),
        block([1.2] * 98 + [4.0] * 2, disturbed=True),
        block([1.1] * 98 + [5.0] * 2),
        block([0.7] * 100),
    ]
    asked: list[bool] = []

    def look(*_: Any, tail: bool) -> Look:
        asked.append(tail)
        taken = told[len(asked) - 1]
        return Look(taken, "a neighbour" if taken.cpu_ns < taken.wall_ns else "")

    monkeypatch.setattr(shapes, "quick_look", look)
    with compressor(tmp_path) as made:
        bench = ShapeBench(made.bench)
        first = bench.measure(RUNG)
        assert (first.p50_ms, first.p99_ms, first.long_looks, first.disturbed) == (1.0, 9.0, 0, "a neighbour")
        assert ShapeBench(made.bench).measure(RUNG) is first
        # The p99 of a long look replaces that of a short one, and the lower of two long ones counts.
        longer = bench.look_longer(first)
        assert (longer.p50_ms, longer.p99_ms, longer.long_looks, longer.disturbed) == (1.0, 4.0, 1, "a neighbour")
        again = settled(bench, longer, Limits(p99_ms=3.0))
        assert (again.p50_ms, again.p99_ms, again.long_looks, again.disturbed) == (1.0, 4.0, 2, "")
        assert bench.measure(RUNG) is again
        assert asked == [False, True, True]
        # It is refused after two looks, and looked at no more.
        assert settled(bench, again, Limits(p99_ms=3.0)) is again
        assert over_budget(again, Limits(p99_ms=3.0)) is not None


@pytest.mark.parametrize(
    ("p50_ms", "had", "closer"),
    [(0.93, 0, False), (0.95, 0, True), (1.0, 0, True), (1.02, 0, True), (1.04, 0, False), (1.0, 1, False)],
)
def test_a_p50_near_its_limit_is_looked_at_by_several_processes_once(p50_ms: float, had: int, *, closer: bool) -> None:
    figures = ShapeFigures(
        rung=RUNG, p50_ms=p50_ms, p99_ms=2.0, artifact_bytes=1, peak_bytes=1, closer=bool(had)
    )  # fmt: skip
    assert needs_closer_look(figures, Limits(p50_ms=1.0)) == closer
    assert not needs_closer_look(figures, Limits(p99_ms=1.0))
    # It would be refused all the same.
    assert not needs_closer_look(figures, Limits(p50_ms=1.0, artifact_bytes=0))


@pytest.mark.parametrize("slower", [1.0, 1.4], ids=["the pace of the plan", "a slower pace"])
def test_a_closer_look_beside_the_baseline_says_what_the_speedup_will_be(
    tmp_path: Path, monkeypatch: Any, slower: float
) -> None:
    """Five pairs, one of them a chance; dense took 4 ms when the limits were set, and the host may be slow."""
    told, asked = {RUNG: [4.0, 4.1, 4.0, 4.2, 4.0], CUT: [2.0, 2.05, 3.0, 2.1, 2.0]}, list[Rung]()

    def look(_bench: Any, rung: Rung, *_: Any, **__: Any) -> Look:
        asked.append(rung)
        return Look(block([slower * told[rung].pop(0)] * 100), "")

    with compressor(tmp_path, profile=COMPARES_TAILS) as made:
        bench = ShapeBench(made.bench)
        monkeypatch.setattr(shapes, "quick_look", lambda *_, **__: Look(block([4.0] * 100), ""))
        dense = bench.measure(RUNG)
        monkeypatch.setattr(shapes, "quick_look", lambda *_, **__: Look(block([1.9] * 100), ""))
        first = bench.measure(CUT)
        monkeypatch.setattr(looks, "quick_look", look)
        bench.refer_to(dense)
        closer = settled(bench, first, Limits(p50_ms=1.95))
        assert (closer.p50_ms, closer.processes, closer.disturbed) == (pytest.approx(2.0), 5, "")
        # Its tail is as long as it was.
        assert closer.p99_ms / closer.p50_ms == pytest.approx(first.p99_ms / first.p50_ms)
        assert replace(closer, p50_ms=first.p50_ms, p99_ms=first.p99_ms, processes=1, closer=False) == first
        assert asked == [CUT, RUNG, RUNG, CUT, CUT, RUNG, RUNG, CUT, CUT, RUNG]
        # The answer from now on, in this session and in the next.
        assert settled(bench, bench.measure(CUT), Limits(p50_ms=1.95)) is closer
        made.bench.seen.figures.clear()
        assert settled(bench, bench.measure(CUT), Limits(p50_ms=1.95)) == closer
        assert decide(closer, Limits(p50_ms=2.0), 0.0).reason == (
            "p50 2.00 ms on the device by 5 processes, within the budget"
        )
        # A look at its tail leaves p50 alone, and is at another pace.
        monkeypatch.setattr(shapes, "quick_look", lambda *_, **__: Look(block([1.0] * 98 + [3.0] * 2), ""))
        longer = bench.look_longer(closer)
        assert (longer.p50_ms, longer.p99_ms) == (closer.p50_ms, pytest.approx(6.0))


@pytest.mark.parametrize(("neighbours", "disturbed"), [(2, ""), (3, "a neighbour")])
def test_a_closer_look_of_an_absolute_limit_is_a_median_and_disturbed_where_most_of_its_looks_were(
    tmp_path: Path, monkeypatch: Any, neighbours: int, disturbed: str
) -> None:
    told = [Look(block([3.0] * 100), "a neighbour")] * neighbours + [Look(block([1.0] * 100))] * (5 - neighbours)
    with compressor(tmp_path) as made:
        bench = ShapeBench(made.bench)
        monkeypatch.setattr(shapes, "quick_look", lambda *_, **__: Look(block([1.0] * 100), ""))
        first = bench.measure(RUNG)
        monkeypatch.setattr(looks, "quick_look", lambda *_, **__: told.pop())
        closer = bench.look_closer(first)
    assert (closer.p50_ms, closer.disturbed) == (1.0 if neighbours < 3 else 3.0, disturbed)
    assert told == []


def test_the_baseline_takes_what_it_took(tmp_path: Path, monkeypatch: Any) -> None:
    with compressor(tmp_path) as made:
        bench = ShapeBench(made.bench)
        monkeypatch.setattr(shapes, "quick_look", lambda *_, **__: Look(block([1.0] * 100), ""))
        dense = bench.measure(RUNG)
        bench.refer_to(dense)
        monkeypatch.setattr(looks, "quick_look", None)
        assert settled(bench, dense, Limits(p50_ms=1.0)) == replace(dense, closer=True)


def _takes(monkeypatch: Any, told: Mapping[Rung, float], *, short: float, long: float) -> None:
    """All looks take so many ms, and their tails as many times as long, in short and in long looks."""

    def look(_bench: Any, rung: Rung, *_: Any, tail: bool = False) -> Look:
        return Look(block([told[rung]] * 98 + [(long if tail else short) * told[rung]] * 2), "")

    monkeypatch.setattr(shapes, "quick_look", look)
    monkeypatch.setattr(looks, "quick_look", look)


def test_what_a_closer_look_is_held_to_is_looked_at_anew_with_it(tmp_path: Path, monkeypatch: Any) -> None:
    """The next build in the same folder finds another baseline: neither the closer look nor the long one is kept."""
    _takes(monkeypatch, {RUNG: 4.4, CUT: 2.0}, short=1.5, long=2.0)
    for dense_ms in (4.4, 4.0):
        with compressor(tmp_path, profile=COMPARES_TAILS) as made:
            bench = ShapeBench(made.bench)
            bench.refer_to(replace(bench.measure(RUNG), p50_ms=dense_ms))
            longer = bench.look_longer(bench.look_closer(bench.measure(CUT)))
        assert longer.p50_ms == pytest.approx(dense_ms * 2.0 / 4.4)
        assert longer.p99_ms == pytest.approx(2 * longer.p50_ms)


def test_a_tail_that_is_limited_in_milliseconds_is_told_as_it_was_measured(tmp_path: Path, monkeypatch: Any) -> None:
    _takes(monkeypatch, {RUNG: 2.0, CUT: 1.0}, short=2.0, long=3.0)
    with compressor(tmp_path, profile={"budget.p99_ms": 900.0}) as made:
        bench = ShapeBench(made.bench)
        # The host was half as fast when the limits were set.
        bench.refer_to(replace(bench.measure(RUNG), p50_ms=3.0))
        closer = bench.look_closer(bench.measure(CUT))
        assert (closer.p50_ms, closer.p99_ms) == (pytest.approx(1.5), 2.0)
        assert bench.look_longer(closer).p99_ms == 3.0


def test_what_was_measured_since_counts_in_the_place_of_a_stale_look(tmp_path: Path, monkeypatch: Any) -> None:
    """A share of the budget was aimed at, and its closer look is known when all of the budget is asked for."""
    monkeypatch.setattr(shapes, "quick_look", lambda *_, **__: Look(block([0.91] * 100), ""))
    monkeypatch.setattr(looks, "quick_look", lambda *_, **__: Look(block([0.92] * 100), ""))
    with compressor(tmp_path) as made:
        bench = ShapeBench(made.bench)
        stale = bench.measure(CUT)
        settled(bench, stale, Limits(p50_ms=0.9))
        assert settled(bench, stale, Limits(p50_ms=1.0)).p50_ms == 0.92


@pytest.mark.parametrize("p99_ms", [None, 900.0], ids=["p50 alone", "p99 too"])
def test_a_first_look_that_was_disturbed_is_forgotten_where_p50_alone_is_limited(
    tmp_path: Path, monkeypatch: Any, p99_ms: float | None
) -> None:
    monkeypatch.setattr(shapes, "quick_look", lambda *_, **__: Look(block([1.2] * 100), "a neighbour"))
    monkeypatch.setattr(looks, "quick_look", lambda *_, **__: Look(block([1.0] * 100), ""))
    with compressor(tmp_path, profile={"budget.p99_ms": p99_ms}) as made:
        bench = ShapeBench(made.bench)
        assert bench.look_closer(bench.measure(RUNG)).disturbed == ("" if p99_ms is None else "a neighbour")


def test_a_process_that_dies_leaves_the_first_look(tmp_path: Path, monkeypatch: Any) -> None:
    def died(*_: Any, **__: Any) -> Look:
        raise MeasurementError("the process was killed", kind="killed")

    monkeypatch.setattr(looks, "quick_look", died)
    with compressor(tmp_path) as made:
        bench = ShapeBench(made.bench)
        first = bench.measure(RUNG)
        found = bench.look_closer(first)
        assert found == replace(first, closer=True)
        limits = Limits(p50_ms=2.0 * first.p50_ms)
        assert decide(found, limits, 0.0).reason == f"p50 {format_ms(first.p50_ms)} on the device, within the budget"


def test_a_shape_is_compiled_once_for_all_placements(tmp_path: Path, monkeypatch: Any) -> None:
    compiled: list[str] = []

    def counted(job: CompileJob, rung: Rung, folder: Path) -> Artifact:
        compiled.append(rung.name)
        return compile_artifact(job, rung, folder)

    monkeypatch.setattr(shapes, "compile_artifact", counted)
    monkeypatch.setattr(shapes, "quick_look", lambda *_, **__: Look(block([1.0] * 100), ""))
    with compressor(tmp_path) as made:
        bench = ShapeBench(made.bench)
        first = bench.measure(RUNG)
        elsewhere = bench.measure(replace(RUNG, threads=2, cpus=(0, 1)))
        bench.measure(replace(RUNG, precision=Precision.INT8))
        bench.look_longer(first)
        assert elsewhere == replace(first, rung=elsewhere.rung)
        assert compiled == ["onnxruntime-float32-t1", "onnxruntime-int8-t1"]
        # What lies there is of an earlier build, or damaged.
        for path in made.bench.run.root.glob("shapes/onnxruntime-float32-*/shape*/*.onnx"):
            path.write_bytes(b"old")
        bench.measure(replace(RUNG, threads=3, cpus=(0, 1, 2)))
    assert compiled == ["onnxruntime-float32-t1", "onnxruntime-int8-t1", "onnxruntime-float32-t3-cpu0-2"]


def test_what_a_short_look_shows_of_p99_is_no_reason_to_look_longer_where_p50_is_over() -> None:
    figures = ShapeFigures(rung=RUNG, p50_ms=4.0, p99_ms=9.0, artifact_bytes=1, peak_bytes=1)
    nothing_new = SimpleNamespace(latest=lambda f: f)
    for limits in (Limits(p99_ms=3.0), Limits(p50_ms=3.0, p99_ms=5.0), Limits(p50_ms=3.0), Limits(p99_ms=9.0)):
        assert settled(nothing_new, figures, limits) is figures
    # Widths are searched for by a p99 that is known better, unless it is far under its limit.
    assert settled(nothing_new, figures, Limits(p99_ms=18.1), near=0.5) is figures
    longer = SimpleNamespace(latest=lambda f: f, look_longer=lambda f: replace(f, long_looks=1))
    assert settled(longer, figures, Limits(p99_ms=17.9), near=0.5).long_looks == 1
