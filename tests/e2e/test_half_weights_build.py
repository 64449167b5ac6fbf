"""A size that float32 misses and half of its bytes meet, where the profile forbids INT8 and nothing may be cut."""

from __future__ import annotations

from pathlib import Path

import pytest
from compiled import run_compiled
from targets_for_tests import make_target, run_until_decided, target_module

from edgeprune.cli import run
from edgeprune.records.codec import from_json
from edgeprune.records.result import BuildResult
from edgeprune.records.rung import Precision
from edgeprune.runtimes import RUNTIMES
from edgeprune.store.artifacts import Manifest

FULL_BYTES = 22_000
"""Of TinyNet's weights in float32, without what a file has besides."""


def test_weights_of_16_bits_meet_a_size_that_was_out_of_reach(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = {"runtimes.onnxruntime.int8": None, "runtimes.tflite.int8": False, "budget.artifact_mb": 0.020}
    made = make_target(tmp_path, profile=keys)
    assert run_until_decided(made.arguments("build", "--quiet")) == 0
    result = from_json(BuildResult, (made.run / "summary.json").read_bytes())
    assert result.chosen is not None
    assert result.chosen.rung.name == "tflite-float32w16-t1"
    (dense,) = (r for r in result.plan.rungs if r.rung.precision is Precision.FLOAT32)
    assert "MB, over the budget of" in dense.reason
    assert result.chosen.artifact is not None
    assert dense.artifact_bytes is not None
    saved = dense.artifact_bytes - result.chosen.artifact.size_bytes
    assert 0.4 * FULL_BYTES < saved < 0.6 * FULL_BYTES
    for ours, theirs in ((result.chosen.validation, result.dense.validation), (result.chosen.test, result.dense.test)):
        assert ours is not None
        assert theirs is not None
        assert ours.overall == theirs.overall > 0.9
    assert result.chosen.parity is not None
    assert result.chosen.parity.passed
    _runs_alone(made.run / "artifact", made.folder)
    assert run_until_decided(["bench", "--runs", "300", "--quiet", str(made.run / "artifact")]) == 0
    assert run(["gate", str(made.run)]) == 0
    assert run(["gate", "verify", str(made.run / "evidence.zip")]) == 0
    capsys.readouterr()
    # Built again nothing is to be done, and a release is held against itself.
    assert run(made.arguments("build")) == 0
    assert "nothing changed" in capsys.readouterr().err
    releases = ["--releases", str(tmp_path / "releases")]
    assert run(["release", "promote", str(made.run), "--name", "1.0", *releases]) == 0
    assert run(["gate", str(made.run), "--baseline", "current", "--max-regression", "99%", *releases]) in {0, 8}
    assert "tflite-float32w16-t1" in (made.run / "report.html").read_text()


def _runs_alone(artifact: Path, target: Path) -> None:
    """The file by itself in the runtime's own library, on raw examples: it takes and gives float32."""
    manifest = from_json(Manifest, (artifact / "manifest.json").read_bytes())
    assert (manifest.artifact.precision, manifest.variant) == (Precision.FLOAT32_W16, None)
    opened = RUNTIMES.get("tflite").open_file(artifact / manifest.artifact.files[0].name)
    assert opened is not None
    test = target_module(target).load_data(0).test
    outputs = run_compiled("tflite", opened, test.inputs)
    assert (outputs.argmax(axis=1) == test.labels).mean() > 0.9
