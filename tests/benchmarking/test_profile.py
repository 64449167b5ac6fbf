from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from devices_for_tests import here_device

from edgeprune.benchmarking.agent.device import profile
from edgeprune.benchmarking.agent.device.reply import AgentError
from edgeprune.benchmarking.agent.package import agent_bytes
from edgeprune.benchmarking.client import AgentClient
from edgeprune.benchmarking.trip import ProfileJob, write_trip
from edgeprune.deployment.connections import connect
from edgeprune.errors import MeasurementError
from edgeprune.protocols import Connection
from edgeprune.records.artifact import Artifact
from edgeprune.records.profiled import ProfileRequest
from edgeprune.records.rung import Precision
from edgeprune.schema.device import DeviceSpec
from edgeprune.store.artifacts import describe_files

REQUEST = ProfileRequest(runtime="onnxruntime", threads=1, rounds=3, round_s=0.002, warmup_max_runs=40)


def _artifact(folder: Path, name: str, size: int) -> ProfileJob:
    """A product with a matrix of this size; 0 for a file that is no model."""
    from onnx import TensorProto, helper, numpy_helper, save

    own = folder / name
    own.mkdir()
    if size:
        weight = numpy_helper.from_array(np.eye(size, dtype=np.float32), "w")
        node = helper.make_node("MatMul", ["x", "w"], ["y"])
        values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, size]) for n in "xy"]
        graph = helper.make_graph([node], "g", values[:1], values[1:], [weight])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
        save(model, own / "model.onnx")
    else:
        (own / "model.onnx").write_bytes(b"no model")
    return ProfileJob(folder=own, artifact=_described(own), input_shape=(1, size or 8))


def _described(folder: Path) -> Artifact:
    return describe_files(
        folder,
        ("model.onnx",),
        runtime="onnxruntime",
        precision=Precision.FLOAT32,
        inputs=(),
        outputs=(),
        file_format="onnx",
    )


@pytest.fixture
def device(tmp_path: Path) -> DeviceSpec:
    (tmp_path / "work").mkdir()
    return here_device(tmp_path)


@pytest.fixture
def connection(device: DeviceSpec) -> Iterator[Connection]:
    opened = connect(device)
    yield opened
    opened.close()


@pytest.fixture
def client(device: DeviceSpec, connection: Connection, tmp_path: Path) -> AgentClient:
    (tmp_path / "agent.pyz").write_bytes(agent_bytes())
    return AgentClient(
        connection,
        python=device.python,
        agent_path=str(tmp_path / "agent.pyz"),
        work_folder=device.work_folder,
        device="here",
    )


def test_every_artifact_has_its_rounds_and_a_refused_one_stops_nobody(client: AgentClient, tmp_path: Path) -> None:
    jobs = [_artifact(tmp_path, name, size) for name, size in (("small", 16), ("none", 0), ("large", 1024))]
    write_trip(tmp_path / "trip.zip", jobs)
    heard: list[int] = []
    small, none, large = client.profile(REQUEST, str(tmp_path / "trip.zip"), 3, timeout_s=60, on_block=heard.append)
    assert "onnxruntime refuses" in none.refused
    assert none.blocks == ()
    assert len(small.blocks) == len(large.blocks) == 3
    assert heard == [1, 2, 3, 4, 5, 6]
    for block in (*small.blocks, *large.blocks):
        assert all(s > 0 for s in block.samples_ns)
        assert sum(block.samples_ns) <= block.wall_ns
        assert block.cpus == (max(os.sched_getaffinity(0)),)
        assert block.probe_before_ns
        assert block.peak_bytes >= block.base_bytes > 0
    # A thousand times the work, and a thousandth of it would do.
    assert max(small.blocks[0].samples_ns[:9]) < 1e9
    assert min(large.blocks[1].samples_ns) > min(small.blocks[1].samples_ns)
    # Nothing stays behind.
    assert list((tmp_path / "work" / "parts").iterdir()) == []


def test_rounds_of_all_artifacts_are_interleaved(client: AgentClient, tmp_path: Path) -> None:
    jobs = [_artifact(tmp_path, name, 16) for name in ("first", "second")]
    write_trip(tmp_path / "trip.zip", jobs)
    first, second = client.profile(REQUEST, str(tmp_path / "trip.zip"), 2, timeout_s=60)
    starts = [
        [b.started_unix_s for b in blocks] for blocks in zip(*[(*p.blocks,) for p in (first, second)], strict=True)
    ]
    # Which one is first is up to chance, and they take turns.
    assert [a < b for a, b in starts] in ([True, False, True], [False, True, False])
    assert max(starts[0]) < min(starts[1]) <= max(starts[1]) < min(starts[2])


def test_a_file_that_is_no_trip(client: AgentClient, tmp_path: Path) -> None:
    (tmp_path / "trip.zip").write_bytes(b"PK")
    with pytest.raises(MeasurementError, match="is no trip") as caught:
        client.profile(REQUEST, str(tmp_path / "trip.zip"), 1, timeout_s=60)
    assert caught.value.facts["kind"] == "io"
    assert list((tmp_path / "work" / "parts").iterdir()) == []


def test_a_lease_that_is_another_s(client: AgentClient, tmp_path: Path) -> None:
    write_trip(tmp_path / "trip.zip", [_artifact(tmp_path, "small", 16)])
    with pytest.raises(MeasurementError, match="lease of this device was lost"):
        client.profile(REQUEST, str(tmp_path / "trip.zip"), 1, timeout_s=60, lease="0-0")


@pytest.mark.parametrize(
    ("replies", "reason"),
    [
        ([], "ended without 'done'"),
        ([{"event": "done", "artifacts": 2}], "expected 1 artifacts, got 2"),
        ([{"event": "done", "artifacts": 1}], "expected 3 rounds of artifact 0, got 0"),
    ],
)
def test_an_agent_that_misbehaves(
    connection: Connection, tmp_path: Path, replies: list[dict[str, Any]], reason: str
) -> None:
    lines = "".join(f"echo '{json.dumps({'schema': 1, **r})}'\n" for r in replies)
    (tmp_path / "python").write_text(f"#!/bin/sh\n{lines}")
    (tmp_path / "python").chmod(0o755)
    client = AgentClient(connection, python=str(tmp_path / "python"), agent_path="agent", work_folder=str(tmp_path))
    with pytest.raises(MeasurementError, match=reason):
        client.profile(REQUEST, "trip.zip", 1, timeout_s=60)


@pytest.mark.parametrize(
    ("typical_ms", "runs"), [(0.001, 1000), (0.5, 30), (4.0, 4), (10.0, 3), (40.0, 2), (300.0, 1), (4000.0, 1)]
)
def test_slow_runs_are_not_repeated_for_the_sake_of_a_median(typical_ms: float, runs: int) -> None:
    assert profile.runs_a_round(15e6, typical_ms * 1e6) == runs


@pytest.mark.parametrize(("run_ms", "rewarmed"), [(0.1, 10), (0.5, 3), (10.0, 2), (300.0, 1)])
def test_a_block_begins_with_as_much_as_fills_the_caches(run_ms: float, rewarmed: int) -> None:
    runs: list[float] = []

    def time_one() -> int:
        runs.append(run_ms)
        return round(run_ms * 1e6)

    block = profile._block(profile.Loaded(time_one, {"runs": 5}), [0])
    assert len(runs) - 5 == rewarmed
    assert len(block["samples_ns"]) == 5


def test_a_trip_is_the_same_file_every_time(tmp_path: Path) -> None:
    jobs = [_artifact(tmp_path, "small", 16)]
    write_trip(tmp_path / "one.zip", jobs)
    os.utime(tmp_path / "small" / "model.onnx", (1, 1))
    write_trip(tmp_path / "two.zip", jobs)
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()


@pytest.mark.parametrize("text", ["[1]", "{}x", '[{"file": "a"}]', '[{"file": "a", "precision": "b", "shape": 3}]'])
def test_jobs_that_make_no_sense(tmp_path: Path, text: str) -> None:
    with zipfile.ZipFile(tmp_path / "trip.zip", "w") as archive:
        archive.writestr("jobs.json", text)
    with pytest.raises(AgentError, match="is no trip"):
        profile.unpack(str(tmp_path / "trip.zip"), str(tmp_path / "out"))


def test_a_trip_writes_nothing_outside_its_folder(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "trip.zip", "w") as archive:
        archive.writestr("jobs.json", "[]")
        archive.writestr("../outside", "x")
    assert profile.unpack(str(tmp_path / "trip.zip"), str(tmp_path / "out")) == []
    assert not (tmp_path / "outside").exists()


def test_batches_hold_no_more_than_they_may(tmp_path: Path) -> None:
    jobs = []
    for number, size in enumerate((10, 10, 5, 30, 1)):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "m.xml").write_bytes(b"")
        (tmp_path / str(number) / "m.bin").write_bytes(bytes(size))
        jobs.append({"file": f"{number}/m.xml", "follows": False})
    found = profile.batches(jobs, str(tmp_path), 20)
    assert [[index for index, _ in batch] for batch in found] == [[0, 1], [2], [3], [4]]
    small = [{"file": "none", "follows": False}] * 100
    assert [len(b) for b in profile.batches(small, str(tmp_path), 1)] == [64, 36]
    # What is timed beside another is held with it.
    beside = [dict(job, follows=number in {2, 3}) for number, job in enumerate(jobs)]
    found = profile.batches(beside, str(tmp_path), 20)
    assert [[index for index, _ in batch] for batch in found] == [[0, 1, 2, 3], [4]]


def test_each_process_loads_in_an_order_of_its_own_and_keeps_together_what_is_compared() -> None:
    batch = list(enumerate({"file": str(n), "follows": n % 3 != 0} for n in range(30)))
    orders = [[index for index, _ in profile.mixed(batch)] for _ in range(3)]
    assert orders[0] != orders[1] != orders[2] != list(range(30))
    for order in orders:
        thirds = [order[n : n + 3] for n in range(0, 30, 3)]
        assert sorted(order) == list(range(30))
        assert all({index // 3 for index in third} == {third[0] // 3} for third in thirds)
