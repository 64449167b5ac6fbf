"""The probe's trips to a device that is made up: what is sent, what counts, what is taken again, and what is kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from records_for_tests import make_block, make_facts

from edgeprune.benchmarking.trip import ProfileJob
from edgeprune.errors import MeasurementError
from edgeprune.profiling.sparsity import MicroKind
from edgeprune.records.artifact import Artifact
from edgeprune.records.profiled import Profiled, ProfileRequest
from edgeprune.records.rung import Precision, Rung
from edgeprune.records.sparsity import GainStatus
from edgeprune.steps import probing
from edgeprune.steps.compiling import CompileJob
from edgeprune.steps.probing import ProbeJob, kept_probe, run_probe
from edgeprune.store.artifacts import describe_files

ROUNDS = 5
QUICK_NS = 2_000_000
SLOW_NS = 400_000_000


class Device:
    """Runs files with zeros twice as fast as dense ones.

    Args:
        run_ns: of a dense file.
        disturbed: whether the round of that number, counted over all trips, is.
    """

    spec = type("Spec", (), {"name": "cam1"})
    facts = replace(make_facts(), runtimes=(("onnxruntime", "1.31.1"),))

    def __init__(self, run_ns: int = QUICK_NS, disturbed: Callable[[int], bool] = lambda _: False) -> None:
        self.run_ns = run_ns
        self.disturbed = disturbed
        self.trips: list[list[str]] = []
        self.placed: set[tuple[int, tuple[int, ...]]] = set()
        self.refused = ""

    def profile(
        self,
        request: ProfileRequest,
        jobs: Sequence[ProfileJob],
        on_block: Callable[[int], None],
        tell: Callable[[str], None],
    ) -> tuple[Profiled, ...]:
        tell("nobody is before us")
        self.placed.add((request.threads, request.cpus))
        self.trips.append([job.folder.name for job in jobs])
        for number in range(request.rounds * len(jobs)):
            on_block(number + 1)
        return tuple(self._profiled(job, request.rounds) for job in jobs)

    def _profiled(self, job: ProfileJob, rounds: int) -> Profiled:
        run_ns = self.run_ns if job.folder.name == "dense" else self.run_ns // 2
        first = (len(self.trips) - 1) * rounds
        blocks = [
            make_block((run_ns,) * 10, involuntary_switches=1, cpu_ns=5 * run_ns)
            if self.disturbed(first + number)
            else make_block((run_ns,) * 10)
            for number in range(rounds)
        ]
        return Profiled(blocks=() if self.refused else tuple(blocks), refused=self.refused)


def job_on(device: Device, **changes: Any) -> ProbeJob:
    job = ProbeJob(
        session=device,  # type: ignore[arg-type]
        rung=Rung(runtime="onnxruntime", precision=Precision.FLOAT32),
        kind=MicroKind(kind="linear", width=64),
        tell=lambda _: None,
    )
    return replace(job, **changes)


def small_file(job: CompileJob, rung: Rung, into: Path) -> Artifact:
    """In the place of a compiled model, which this device would not look at."""
    (into / "model.onnx").write_bytes(b"model")
    return describe_files(
        into, ("model.onnx",), runtime=rung.runtime, precision=rung.precision, inputs=(), outputs=(), file_format="onnx"
    )


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEPRUNE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(probing, "compile_artifact", small_file)


def folder(tmp_path: Path, name: str) -> Path:
    path = tmp_path / name
    path.mkdir()
    return path


def test_a_planner_makes_two_trips_and_blocks_that_nobody_claims_go_on_one(tmp_path: Path) -> None:
    device = Device()
    probe = run_probe(job_on(device), folder(tmp_path, "p"))
    assert device.trips == [
        ["dense", "unstructured-95", "block4x1-95", "nm2of4-50", "dense"],
        ["dense", "unstructured-50", "unstructured-70", "unstructured-80", "unstructured-90", "dense"],
    ]
    assert len(probe.gains) == 7
    assert {(g.status, g.ratio) for g in probe.gains} == {(GainStatus.GAIN, 2.0)}
    assert probe.disturbed == ""


def test_files_are_timed_on_the_cores_that_the_probe_is_named_by(tmp_path: Path) -> None:
    device = Device()
    rung = Rung(runtime="onnxruntime", precision=Precision.FLOAT32, threads=2, cpus=(4, 5))
    job = job_on(device, rung=rung)
    probe = run_probe(job, folder(tmp_path, "p"))
    assert device.placed == {(2, (4, 5))}
    assert (probe.threads, probe.cpus) == (2, (4, 5))
    assert job.name == "onnxruntime-float32-t2-cpu4-5-linear-w64"
    assert job.key != job_on(device).key


def test_exhaustive_has_every_share_of_every_pattern(tmp_path: Path) -> None:
    device = Device()
    probe = run_probe(job_on(device, exhaustive=True), folder(tmp_path, "p"))
    assert [len(trip) for trip in device.trips] == [13]
    assert {g.pattern: [x.share for x in probe.of(g.pattern)] for g in probe.gains} == {
        "unstructured": [0.5, 0.7, 0.8, 0.9, 0.95],
        "block4x1": [0.5, 0.7, 0.8, 0.9, 0.95],
        "2:4": [0.5],
    }


@pytest.mark.parametrize(
    ("run_ns", "disturbed", "trips", "told"),
    [
        (QUICK_NS, lambda n: n < 2, 1, ""),
        (QUICK_NS, lambda n: n < 4, 2, ""),
        (QUICK_NS, lambda _: True, 2, "had its core 50%"),
        # A trip took 50 runs of 0.4 s each for dense files alone: what disturbed it is told, and it stands.
        (SLOW_NS, lambda _: True, 1, "had its core 50%"),
    ],
)
def test_disturbed_rounds_are_left_out_while_three_are_quiet(
    run_ns: int, disturbed: Callable[[int], bool], trips: int, told: str, tmp_path: Path
) -> None:
    device = Device(run_ns, disturbed)
    probe = run_probe(job_on(device, exhaustive=True), folder(tmp_path, "p"))
    assert len(device.trips) == trips
    assert told in probe.disturbed
    assert bool(probe.disturbed) is bool(told)
    assert all(g.ratio == 2.0 for g in probe.gains)


def test_a_quiet_probe_is_kept_and_a_disturbed_one_is_not(tmp_path: Path) -> None:
    device = Device(disturbed=lambda _: True)
    job = job_on(device, patterns=("2:4",))
    kept_probe(job, folder(tmp_path, "1"))
    device.disturbed = lambda _: False
    quiet = kept_probe(job, folder(tmp_path, "2"))
    assert len(device.trips) == 3
    assert kept_probe(job, folder(tmp_path, "3")) == quiet
    assert len(device.trips) == 3
    # Other patterns are another question.
    kept_probe(job_on(device, patterns=("4:8",)), folder(tmp_path, "4"))
    assert len(device.trips) == 4


def test_what_the_device_refuses_is_told(tmp_path: Path) -> None:
    device = Device()
    device.refused = "onnxruntime refuses dense/model.onnx"
    with pytest.raises(MeasurementError, match="device cam1: onnxruntime refuses") as caught:
        run_probe(job_on(device), folder(tmp_path, "p"))
    assert caught.value.about_artifact
