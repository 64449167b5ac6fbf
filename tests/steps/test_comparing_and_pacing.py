"""`bench --compare`, `--rate`, `--sustain` and `device calibrate` on this machine, by the command line."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from onnx import TensorProto, helper, numpy_helper

from edgeprune import api
from edgeprune.benchmarking.validity import Watch
from edgeprune.cli.render import series
from edgeprune.errors import InputError, MeasurementError
from edgeprune.records.codec import from_json
from edgeprune.records.comparison import CompareResult
from edgeprune.steps import calibrations, comparing, pacing

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    from edgeprune.cli.commands import bench, device

    monkeypatch.setenv("EDGEPRUNE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    # Others work on the machine that runs the tests; what is tested here is not whether they are noticed.
    monkeypatch.setattr(Watch, "disturbance", lambda _self, _block: None)
    commands = {"bench": bench.COMMAND, "device": device.COMMAND}

    def call(command: str, *arguments: object) -> Result:
        return CliRunner().invoke(
            commands[command], [str(a) for a in arguments], standalone_mode=False, catch_exceptions=False
        )

    return call


def _model(path: Path, times: int) -> Path:
    size = 64
    names = ["x", *(f"h{i}" for i in range(times - 1)), "y"]
    graph = helper.make_graph(
        [helper.make_node("MatMul", [names[i], "w"], [names[i + 1]]) for i in range(times)],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, size, size])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, size, size])],
        [numpy_helper.from_array(np.eye(size, dtype=np.float32), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path


@pytest.fixture
def quick(tmp_path: Path) -> Path:
    return _model(tmp_path / "quick.onnx", 4)


def test_calibrated_and_compared(run: Run, quick: Path, tmp_path: Path) -> None:
    slow = _model(tmp_path / "slow.onnx", 12)
    told = run("device", "calibrate", "local", "--artifact", quick, "--campaigns", 3, "--rounds", 5, "-q").stdout
    assert "of 3" in told
    assert "local with onnxruntime" in told

    shown = run("bench", slow, "--compare", quick, "--rounds", 5, "--runs", 300, "-q", "--format", "json").stdout
    result = from_json(CompareResult, shown)
    p50, p99 = result.ratios
    assert (p50.percent, p99.percent) == (50.0, 99.0)
    # Three times as much work; by how much it is slower is the machine's affair.
    assert p50.lower > 1.0
    smallest = dict(result.smallest)
    fingerprint = result.first.device.fingerprint
    assert smallest[50.0] == calibrations.smallest_resolvable("local", fingerprint, 50.0)
    assert smallest[50.0] is not None
    assert calibrations.smallest_resolvable("local", "0" * 64, 50.0) is None
    assert calibrations.smallest_resolvable("local", fingerprint, 90.0) is None
    # On other cores it may resolve less; where none was calibrated, the coarsest stands in.
    (known,) = calibrations.load_calibrations("local", fingerprint)
    coarsest = 2 * smallest[50.0]
    coarser = replace(known, cpus=(7,), resolutions=tuple(replace(r, smallest=coarsest) for r in known.resolutions))
    assert calibrations.save_calibration(coarser).name == f"{fingerprint[:16]}-onnxruntime-cpu7.json"
    asked = partial(calibrations.smallest_resolvable, "local", fingerprint, 50.0, {"onnxruntime"})
    assert [asked(cpus) for cpus in ({()}, {(7,)}, {(3,)})] == [smallest[50.0], coarsest, coarsest]
    text = series.comparison(result, "text")
    assert "slower" in text
    assert "this device resolves " in text
    unknown = series.comparison(replace(result, smallest=((50.0, None), (99.0, None))), "text")
    assert "`edgeprune device calibrate local` finds out" in unknown
    assert series.says(p50, 100.0).endswith("finer than this device resolves")
    # From the stored raw samples the same ratios come out.
    assert comparing.ratios(result.first, result.second) == result.ratios


def test_a_damaged_calibration_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEPRUNE_HOME", str(tmp_path))
    path = tmp_path / "calibrations" / "box" / f"{'a' * 16}-tflite.json"
    path.parent.mkdir(parents=True)
    path.write_text("{")
    with pytest.raises(InputError, match="`edgeprune device calibrate box` writes it anew"):
        calibrations.smallest_resolvable("box", "a" * 64, 50.0)


def test_on_chosen_cores(run: Run, quick: Path) -> None:
    first = min(os.sched_getaffinity(0))
    result = run("bench", quick, "--cpus", first, "--runs", 300, "-q", "--format", "json")
    told: dict[str, Any] = json.loads(result.stdout)
    assert told["measurement"]["cpus"] == [first]
    assert {tuple(b["cpus"]) for b in told["measurement"]["blocks"]} == {(first,)}
    assert f"1 thread(s) on core(s) {first}\n" in run("bench", quick, "--cpus", first, "--runs", 300, "-q").stdout
    told = json.loads(run("bench", quick, "--cpus", "last", "--runs", 300, "-q", "--format", "json").stdout)
    assert told["measurement"]["cpus"] == []
    with pytest.raises(InputError, match="expected as many cores as threads, 2, got 0"):
        run("bench", quick, "--cpus", "0", "--threads", 2)
    with pytest.raises(click.BadParameter, match="is no list of cores"):
        run("bench", quick, "--cpus", "3-1")
    with pytest.raises(MeasurementError, match=r"cannot run on core\(s\) 4095; this process may use"):
        run("bench", quick, "--cpus", 4095)


def test_at_a_rate_with_a_limit(run: Run, quick: Path) -> None:
    result = run("bench", quick, "--rate", 200, "--runs", 300, "--p50-ms", 1000, "-q", "--format", "json")
    told: dict[str, Any] = json.loads(result.stdout)
    assert told["judgement"]["verdict"] == "PASS"
    assert result.return_value == 0
    assert sum(b["frames"] for b in told["blocks"]) == 300
    assert all(150 < hz <= 200 for hz in told["achieved_hz"])
    text = run("bench", quick, "--rate", 300, "--runs", 300, "-q").stdout
    assert "asked 300 frames a second, achieved " in text


@pytest.mark.parametrize("rate", [(), ("--rate", 100)])
def test_sustained(run: Run, quick: Path, rate: tuple[object, ...]) -> None:
    shown = run("bench", quick, "--sustain", "1.2s", *rate, "-q", "--format", "json").stdout
    told: dict[str, Any] = json.loads(shown)
    (block,) = told["blocks"]
    assert told["pace"]["bucket_s"] == pytest.approx(0.2)
    assert len(block["buckets"]) == 6
    assert told["trend"]["points"] >= 5
    assert 0 <= told["trend"]["p_value"] <= 1


def test_sustained_text(run: Run, quick: Path) -> None:
    shown = run("bench", quick, "--sustain", "0.6s", "-q").stdout
    assert "flat out: " in shown
    assert "trend of p99: " in shown


def test_buckets_are_a_minute_or_a_sixth() -> None:
    assert (pacing.bucket_seconds(6), pacing.bucket_seconds(360), pacing.bucket_seconds(1800)) == (1, 60, 60)


def test_what_excludes_one_another(run: Run, quick: Path) -> None:
    import click

    with pytest.raises(click.UsageError, match="exclude"):
        run("bench", quick, "--compare", quick, "--rate", 3)
    with pytest.raises(click.UsageError, match="duration such as 90s"):
        run("bench", quick, "--sustain", "soon")
    with pytest.raises(InputError, match="judges no limit"):
        run("bench", quick, "--compare", quick, "--p50-ms", 3)
    with pytest.raises(InputError, match="certifies no limit"):
        run("bench", quick, "--sustain", "1s", "--memory-mb", 3)
    with pytest.raises(InputError, match="at least 5"):
        api.compare(quick, quick, rounds=4)
    with pytest.raises(InputError, match="at least 3"):
        api.calibrate(campaigns=2)


def test_a_memory_limit_is_judged_and_tried(run: Run, quick: Path) -> None:
    met = run("bench", quick, "--memory-mb", 900, "--runs", 300, "-q", "--format", "json")
    gate = json.loads(met.stdout)["judgement"]["gates"][0]
    assert (gate["gate"], gate["verdict"]) == ("memory", "PASS")
    assert "proved under 900 MB" in gate["reason"]
    missed = run("bench", quick, "--memory-mb", 0.1, "--memory-of", "model", "--runs", 300, "-q")
    assert missed.return_value == 7
    assert "the model takes" in missed.stdout
