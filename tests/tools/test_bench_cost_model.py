from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from bench_cost_model import Cell, Row, Rows, compile_missing, judgements, measure_whole, path_of, row_of, without_drift
from cost_model_nets import Net, key_of, make, with_ends
from records_for_tests import make_block
from torch import nn, zeros

from edgeprune.benchmarking.trip import ProfileJob
from edgeprune.benchmarking.validity import Watch
from edgeprune.graph.groups import find_groups
from edgeprune.graph.operators import model_operators
from edgeprune.planning.cost import cost_terms
from edgeprune.records.operators import OperatorShape
from edgeprune.records.profiled import Profiled, ProfileRequest, Timing
from edgeprune.records.rung import Precision, Rung

MS = 1_000_000


class _Device:
    """Answers with these latencies in turn; a negative one is disturbed, and no round like another."""

    spec = SimpleNamespace(name="here")

    def __init__(self, *latencies_ms: float) -> None:
        self.watch = Watch()
        self.latencies_ms = list(latencies_ms)
        self.trips: list[list[Path]] = []

    def profile(self, request: ProfileRequest, jobs: Sequence[ProfileJob]) -> tuple[Profiled, ...]:
        self.trips.append([job.folder for job in jobs])
        for job in jobs:
            assert (job.folder / job.artifact.files[0].name).is_file()
        return tuple(Profiled(blocks=_blocks(self.latencies_ms.pop(0))) for _ in jobs)


def _blocks(ms: float) -> tuple[object, ...]:
    if ms < 0:
        return tuple(make_block((round(-ms * n * MS),) * 10, wall_ns=10 * MS, cpu_ns=5 * MS) for n in (1.0, 1.1, 1.2))
    return tuple(make_block((round(ms * MS),) * 10, wall_ns=10 * MS, cpu_ns=10 * MS) for _ in range(3))


def _written(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.glob("*/*")}


def _cell(count: int, ignored: tuple[str, ...] = ()) -> Cell:
    """The two ends, and `count` others."""
    net = Net(
        make=lambda: nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4)),
        input_shape=(1, 8),
        step=2,
    )
    model, example = make(net), zeros(net.input_shape)
    groups = find_groups(model, example, ignored)
    configurations = with_ends(groups, net, count, seed=0)
    place = Rung(runtime="onnxruntime", precision=Precision.FLOAT32)
    uses = model_operators(model, example, groups.groups)
    return Cell(name="small", net=net, place=place, configurations=configurations, uses=uses)


def test_the_bench_goes_on_where_it_ended(tmp_path: Path) -> None:
    cell, path = _cell(1), tmp_path / "small.json"
    # The second one stays disturbed on all three trips.
    device = _Device(1.0, -2.0, 3.0, -4.0, -8.0)
    rows = measure_whole(device, cell, path, singly=False, processes=1)
    keys = [key_of(w) for w in cell.configurations]
    assert [len(trip) for trip in device.trips] == [3, 1, 1]
    assert [rows.rows[key].disturbed != "" for key in keys] == [False, True, False]
    compiled = _written(path.with_suffix(""))
    # All three again: what is measured later is measured at another pace.
    still = _Device(1.0, -2.0, 3.0, -4.0, -8.0)
    measure_whole(still, cell, path, singly=False, processes=1)
    assert [len(trip) for trip in still.trips] == [3, 1, 1]
    assert _written(path.with_suffix("")) == compiled
    rows = measure_whole(_Device(1.5, 3.0, 4.5), cell, path, singly=False, processes=1)
    assert [rows.rows[key].p50_ms for key in keys] == [1.5, 3.0, 4.5]
    # All rows are there: nothing is compiled or measured any more, and the files are gone.
    assert not path.with_suffix("").exists()
    assert measure_whole(_Device(), cell, path, singly=False) == rows


def test_what_is_held_out_is_the_mean_of_processes_and_what_is_fitted_one_of_them(tmp_path: Path) -> None:
    cell, path = _cell(0), tmp_path / "small.json"
    # Of the second configuration one process in four is disturbed, on all three trips; of the first one is slower.
    device = _Device(1.0, 2.0, 1.2, -2.0, -3.0, -4.0, 9.0, 2.2, 1.1, 3.0)
    rows = measure_whole(device, cell, path, singly=False, processes=4)
    first, second = (rows.rows[key_of(w)] for w in cell.configurations)
    assert first.processes_ms[0] == first.first_ms == 1.0
    assert len(first.processes_ms) == 4
    assert len(second.processes_ms) == 3
    assert (second.first_ms, second.disturbed) == (2.0, "")
    assert not path.with_suffix("").exists()


def test_a_device_that_switches_its_pace_between_processes_changes_nothing() -> None:
    first = [Timing(latency_ms=ms, p50_ms=ms, rounds=4) for ms in (1.0, 2.0, 3.0)]
    faster = [replace(t, p50_ms=0.7 * t.p50_ms) for t in first]
    luckier = [faster[0], replace(faster[1], p50_ms=1.386), faster[2]]
    found = without_drift([first, faster, luckier])
    assert found[0] == first
    assert [t.p50_ms for t in found[1]] == pytest.approx([1.0, 2.0, 3.0])
    assert [t.p50_ms for t in found[2]] == pytest.approx([1.0, 1.98, 3.0])


def test_half_of_the_processes_are_too_few() -> None:
    quiet, late = (Timing(latency_ms=ms, p50_ms=ms, rounds=rounds) for ms, rounds in ((1.0, 4), (1.5, 2)))
    assert row_of([quiet, late]) == Row(processes_ms=(1.0,), disturbed="1 of 2 processes undisturbed")
    assert row_of([quiet, late, quiet]).disturbed == ""
    assert row_of([late, late]).processes_ms == (1.5, 1.5)
    assert Row(processes_ms=(1.0, 9.0, 1.2, 1.1)).p50_ms == pytest.approx(1.1)


ARGUMENTS = Namespace(fit=5, predictors=["planner", "pairs"], verbose=False, output=Path("runs"), singly=False)


def _entry_ms(shape: OperatorShape) -> float:
    """A constant that no product of two single cuts tells, and nearly the product of the channels.

    Were it the product, two configurations would take the same, and the last bit of a fit would order them.
    """
    return 0.02 + shape.in_channels * shape.out_channels**1.01 / 1e3


def _measured(cell: Cell) -> Rows:
    """A device that takes what the entries of the pairs add up to, and a constant."""

    def p50_ms(widths: Mapping[str, int]) -> float:
        return 0.1 + sum(ms for _, ms in cost_terms(cell.uses, widths, _entry_ms).by_kind)

    return Rows(rows={key_of(w): Row(processes_ms=(p50_ms(w),)) for w in cell.configurations})


def test_whole_models_can_be_compiled_ahead(tmp_path: Path) -> None:
    cell, path = _cell(0), tmp_path / "small.json"
    compile_missing(cell, path, singly=False)
    made = _written(path.with_suffix(""))
    assert made
    compile_missing(cell, path, singly=False)
    device = _Device(-1.0, 2.0, -2.0, -4.0)
    measure_whole(device, cell, path, singly=False, processes=1)
    assert _written(path.with_suffix("")) == made
    # Once all is measured nothing is compiled any more.
    measure_whole(_Device(1.0, 2.0), cell, path, singly=False, processes=1)
    compile_missing(cell, path, singly=False)
    assert not path.with_suffix("").exists()


def test_what_the_planner_uses_is_judged_beside_what_the_tables_could_tell() -> None:
    cell = _cell(5 + 12)
    few, more, pairs = judgements(cell, _measured(cell), _entry_ms, ARGUMENTS)
    assert [j.name for j in (few, more, pairs)] == ["planner 2", "planner 7", "pairs 5"]
    assert (pairs.worst < 1e-3, pairs.rank, pairs.met) == (True, 1.0, True)
    # Its entries are of one cut at a time, so it is a little off where the device keeps to no product of two cuts.
    assert more.worst > 1e-3
    assert few.met


def test_the_fit_has_one_process_and_what_is_held_out_is_the_mean_of_more() -> None:
    cell = _cell(5 + 12)
    rows = _measured(cell).rows
    fitted = [key_of(w) for w in cell.configurations[: 2 + ARGUMENTS.fit]]

    def rows_of(*, slower: bool) -> Rows:
        # The first process of what is held out is off, and all later ones of what is fitted are.
        made = {}
        for key, row in rows.items():
            off, right = (row.p50_ms * (3.0 if slower else 1.0), row.p50_ms)
            made[key] = Row(processes_ms=(right, off, off) if key in fitted else (off, right, right))
        return Rows(rows=made)

    assert judgements(cell, rows_of(slower=True), _entry_ms, ARGUMENTS) == judgements(
        cell, rows_of(slower=False), _entry_ms, ARGUMENTS
    )


def test_the_planner_needs_no_pairs() -> None:
    cell = _cell(50)
    asked: set[OperatorShape] = set()

    def entry_ms(shape: OperatorShape) -> float:
        asked.add(shape)
        return _entry_ms(shape)

    judgements(cell, _measured(cell), entry_ms, Namespace(**{**vars(ARGUMENTS), "predictors": ["planner"]}))
    needed = cell.shapes(["planner"])
    assert asked <= set(needed)
    assert len(needed) < len(cell.shapes(["pairs"]))


def test_rows_of_other_groups_are_kept_apart() -> None:
    """The same net with one group fewer has other configurations, and other rows."""
    paths = [path_of(_cell(1, ignored), "here", ARGUMENTS) for ignored in ((), ("0",), ())]
    assert paths[0] == paths[2] != paths[1]
