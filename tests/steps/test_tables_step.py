from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from records_for_tests import make_artifact, make_block

from edgeprune.benchmarking.trip import ProfileJob
from edgeprune.benchmarking.validity import Watch
from edgeprune.errors import BuildError, MeasurementError
from edgeprune.profiling.widths import group_shapes, group_staircase
from edgeprune.records.operators import ChannelPart, OperatorShape, OperatorUse
from edgeprune.records.profiled import Profiled, ProfileRequest, Timing
from edgeprune.records.rung import Precision, PruningKind, Rung
from edgeprune.steps.profiles import time_all, time_beside, timing
from edgeprune.steps.session import DeviceSession, open_host_session
from edgeprune.steps.tables import OperatorTables

PLACE = Rung(runtime="onnxruntime", precision=Precision.FLOAT32)
REQUEST = ProfileRequest(runtime="onnxruntime", threads=1, rounds=1)
MS = 1_000_000


def _block(ms: float, *, disturbed: bool = False) -> object:
    return make_block((round(ms * MS),) * 100, wall_ns=100 * MS, cpu_ns=(50 if disturbed else 100) * MS)


def _linear(out_channels: int, in_channels: int = 16, rows: int = 4) -> OperatorShape:
    return OperatorShape(kind="linear", in_channels=in_channels, out_channels=out_channels, rows=rows)


@pytest.fixture(scope="module")
def session(own_home: Path) -> Iterator[DeviceSession]:
    with open_host_session() as opened:
        yield opened


def test_the_latency_is_that_of_runs_that_were_left_alone() -> None:
    # A tenth of each round's runs were left alone; a neighbour slowed the others.
    blocks = [make_block((round(ms * MS),) * 10 + (2 * MS,) * 90) for ms in (1.3, 1.1, 1.9, 1.2, 1.0, 1.4, 1.5, 1.6)]
    found = timing(blocks)
    assert (found.latency_ms, found.p50_ms, found.rounds, found.disturbed) == (1.2, 2.0, 8, "")


def test_disturbed_rounds_that_agree_are_believed() -> None:
    found = timing([_block(ms, disturbed=True) for ms in (9.0, 1.0, 1.005, 7.0, 1.01)])
    assert (found.latency_ms, found.p50_ms, found.rounds, found.disturbed) == (1.01, 1.0, 0, "")


def test_disturbed_rounds_that_differ_are_told() -> None:
    blocks = [_block(1.2), *(_block(ms, disturbed=True) for ms in (9.0, 1.1, 7.0, 1.0))]
    found = timing(blocks)
    assert (found.latency_ms, found.p50_ms, found.rounds) == (1.2, 1.0, 1)
    assert "had its core 50%" in found.disturbed


def test_three_undisturbed_rounds_are_enough_among_many() -> None:
    found = timing([_block(1.0)] * 3 + [_block(1.5, disturbed=True)] * 24)
    assert (found.latency_ms, found.rounds, found.disturbed) == (1.0, 3, "")


def test_two_rounds_agree_by_chance() -> None:
    assert timing([_block(1.0)] * 2).disturbed == "too few rounds"


class _Device:
    """A session whose trips are told beforehand: a list of (name, blocks or refusal) for each."""

    spec = SimpleNamespace(name="here")

    def __init__(self, trips: Sequence[Sequence[Profiled]]) -> None:
        self.watch = Watch()
        self.trips = list(trips)
        self.jobs: list[int] = []
        self.sent: list[Sequence[ProfileJob]] = []

    def profile(self, request: ProfileRequest, jobs: Sequence[ProfileJob]) -> tuple[Profiled, ...]:
        self.jobs.append(len(jobs))
        self.sent.append(jobs)
        return tuple(self.trips.pop(0))


def test_what_was_disturbed_goes_on_another_trip_and_what_was_refused_does_not() -> None:
    quiet = Profiled(blocks=(_block(1.0),) * 3)
    disturbed = Profiled(blocks=tuple(_block(ms, disturbed=True) for ms in (2.0, 2.5, 3.0)))
    device = _Device([[quiet, disturbed, Profiled(blocks=(), refused="no such operator")], [disturbed], [quiet]])
    job = ProfileJob(folder=Path(), artifact=make_artifact(), input_shape=(1, 3))
    first, second, third = time_all(device, REQUEST, [job] * 3)
    assert device.jobs == [3, 1, 1]
    assert (first.latency_ms, first.disturbed) == (1.0, "")
    assert (second.latency_ms, second.rounds, second.disturbed) == (1.0, 3, "")
    assert isinstance(third, MeasurementError)
    assert "device here: no such operator" in str(third)


def _paced(ms: float, probe_ms: float) -> Profiled:
    probe_ns = round(probe_ms * MS)
    return Profiled(blocks=(replace(_block(ms), probe_before_ns=probe_ns, probe_after_ns=probe_ns),) * 3)


def test_what_was_measured_on_a_slow_core_goes_on_another_trip_however_well_it_agrees() -> None:
    fast, slow = _paced(1.0, 1.0), _paced(1.33, 1.33)
    device = _Device([[slow, fast], [fast]])
    job = ProfileJob(folder=Path(), artifact=make_artifact(), input_shape=(1, 3))
    found = time_all(device, REQUEST, [job] * 2)
    assert device.jobs == [2, 1]
    assert [(t.latency_ms, t.rounds, t.disturbed) for t in found] == [(1.0, 3, "")] * 2
    # The session remembers how fast the core was.
    device.trips = [[slow], [slow], [fast]]
    assert [t.latency_ms for t in time_all(device, REQUEST, [job])] == [1.0]


def test_a_core_that_stays_slow_is_told_once_and_then_taken_for_what_the_device_has() -> None:
    slow = _paced(1.33, 1.33)
    device = _Device([[_paced(1.0, 1.0)], [slow], [slow], [slow], [slow]])
    job = ProfileJob(folder=Path(), artifact=make_artifact(), input_shape=(1, 3))
    time_all(device, REQUEST, [job])
    (told,) = time_all(device, REQUEST, [job])
    assert (told.latency_ms, told.rounds) == (1.33, 0)
    assert "1.33x its best (limit 1.15x)" in told.disturbed
    (taken,) = time_all(device, REQUEST, [job])
    assert (taken.latency_ms, taken.rounds, taken.disturbed) == (1.33, 3, "")
    assert device.jobs == [1] * 5


def _taking(ms: float) -> Profiled:
    return Profiled(blocks=(_block(ms),) * 3)


DISTURBED = Profiled(blocks=(_block(0.9, disturbed=True),))


def _named(name: str) -> ProfileJob:
    return ProfileJob(folder=Path(name), artifact=make_artifact(), input_shape=(1, 3))


def _surplus_us(found: tuple[Timing, Timing] | MeasurementError) -> float:
    assert not isinstance(found, MeasurementError)
    return round(1000 * (found[0].latency_ms - found[1].latency_ms), 6)


def test_what_an_artifact_takes_more_than_the_one_beside_it_is_of_the_same_process() -> None:
    """At three paces of the core, which the medians of processes would mix; of the fastest."""
    pairs = [(_named("first"), _named("base")), (_named("second"), _named("base"))]
    device = _Device([[_taking(pace * ms) for ms in (0.100, 0.103, 0.106)] for pace in (1.02, 1.0, 1.1)])
    found = time_beside(device, REQUEST, pairs)
    assert [_surplus_us(f) for f in found] == [3.0, 6.0]
    # Their base stands before them, once.
    assert device.jobs == [3, 3, 3]
    assert [(job.folder.name, job.follows) for job in device.sent[0]] == [
        ("base", False),
        ("first", True),
        ("second", True),
    ]


def test_a_base_stands_again_before_every_eighth() -> None:
    pairs = [(_named(str(n)), _named("base" if n < 9 else "other")) for n in range(10)]
    device = _Device([[_taking(0.3)] * 13] * 3)
    assert len(time_beside(device, REQUEST, pairs)) == 10
    assert [n for n, job in enumerate(device.sent[0]) if not job.follows] == [0, 9, 11]


def test_an_artifact_that_lies_badly_in_memory_in_one_process_does_not_count_there() -> None:
    pairs = [(_named("first"), _named("base"))]
    well, badly = [_taking(0.300), _taking(0.310)], [_taking(0.300), _taking(0.350)]
    assert [_surplus_us(f) for f in time_beside(_Device([badly, well, well]), REQUEST, pairs)] == [10.0]
    # Nor does its base, from which it would seem to take less than nothing.
    badly = [_taking(0.350), _taking(0.310)]
    device = _Device([badly, badly, well, well])
    assert [_surplus_us(f) for f in time_beside(device, REQUEST, pairs)] == [10.0]
    # One alone would not have been enough.
    assert len(device.jobs) == 4
    # Of two that are left it is what lies between.
    nearly = [_taking(0.300), _taking(0.312)]
    assert [_surplus_us(f) for f in time_beside(_Device([badly, nearly, well]), REQUEST, pairs)] == [11.0]
    # A surplus of less shows beside the others' difference.
    less = [_taking(0.300), _taking(0.320)]
    assert [_surplus_us(f) for f in time_beside(_Device([less, nearly, well]), REQUEST, pairs)] == [11.0]
    # Where no two agree, that is told, so that it is not kept.
    unlike = [[_taking(0.300), _taking(ms)] for ms in (0.300, 0.314, 0.330, 0.345, 0.360)]
    device = _Device(unlike)
    watch = device.watch
    (found,) = time_beside(device, REQUEST, pairs)
    assert not isinstance(found, MeasurementError)
    assert (len(device.jobs), {timing.disturbed for timing in found}) == (5, {"its processes do not agree"})
    # That says nothing of the core, whose pace is remembered.
    assert device.watch is watch
    # So is that too few were left alone, where that was it.
    disturbed = [DISTURBED, _taking(0.310)]
    (found,) = time_beside(_Device([well, *[disturbed] * 4]), REQUEST, pairs)
    assert not isinstance(found, MeasurementError)
    assert all("had its core 50%" in timing.disturbed for timing in found)
    # Where one of both lies badly in each, those count that agree.
    other, third = [_taking(0.300), _taking(0.442)], [_taking(0.300), _taking(0.438)]
    assert [_surplus_us(f) for f in time_beside(_Device([badly, third, other]), REQUEST, pairs)] == [140.0]


def test_what_takes_long_is_timed_in_one_process_and_what_is_refused_is_told() -> None:
    refused = Profiled(blocks=(), refused="no such operator")
    pairs = [(_named("short"), _named("base")), (_named("long"), _named("base")), (_named("none"), _named("base"))]
    first = [_taking(0.3), _taking(0.4), _taking(2.0), refused]
    device = _Device([first, [_taking(0.3), _taking(0.4)], [_taking(0.3), _taking(0.4)]])
    short, long, none = time_beside(device, REQUEST, pairs)
    assert [_surplus_us(f) for f in (short, long)] == [100.0, 1700.0]
    assert isinstance(none, MeasurementError)
    assert device.jobs == [4, 2, 2]
    # Without its base an operator cannot be priced.
    device = _Device([[refused, _taking(0.4)]])
    (none,) = time_beside(device, REQUEST, pairs[:1])
    assert isinstance(none, MeasurementError)


@pytest.mark.parametrize("without", [0, 1])
def test_a_process_that_has_no_memory_left_does_not_count(without: int) -> None:
    quiet, refused = [_taking(0.3), _taking(0.4)], Profiled(blocks=(), refused="out of memory")
    less = [refused if n == without else p for n, p in enumerate(quiet)]
    found = time_beside(_Device([quiet, less, quiet]), REQUEST, [(_named("first"), _named("base"))])
    assert [_surplus_us(f) for f in found] == [100.0]


@pytest.mark.parametrize("which", [0, 1])
def test_a_process_where_one_of_both_was_disturbed_does_not_count(which: int) -> None:
    disturbed = [DISTURBED if n == which else _taking(0.2 + 0.1 * n) for n in range(2)]
    quiet = [[_taking(0.30), _taking(0.31)], [_taking(0.30), _taking(0.314)]]
    pairs = [(_named("first"), _named("base"))]
    # Two that are quiet are enough, and five trips are all that is tried.
    for trips in ([disturbed, *quiet], [disturbed] * 3 + quiet):
        device = _Device(trips)
        (found,) = time_beside(device, REQUEST, pairs)
        assert (_surplus_us(found), len(device.jobs)) == (12.0, len(trips))
        assert not any(timing.disturbed for timing in found)
    device = _Device([disturbed] * 6)
    (found,) = time_beside(device, REQUEST, pairs)
    assert (device.jobs, [bool(t.disturbed) for t in found]) == ([2] * 5, [which == 1, which == 0])


def test_large_artifacts_go_on_trips_of_their_own() -> None:
    quiet = Profiled(blocks=(_block(1.0),) * 3)
    job = ProfileJob(folder=Path(), artifact=make_artifact(size_bytes=150_000_000), input_shape=(1, 3))
    device = _Device([[quiet], [quiet]])
    assert len(time_all(device, REQUEST, [job] * 2)) == 2
    assert device.jobs == [1, 1]
    assert time_all(device, REQUEST, []) == ()


def test_a_second_model_that_shares_operators_costs_nothing(session: DeviceSession, tmp_path: Path) -> None:
    told: list[str] = []
    tables = OperatorTables(session, told.append, tmp_path)
    shapes = [_linear(256), _linear(2048, 512, 16)]
    assert tables.ensure([*shapes, shapes[0]], PLACE) == 2
    assert told[0] == "onnxruntime-float32-t1: measuring 2 operators"
    small, large = (tables.latency_ms(s, PLACE) for s in shapes)
    # A thousand times the work.
    assert 0.0 <= small < large
    alone_ms = [tables.entry(s, PLACE).alone_ms for s in shapes]
    assert 0.0 < min(alone_ms) == tables.least_ms(PLACE)
    assert tables.least_ms(replace(PLACE, threads=2)) is None
    told.clear()
    assert tables.ensure(shapes, PLACE) == 0
    # What was disturbed is not kept, and there may be such on a busy machine.
    kept = [s for s in shapes if not tables.entry(s, PLACE).disturbed]
    again = OperatorTables(session, told.append, tmp_path)
    pruned = Rung(runtime="onnxruntime", precision=Precision.FLOAT32, pruning=PruningKind.STRUCTURED, pruning_ratio=0.5)
    assert again.ensure(kept, pruned) == 0
    assert [again.latency_ms(s, pruned) for s in kept] == [tables.latency_ms(s, PLACE) for s in kept]
    # Weights of 16 bits are run by float32's kernels.
    halved = replace(PLACE, precision=Precision.FLOAT32_W16)
    assert again.ensure(kept, halved) == 0
    assert [again.entry(s, halved) for s in kept] == [tables.entry(s, PLACE) for s in kept]
    assert again.least_ms(halved) == again.least_ms(PLACE)
    assert told == []


def test_a_refused_operator_is_named_and_the_others_are_priced(session: DeviceSession, tmp_path: Path) -> None:
    tables = OperatorTables(session, folder=tmp_path)
    square = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "extent": (4, 4)}
    good, bad = (OperatorShape(kind="conv", in_channels=4, out_channels=4, kernel=(k, k), **square) for k in (1, 7))
    assert tables.ensure([good, bad], PLACE) == 1
    assert tables.latency_ms(good, PLACE) >= 0.0
    with pytest.raises(BuildError, match=r"onnxruntime-float32-t1 cannot run conv7x7s1-4x4-e4-p0: "):
        tables.latency_ms(bad, PLACE)
    # It is not tried again.
    assert tables.ensure([good, bad], PLACE) == 0


def test_a_staircase_of_a_group(session: DeviceSession, tmp_path: Path) -> None:
    part = (ChannelPart(group="up", width=16),)
    uses = [
        OperatorUse(layer="up", shape=_linear(16, 8), out_parts=part),
        OperatorUse(layer="down", shape=_linear(8, 16), in_parts=part),
    ]
    tables = OperatorTables(session, folder=tmp_path)
    assert tables.ensure(group_shapes(uses, "up", (8, 15, 16)), PLACE) == 5
    found = group_staircase(uses, "up", (8, 15, 16), lambda s: tables.latency_ms(s, PLACE), context=PLACE.name)
    assert [width for width, _ in found.points] == [8, 15, 16]
    assert all(np.isfinite(ms) and ms >= 0.0 for _, ms in found.points)
    assert found.operator == "up onnxruntime-float32-t1"
