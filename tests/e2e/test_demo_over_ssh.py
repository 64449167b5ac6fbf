"""The README's demo, all three runtimes, on a real sshd with a pinned host key and a user that is not root.

What the tool promises of accuracy is judged on the validation split, so that is what is asserted. Of the test split it
promises that no choice follows from it and that what is reported is true of the delivered file: no bound on it stands
here, because one that is moved until this test passes would be a choice by the test split.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from sshd import SshServer
from targets_for_tests import until_quiet

import edgeprune
from edgeprune.deployment.inventory import save_device
from edgeprune.records.accuracy import Accuracy
from edgeprune.records.result import BuildResult, CandidateStatus
from edgeprune.records.verdict import Verdict
from edgeprune.steps.inputs import Target
from edgeprune.steps.session import open_host_session
from edgeprune.steps.task import classification
from edgeprune.store.artifacts import read_manifest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def target() -> Target:
    return edgeprune.load_target(ROOT / "targets" / "digits")


@pytest.fixture(scope="module")
def built(target: Target, tmp_path_factory: pytest.TempPathFactory) -> BuildResult:
    with SshServer() as server:
        save_device(server.device(name="edge", profile=str(ROOT / "profiles" / "local.toml")))
        return until_quiet(lambda: edgeprune.build(target, device="edge", output=tmp_path_factory.mktemp("runs")))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_demo_passes_within_the_floors_on_validation_data(built: BuildResult, target: Target) -> None:
    assert built.verdict is Verdict.PASS
    assert built.chosen is not None
    assert built.chosen.status is CandidateStatus.CHOSEN
    assert built.dense.validation is not None
    assert built.chosen.validation is not None
    assert built.chosen.validation.split == built.dense.validation.split == "validation"
    drop_points = 100 * (built.dense.validation.overall - built.chosen.validation.overall)
    assert drop_points <= target.spec.accuracy.max_drop_points + 1e-9
    assert target.spec.accuracy.min_class_recall is not None
    assert built.chosen.validation.worst_class[1] >= target.spec.accuracy.min_class_recall - 1e-9
    assert {r.rung.runtime for r in built.plan.rungs} == {"openvino", "onnxruntime", "tflite"}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_test_split_is_read_last_and_what_is_said_of_it_is_true_of_the_delivered_file(
    built: BuildResult, target: Target
) -> None:
    assert built.chosen is not None
    lines = (Path(built.folder) / "events.jsonl").read_text().splitlines()
    events = [e for e in map(json.loads, lines) if e["event"] == "StageFinished"]
    done = [(e["stage"], e["subject"]) for e in events]
    tested = [("test", built.dense.rung.name), ("test", built.chosen.rung.name)]
    assert [d for d in done if d[0] == "test"] == tested
    # What comes after the first reading chooses nothing: training data beside it.
    assert {stage for stage, _ in done[done.index(tested[0]) :]} == {"test", "fit"}
    assert {c.rung.name for c in (built.dense, *built.candidates) if c.test} == {name for _, name in tested}
    assert _test_accuracy(Path(built.folder) / "artifact", target) == built.chosen.test


def _test_accuracy(delivered: Path, target: Target) -> Accuracy:
    """Of the files that a device would get, with the preprocessing that their manifest tells."""
    manifest, test = read_manifest(delivered), target.load_data().test
    scale, mean, std = (np.float32(manifest.preprocessing[key]) for key in ("scale", "mean", "std"))
    with open_host_session() as host:
        outputs = host.infer(
            manifest.rung,
            host.place(delivered, manifest.artifact),
            np.ascontiguousarray((test.inputs.astype(np.float32) * scale - mean) / std),
        )
    return classification(manifest.class_names).accuracy_of(outputs, test, "test")
