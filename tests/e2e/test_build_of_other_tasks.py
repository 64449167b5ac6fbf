"""Whole builds of targets that are no images of ten classes, on this host, one runtime each."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from targets_for_tests import run_until_decided
from task_targets import TASKS, make_task

from edgeprune.cli import run
from edgeprune.records.codec import from_json
from edgeprune.records.result import BuildResult
from edgeprune.records.rung import PruningKind
from edgeprune.records.verdict import Verdict


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("name", "runtime", "artifact_mb", "outputs"),
    [
        # Too large with weights of 16 bits too: channels of 1-D convolutions, or gates of a GRU, must go.
        ("keywords", "onnxruntime", 0.0092, ["output"]),
        ("gru", "onnxruntime", 0.0058, ["output"]),
        ("texts", "openvino", None, ["output"]),
        ("scenes", "tflite", None, ["scores", "centre"]),
        ("doses", "onnxruntime", None, ["output"]),
    ],
)
def test_build_passes_and_its_evidence_is_judged_alike(
    name: str, runtime: str, artifact_mb: float | None, outputs: list[str], tmp_path: Path
) -> None:
    profile = {
        "runtimes.onnxruntime.int8": None,
        f"runtimes.{runtime}.int8": False,
        "budget.artifact_mb": artifact_mb,
    }
    made = make_task(name, tmp_path, target={"pruning.ignored": None}, profile=profile)
    assert run_until_decided(made.arguments("build", "--quiet")) == 0
    result = from_json(BuildResult, (made.run / "summary.json").read_bytes())
    assert result.chosen is not None
    assert (result.chosen.rung.pruning is PruningKind.STRUCTURED) == (artifact_mb is not None)
    metric = TASKS[name][1].get("task.metric", "accuracy")
    assert result.chosen.judgement is not None
    accuracy = next(g for g in result.chosen.judgement.gates if g.gate == "accuracy")
    assert accuracy.verdict is Verdict.PASS
    for found in (result.dense.validation, result.dense.test, result.chosen.validation, result.chosen.test):
        assert found is not None
        assert found.metric == metric
    manifest = json.loads((made.run / "artifact" / "manifest.json").read_text())
    assert [spec["name"] for spec in manifest["artifact"]["outputs"]] == outputs
    assert manifest["artifact"]["inputs"][0]["dtype"] == ("int64" if name == "texts" else "float32")
    assert str(metric).rsplit("/", 1)[-1] in (made.run / "report.html").read_text()
    assert run(["gate", str(made.run)]) == 0
