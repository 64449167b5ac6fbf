"""A build that is killed where it hurts, and goes on where it was."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from targets_for_tests import DISTURBED, MadeTarget, StartCommand, make_target

from edgeprune.records.codec import from_json
from edgeprune.records.result import BuildResult
from edgeprune.records.verdict import Verdict

DEADLINE_S = 120.0


def test_killed_build_resumes_and_repeats_no_finished_step(tmp_path: Path, start_command: StartCommand) -> None:
    made = make_target(tmp_path)
    kept: dict[str, tuple[int, int]] = {}

    # Ctrl-C while the first shape is compiled and measured.
    process = _start_until(start_command, made, lambda: _started(made, "shape"))
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 130
    assert "interrupted; what was finished is kept" in stderr
    assert "Traceback" not in stderr

    for reached in (
        lambda: _step_is_there(made, "compressed/dense/compress"),
        lambda: _started(made, "measure"),
        lambda: _step_is_there(made, "candidates/onnxruntime-float32-t1/measure"),
    ):
        process = _start_until(start_command, made, reached)
        process.kill()
        process.communicate(timeout=DEADLINE_S)
        assert process.returncode == -signal.SIGKILL
        assert not (made.run / "summary.json").exists()
        _assert_untouched(made, kept)
        kept = _steps(made)
    assert len(kept) >= 5

    earlier = len(_events(made))
    for _ in range(3):
        finished = start_command(made.arguments("build", "--format", "json"))
        stdout, stderr = finished.communicate(timeout=DEADLINE_S)
        if finished.returncode not in DISTURBED:
            break
    assert finished.returncode == 0, stderr
    assert json.loads(stdout)["verdict"] == "PASS"
    assert from_json(BuildResult, (made.run / "summary.json").read_bytes()).verdict is Verdict.PASS
    _assert_untouched(made, kept)
    done = [e for e in _events(made)[earlier:] if e["event"] == "StageFinished"]
    assert {e["stage"] for e in done if not e["cached"]} == {"fit", "test"}
    assert {"shape", "compress", "compile", "evaluate", "baseline", "measure"} <= {
        e["stage"] for e in done if e["cached"]
    }
    assert "kept from before" in stderr


def test_two_builds_in_one_folder_do_not_meet(tmp_path: Path, start_command: StartCommand) -> None:
    made = make_target(tmp_path)
    first = _start_until(start_command, made, lambda: _started(made, "shape"))
    second = start_command(made.arguments("build"))
    _, stderr = second.communicate(timeout=DEADLINE_S)
    first.kill()
    first.communicate(timeout=DEADLINE_S)
    assert second.returncode == 2
    assert "another edgeprune is building in this folder" in stderr


def _start_until(start: StartCommand, made: MadeTarget, reached: Callable[[], bool]) -> subprocess.Popen[str]:
    process = start(made.arguments("build"))
    deadline = time.monotonic() + DEADLINE_S
    while not reached():
        assert time.monotonic() < deadline
        if process.poll() is not None:
            # Nothing can be killed where the machine was too busy to measure: once more.
            assert process.returncode in DISTURBED, process.communicate()
            process = start(made.arguments("build"))
        time.sleep(0.005)
    return process


def _started(made: MadeTarget, stage: str) -> bool:
    return any(e["event"] == "StageStarted" and e["stage"] == stage for e in _events(made))


def _step_is_there(made: MadeTarget, name: str) -> bool:
    return (made.run / name / "step.json").exists()


def _steps(made: MadeTarget) -> dict[str, tuple[int, int]]:
    found = ((p, p.stat()) for p in made.run.rglob("step.json") if ".partial" not in p.parts)
    return {str(path): (stat.st_ino, stat.st_mtime_ns) for path, stat in found}


def _assert_untouched(made: MadeTarget, kept: dict[str, tuple[int, int]]) -> None:
    now = _steps(made)
    assert {path: now[path] for path in kept} == kept


def _events(made: MadeTarget) -> list[dict[str, Any]]:
    path = made.run / "events.jsonl"
    # The last line may be on its way.
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return [json.loads(line) for line in lines]
