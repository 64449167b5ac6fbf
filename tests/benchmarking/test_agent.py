from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune.benchmarking.agent.device import bench, evidence, limits, probe, sessions
from edgeprune.benchmarking.agent.device.reply import AgentError
from edgeprune.benchmarking.agent.device.tflite_session import dequantise, quantise

MS = 1_000_000


def _latencies(*values: int) -> Callable[[], int]:
    """Gives these latencies, then the last one for ever."""
    left = list(values)
    return lambda: left.pop(0) if len(left) > 1 else left[0]


def test_steady_latency_ends_the_warmup_after_three_windows() -> None:
    assert bench.warm_up(_latencies(MS), bench.Warmup(20, 1000, 60)) == (60, True, MS)


def test_warmup_waits_until_the_first_slow_windows_are_past() -> None:
    slow_then_steady = _latencies(*[3 * MS] * 40, MS)
    assert bench.warm_up(slow_then_steady, bench.Warmup(20, 1000, 60)) == (100, True, MS)


def test_windows_of_quick_runs_last_two_milliseconds() -> None:
    runs, steady, _ = bench.warm_up(_latencies(10_000), bench.Warmup(20, 1000, 60))
    assert (runs, steady) == (600, True)


def test_windows_of_slow_runs_are_short() -> None:
    assert bench.warm_up(_latencies(50 * MS), bench.Warmup(0, 1000, 60)) == (15, True, 50 * MS)


def test_minimum_holds_although_steady() -> None:
    runs, steady, _ = bench.warm_up(_latencies(MS), bench.Warmup(150, 1000, 60))
    assert steady
    assert runs >= 150


def test_warmup_of_an_unsteady_model_ends_at_its_limit() -> None:
    growing = iter(range(MS, 10_000 * MS, MS // 10))
    assert bench.warm_up(lambda: next(growing), bench.Warmup(20, 333, 60))[:2] == (333, False)


def test_warmup_ends_in_time() -> None:
    def slow() -> int:
        time.sleep(0.01)
        return 10 * MS

    start = time.monotonic()
    runs, steady, median_ns = bench.warm_up(slow, bench.Warmup(20, 1000, 0.1))
    assert not steady
    assert 1 <= runs <= 10
    assert median_ns == 10 * MS
    assert time.monotonic() - start < 0.5


def test_no_warmup_at_all() -> None:
    assert bench.warm_up(_latencies(MS), bench.Warmup(0, 0, 60)) == (0, False, 0)


def test_core_ticks_by_hand() -> None:
    stat = "cpu  1 1 1 1 1 1 1 1\ncpu0 100 1 10 900 5 2 3 7 50 0\ncpu1 200 0 0 0 0 0 0 1\ncpu11 999 0 0 0 0 0 0 9\n"
    per_centisecond = 100 / os.sysconf("SC_CLK_TCK")
    assert evidence.core_ticks(stat, [0]) == (116 * per_centisecond, 7 * per_centisecond)
    assert evidence.core_ticks(stat, [0, 1]) == (316 * per_centisecond, 8 * per_centisecond)
    assert evidence.core_ticks("", [0]) == (0, 0)
    assert evidence.core_ticks("cpu0 4 0 0\n", [0]) == (4 * per_centisecond, 0)


def test_difference_takes_the_own_time_off_the_busy_time() -> None:
    before = evidence.Snapshot(10, 20, 100, 1, 5_000_000_000, 7, 3, 1000)
    after = evidence.Snapshot(15, 22, 107, 1, 5_300_000_000, 1007, 4, 1050)
    assert evidence.difference(before, after) == {
        "voluntary_switches": 5,
        "involuntary_switches": 2,
        "minor_faults": 7,
        "major_faults": 0,
        "cpu_ns": 300_000_000,
        "wall_ns": 1000,
        "steal_ticks": 1,
        "other_ticks": 20,
    }


def test_surroundings_from_sysfs(tmp_path: Path) -> None:
    def put(path: str, text: str) -> None:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)

    core = "sys/devices/system/cpu/cpu%d"
    for cpu, khz in ((0, 600_000), (1, 1_500_000), (2, 1_200_000)):
        put(f"{core % cpu}/cpufreq/scaling_cur_freq", f"{khz}\n")
        put(f"{core % cpu}/thermal_throttle/core_throttle_count", f"{cpu}\n")
        put(f"{core % cpu}/thermal_throttle/package_throttle_count", "10\n")
    put("sys/class/thermal/thermal_zone0/temp", "48500\n")
    put("sys/class/thermal/thermal_zone1/temp", "61000\n")
    put("sys/class/thermal/thermal_zone2/temp", "asleep")
    put("sys/devices/system/clocksource/clocksource0/current_clocksource", "arch_sys_counter\n")
    put("proc/loadavg", "0.52 0.40 0.31 1/200 4711\n")
    before = evidence.surroundings([1, 2], str(tmp_path))
    put(f"{core % 2}/thermal_throttle/core_throttle_count", "5\n")
    put(f"{core % 2}/cpufreq/scaling_cur_freq", "900000\n")
    assert evidence.change_of_surroundings(before, evidence.surroundings([1, 2], str(tmp_path))) == {
        "load_average": 0.52,
        "clock_source": "arch_sys_counter",
        "clock_mhz_before": 1200.0,
        "clock_mhz_after": 900.0,
        "temperature_c_before": 61.0,
        "temperature_c_after": 61.0,
        "throttle_events": 3,
    }


def test_a_device_that_tells_nothing_of_its_surroundings(tmp_path: Path) -> None:
    found = evidence.surroundings([0], str(tmp_path))
    assert set(found.values()) == {None, ""}
    assert evidence.change_of_surroundings(found, found)["throttle_events"] is None


def test_micro_probe_takes_some_milliseconds_and_repeats() -> None:
    found = sorted(evidence.micro_probe_ns() for _ in range(7))
    assert found[0] > 100_000
    assert found[3] < 2 * found[0]


def test_peak_memory_never_falls_and_sees_an_allocation() -> None:
    before = evidence.peak_memory_bytes()
    block = b"x" * (before + 50_000_000)
    assert evidence.peak_memory_bytes() >= len(block)


def test_cpu_facts_of_x86_and_arm() -> None:
    x86 = "processor\t: 0\nmodel name\t: Xeon\nflags\t\t: fpu avx\n\nprocessor\t: 1\nmodel name\t: Other\n"
    assert probe.cpu_facts(x86) == {"model": "Xeon", "flags": "fpu avx"}
    arm = "processor\t: 0\nFeatures\t: fp asimd\nCPU implementer\t: 0x41\nCPU part\t: 0xd08\n"
    assert probe.cpu_facts(arm) == {"model": "ARM implementer 0x41 part 0xd08", "flags": "fp asimd"}
    assert probe.cpu_facts("") == {"model": "", "flags": ""}


def test_second_measurement_waits_and_is_then_refused(tmp_path: Path) -> None:
    held = bench.take_lock(str(tmp_path / "work"), 0)
    with pytest.raises(AgentError, match="another measurement") as caught:
        bench.take_lock(str(tmp_path / "work"), 0.1)
    assert caught.value.kind == "busy"
    os.close(held)
    os.close(bench.take_lock(str(tmp_path / "work"), 0))


def test_pin_takes_the_last_cores_and_those_that_are_asked_for() -> None:
    allowed = sorted(os.sched_getaffinity(0))
    try:
        assert bench.pin((), 1) == allowed[-1:]
        os.sched_setaffinity(0, allowed)
        assert bench.pin((allowed[0],), 1) == allowed[:1]
        os.sched_setaffinity(0, allowed)
        with pytest.raises(AgentError, match=r"cannot run on core\(s\) 99999; this process may use \d") as caught:
            bench.pin((99_999,), 1)
        assert caught.value.kind == "cores"
        with pytest.raises(AgentError, match=rf"cannot run on core\(s\) {allowed[0]},99999"):
            bench.pin((allowed[0], 99_999), 2)
    finally:
        os.sched_setaffinity(0, allowed)


@pytest.mark.parametrize("array", [np.zeros((2, 3)), np.zeros(3, np.float32), np.zeros((0, 3), np.float32)])
def test_inputs_of_another_kind_are_refused(tmp_path: Path, array: np.ndarray) -> None:
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(AgentError, match="expected float32"):
        bench.load_inputs(str(tmp_path / "x.npy"))


def test_inputs_are_never_unpickled(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(AgentError, match="is no array"):
        bench.load_inputs(str(tmp_path / "x.npy"))


def test_timed_runs_cycle_the_samples() -> None:
    seen: list[float] = []

    class Recording:
        def prepare(self, sample: Any) -> Any:
            assert sample.shape == (1, 2)
            return sample[0, 0]

        def run(self, native: Any) -> Any:
            seen.append(float(native))

    time_one = bench.timed_runs(Recording(), np.arange(6, dtype=np.float32).reshape(3, 2))
    assert all(time_one() > 0 for _ in range(5))
    assert seen == [0.0, 2.0, 4.0, 0.0, 2.0]


@settings(max_examples=50)
@given(st.floats(1e-3, 10), st.integers(-128, 127), st.lists(st.floats(-50, 50), min_size=1, max_size=20))
def test_quantising_is_off_by_half_a_step_at_most(scale: float, zero_point: int, values: list[float]) -> None:
    details = {"dtype": np.int8, "quantization": (scale, zero_point)}
    sample = np.array([values], dtype=np.float32)
    back = dequantise(quantise(sample, details), details)
    low, high = (-128 - zero_point) * scale, (127 - zero_point) * scale
    expected = np.clip(sample, low, high)
    assert back.dtype == np.float32
    assert np.abs(back - expected).max() <= scale / 2 + 1e-4 * (1 + abs(high) + abs(low))


def test_float_tensors_are_left_as_they_are() -> None:
    details = {"dtype": np.float32, "quantization": (0.0, 0)}
    sample = np.array([[0.5, -3.0]], dtype=np.float32)
    assert np.array_equal(quantise(sample, details), sample)
    assert np.array_equal(dequantise(sample, details), sample)


@pytest.mark.parametrize("runtime", sessions.names())
def test_every_session_file_keeps_the_contract(runtime: str, tmp_path: Path) -> None:
    module = sessions.module(runtime)
    assert all(len(pair) == 2 for pair in module.LIBRARIES)
    assert all(callable(getattr(module.Session, name)) for name in ("prepare", "run", "results"))
    with pytest.raises(AgentError, match="no such artifact") as caught:
        sessions.load(runtime, str(tmp_path / "nothing"), "float32", 1)
    assert caught.value.kind == "bad_artifact"


@pytest.mark.parametrize("runtime", ["onnxruntime", "tflite"])
def test_precisions_that_a_runtime_cannot_switch_to_are_refused(runtime: str, tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(b"x")
    with pytest.raises(AgentError, match="not in bf16"):
        sessions.load(runtime, str(tmp_path / "model"), "bf16", 1)


def test_digest_is_that_of_the_bytes(tmp_path: Path) -> None:
    from edgeprune.benchmarking.agent.device.files import digest

    content = os.urandom(3_000_000)
    (tmp_path / "x").write_bytes(content)
    assert digest(str(tmp_path / "x")) == hashlib.sha256(content).hexdigest()


class Told:
    """Collects the fields of what is emitted."""

    def __init__(self) -> None:
        self.fields: dict[str, Any] = {}

    def emit(self, event: str, **fields: Any) -> None:
        self.fields[event] = fields


def test_condition_of_this_host(monkeypatch: pytest.MonkeyPatch) -> None:
    told = Told()
    before_s = time.time()
    probe.condition(told)
    condition = told.fields["condition"]
    assert before_s <= condition["unix_s"] <= time.time()
    assert 0 < condition["memory_available_bytes"] <= probe._memory_bytes()
    assert condition["memory_limit"] in {"cgroup v1", "cgroup v2", "RLIMIT_DATA"}
    # An old kernel on which no cgroup is ours.
    monkeypatch.setattr(limits, "make_cgroup", lambda _limit: None)
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "old", "4.6.0", "#1", "armv7l")))
    probe.condition(told)
    assert told.fields["condition"]["memory_limit"] == ""
