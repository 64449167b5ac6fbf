from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

from bench_cost_model import Cell, measure_whole
from cost_model_nets import Net, key_of, make, random_widths
from records_for_tests import make_block
from torch import nn, zeros

from edgeprune.benchmarking.trip import ProfileJob
from edgeprune.graph.groups import find_groups
from edgeprune.records.profiled import Profiled, ProfileRequest
from edgeprune.records.rung import Precision, Rung

MS = 1_000_000


class _Device:
    """Answers with these latencies in turn; a negative one is disturbed, and no round like another."""

    spec = SimpleNamespace(name="here")

    def __init__(self, *latencies_ms: float) -> None:
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


def _cell(count: int) -> Cell:
    net = Net(make=lambda: nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)), input_shape=(1, 8), step=2)
    groups = find_groups(make(net), zeros(net.input_shape))
    configurations = random_widths(groups, net, count, seed=0)
    place = Rung(runtime="onnxruntime", precision=Precision.FLOAT32)
    return Cell(name="small", net=net, place=place, configurations=configurations, uses=())


def test_the_bench_goes_on_where_it_ended(tmp_path: Path) -> None:
    cell, path = _cell(3), tmp_path / "small.json"
    # The second one stays disturbed on all three trips.
    device = _Device(1.0, -2.0, 3.0, -4.0, -8.0)
    rows = measure_whole(device, cell, path, singly=False)
    keys = [key_of(w) for w in cell.configurations]
    assert [len(trip) for trip in device.trips] == [3, 1, 1]
    assert [rows.rows[key].disturbed != "" for key in keys] == [False, True, False]
    compiled = _written(path.with_suffix(""))
    still = _Device(-2.0, -4.0, -8.0)
    measure_whole(still, cell, path, singly=False)
    assert still.trips == [[path.with_suffix("") / keys[1]]] * 3
    assert _written(path.with_suffix("")) == compiled
    rows = measure_whole(_Device(2.0), cell, path, singly=False)
    assert [rows.rows[key].p50_ms for key in keys] == [1.0, 2.0, 3.0]
    # All rows are there: nothing is compiled or measured any more, and the files are gone.
    assert not path.with_suffix("").exists()
    assert measure_whole(_Device(), cell, path, singly=False) == rows
