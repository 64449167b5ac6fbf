"""`bench` on several devices: a real sshd with an entry for each, whose work is a sleep."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from sleepers import Sleepers

from edgeprune import api
from edgeprune.benchmarking.validity import Watch
from edgeprune.cli.commands import bench, build
from edgeprune.deployment.inventory import save_device
from edgeprune.errors import InputError
from edgeprune.events import Event, Noted, NullReporter, Reporter, StageFinished, StageProgress, StageStarted
from edgeprune.records.codec import from_json
from edgeprune.records.fleet import FleetResult
from edgeprune.records.verdict import Verdict
from edgeprune.schema.device import DeviceSpec
from edgeprune.steps import fleet
from edgeprune.steps.fleet_devices import choose_devices
from edgeprune.units import NS_PER_S

Run = Callable[..., Result]
POLICY = api.BenchPolicy(processes=3, runs=300)


@pytest.fixture(scope="module")
def lab() -> Iterator[Sleepers]:
    with Sleepers() as started:
        yield started


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEPRUNE_HOME", str(tmp_path / "home"))
    # A process that sleeps does not have its core; what is tested here is not whether that is noticed.
    monkeypatch.setattr(Watch, "disturbance", lambda _self, _block: None)


@pytest.fixture
def run(home: None) -> Run:
    def call(*arguments: object) -> Result:
        return CliRunner().invoke(
            bench.COMMAND, [str(a) for a in arguments], standalone_mode=False, catch_exceptions=False
        )

    return call


def test_sixteen_devices_are_measured_at_the_same_time(home: None, lab: Sleepers) -> None:
    """None of them goes on before all have loaded the model: one after the other, they would wait for ever."""
    names = [f"many{i:02}" for i in range(16)]
    for name in names:
        save_device(lab.device(name, sleep_s=0.0005, meet=names))
    result = api.bench_fleet(lab.model(), devices=["all"], policy=POLICY)
    assert [d.device for d in result.devices] == names
    assert [d.error for d in result.devices] == [""] * 16
    assert result.verdict is Verdict.PASS
    # No lease was shared: each device's state is in a folder of its own.
    assert len(list(lab.folder.glob("lease-many*/lease.json"))) == 16


def test_one_that_fails_and_one_that_is_slow_do_not_stop_the_others(run: Run, lab: Sleepers) -> None:
    for name in ("a", "b", "c"):
        save_device(lab.device(name, sleep_s=0.0005))
    save_device(lab.device("slow", sleep_s=0.0045))
    save_device(lab.device("gone", sleep_s=0.0005, port=1))
    model, told = lab.model(), ("--processes", 3, "--runs", 300, "-q")
    shown = run(model, "-d", "all", "--p50-ms", 2.5, *told, "--format", "json")
    found: dict[str, Any] = json.loads(shown.stdout)
    devices = {d["device"]: d for d in found["devices"]}
    assert (shown.return_value, found["verdict"], found["exit_code"]) == (7, "FAIL", 7)
    assert {n: d["verdict"] for n, d in devices.items()} == {
        "a": "PASS", "b": "PASS", "c": "PASS", "slow": "FAIL", "gone": "INVALID",
    }  # fmt: skip
    assert devices["slow"]["sure_fail"]
    assert devices["slow"]["outlier"] > 2
    assert all(d["outlier"] is None for n, d in devices.items() if n != "slow")
    assert devices["gone"]["error_exit_code"] == 5
    assert devices["a"]["p99"]["lower_ms"] > 0.5
    result = from_json(FleetResult, json.dumps({k: v for k, v in found.items() if k not in {"verdict", "exit_code"}}))
    assert result.verdict is Verdict.FAIL

    # Without the slow one it is not a PASS either: a device was not measured.
    text = run(model, "-d", "a", "-d", "gone", "-d", "a", "--p50-ms", 2.5, *told)
    assert text.return_value == 9
    assert "1 of 2 devices are INVALID: gone: not measured" in text.stdout
    assert "not measured: gone: device gone (" in text.stdout
    assert "cannot connect: Connection refused" in text.stdout
    assert "verdict: INVALID" in text.stdout


def test_two_entries_with_one_lease_take_turns_and_progress_names_them(home: None, lab: Sleepers) -> None:
    save_device(lab.device("first", sleep_s=0.0005))
    save_device(lab.device("second", sleep_s=0.0005, lease="first"))
    heard = _Heard()
    policy = replace(POLICY, p50_ms=100)
    result = api.bench_fleet(lab.model(), devices=["first", "second"], share=0.9, policy=policy, reporter=heard)
    # Two entries of one machine are one device, and no device shows 90 % of all by itself.
    assert [d.verdict for d in result.devices] == [Verdict.PASS] * 2
    assert (result.verdict, result.judgement.boxes) == (Verdict.INCONCLUSIVE, 1)
    assert "it takes 29 of 29 devices that pass" in result.judgement.reason
    assert any("it takes 29" in e.message for e in heard.events if isinstance(e, Noted))
    spans = []
    for device in result.devices:
        assert device.result is not None
        spans += [(b.started_unix_s, b.started_unix_s + b.wall_ns / NS_PER_S) for b in device.result.measurement.blocks]
    spans.sort()
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans))
    assert any(": waiting for " in e.message for e in heard.events if isinstance(e, Noted))
    for kind in (StageStarted, StageProgress, StageFinished):
        subjects = {e.subject for e in heard.events if isinstance(e, kind)}
        assert subjects == {"onnxruntime-float32-t1 on first", "onnxruntime-float32-t1 on second"}


def test_a_bug_in_one_thread_stops_the_others_and_is_raised() -> None:
    stopped, begun = threading.Event(), threading.Event()

    def measure(spec: DeviceSpec, told: Reporter) -> Any:
        if spec.name == "bad":
            begun.wait(10)
            raise ZeroDivisionError("a bug")
        begun.set()
        try:
            while True:
                told.emit(StageProgress(stage="sample", done=1))
        finally:
            stopped.set()

    with pytest.raises(ZeroDivisionError, match="a bug"):
        fleet.measure_all([_named("good"), _named("bad")], measure, NullReporter())
    assert stopped.is_set()


def test_an_interrupt_ends_every_thread_at_its_next_event(monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[str] = []
    both = threading.Barrier(3, timeout=10)

    def measure(spec: DeviceSpec, told: Reporter) -> Any:
        both.wait()
        try:
            while True:
                told.emit(Noted(message="a block"))
        finally:
            left.append(spec.name)

    join = threading.Thread.join

    def interrupted(thread: threading.Thread, timeout: float | None = None) -> None:
        if timeout is None:
            both.wait()
            raise KeyboardInterrupt
        join(thread, timeout)

    monkeypatch.setattr(threading.Thread, "join", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fleet.measure_all([_named("one"), _named("two")], measure, NullReporter())
    assert sorted(left) == ["one", "two"]


def test_who_is_meant(home: None, tmp_path: Path) -> None:
    shipped = Path("profiles/raspberry-pi-4.toml")
    copy = tmp_path / shipped.name
    copy.write_text(shipped.read_text())
    save_device(_named("b", profile="raspberry-pi-4"))
    save_device(_named("a", profile=str(copy)))
    save_device(_named("c", profile="local"))

    def names(*named: str) -> list[str]:
        return [spec.name for spec in choose_devices(named)]

    assert names("all") == ["a", "b", "c"]
    assert names("profile:raspberry-pi-4") == names(f"profile:{copy}") == ["a", "b"]
    assert names("c", "all", "local", "c") == ["c", "a", "b", "local"]
    for wrong, message in (
        ((), "at least one device"),
        (("profile:intel-nuc",), "those enrolled have: local, raspberry-pi-4"),
        (("profile:rasberry-pi-4",), "unknown profile"),
        (("d",), "unknown device 'd'"),
    ):
        with pytest.raises(InputError, match=message):
            choose_devices(wrong)
    with pytest.raises(InputError, match="means every enrolled device"):
        save_device(_named("all"))


def test_a_group_needs_somebody_enrolled(home: None) -> None:
    with pytest.raises(InputError, match="no device is enrolled"):
        choose_devices(["all"])


def test_what_works_on_one_device_says_so(run: Run, lab: Sleepers) -> None:
    model = lab.model()
    for more in (("--compare", model), ("--rate", 3), ("--sustain", "1s")):
        with pytest.raises(click.UsageError, match="work on one device"):
            run(model, "-d", "local", "-d", "other", *more)
    with pytest.raises(InputError, match="nothing to meet"):
        run(model, "--fleet-share", 0.9, "-q")
    with pytest.raises(InputError, match="between 0 and 1"):
        api.bench_fleet(model, devices=["local"], share=90, policy=api.BenchPolicy(p50_ms=1))
    with pytest.raises(click.UsageError, match="works on one device, got a, b; `edgeprune bench` measures several"):
        CliRunner().invoke(build.COMMAND, ["x", "-d", "a", "-d", "b"], standalone_mode=False, catch_exceptions=False)


def _named(name: str, **changes: object) -> DeviceSpec:
    values: dict[str, object] = {"schema": 1, "name": name, "profile": "local", "host": "box"}
    return DeviceSpec.model_validate({**values, **changes})


class _Heard:
    def __init__(self) -> None:
        self.events: list[Event] = []
        self._busy = threading.Lock()

    def emit(self, event: Event) -> None:
        assert self._busy.acquire(blocking=False)
        self.events.append(event)
        self._busy.release()
