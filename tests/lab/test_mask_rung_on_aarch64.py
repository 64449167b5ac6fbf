"""Whole builds on an emulated aarch64 device: where zeros buy time a mask rung is chosen, and where not it is refused.

The latencies are the emulator's, and for this device they are the truth. `make test-lab EDGELAB=path/to/edgelab`; on a
machine with other work the verdict is INVALID, as it must be, and the test fails: run it when the machine is quiet.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from targets_for_tests import MadeTarget, make_target, run_until_decided

from edgeprune.cli import run
from edgeprune.deployment.inventory import save_device
from edgeprune.records.codec import from_json
from edgeprune.records.result import BuildResult
from edgeprune.records.rung import PruningKind, RungStatus
from edgeprune.records.verdict import Verdict
from edgeprune.schema.device import DeviceSpec

_log = logging.getLogger(__name__)
pytestmark = [pytest.mark.lab, pytest.mark.timeout(3600)]

SPEEDUP = 1.5
SHARE = 0.85
# No width can be cut by so little, so that zeros are the one way to be so much faster.
TARGET: Mapping[str, object] = {
    "preprocessing.scale": 0.125,
    "preprocessing.mean": [1.0],
    "training.learning_rate": 0.1,
    "training.epochs": 8,
    "training.batch_size": 32,
    "training.augment": "model.py:augment",
    "recovery.rounds": 2,
    "recovery.epochs": 8,
    "recovery.learning_rate": 0.05,
    "pruning.ratios": [0.01],
    "pruning.sparsities": [0.5, SHARE],
    "pruning.ignored": None,
    "accuracy.max_drop_points": 3.0,
    "accuracy.min_class_recall": 0.7,
}
PROFILE: Mapping[str, object] = {
    "hardware.arch": "aarch64",
    "runtimes.onnxruntime.int8": None,
    "runtimes.tflite.int8": False,
    "runtimes.tflite.sparse_kernels": ["unstructured"],
    "budget.p50_ms": None,
    "budget.p99_ms": None,
    "budget.p50_speedup": SPEEDUP,
    "measurement.min_runs": 300,
    "measurement.looks": 2,
}


def mobile_target(folder: Path, factory: str) -> MadeTarget:
    code = (Path(__file__).parent / "mobile_digits.py").read_text()
    return make_target(folder, target={**TARGET, "model.factory": f"model.py:{factory}"}, profile=PROFILE, code=code)


def test_a_mask_rung_is_the_way_to_meet_the_budget(arm_device: DeviceSpec, tmp_path: Path) -> None:
    save_device(arm_device)
    made = mobile_target(tmp_path, "build_model")
    assert run_until_decided(made.arguments("build", "--device", arm_device.name, "--profile", str(made.profile))) == 0
    result = from_json(BuildResult, (made.runs / f"tiny-bench-box-{arm_device.name}" / "summary.json").read_bytes())
    assert result.verdict is Verdict.PASS
    chosen = result.chosen
    assert chosen is not None
    assert (chosen.rung.pruning, chosen.rung.pruning_ratio) == (PruningKind.UNSTRUCTURED, SHARE)
    p50_ms, dense_ms = chosen.percentile_ms(50.0), result.dense.percentile_ms(50.0)
    assert p50_ms is not None
    assert dense_ms is not None
    _log.info("p50 %.1f ms dense, %.1f ms with zeros; validation %s", dense_ms, p50_ms, chosen.validation)
    assert dense_ms / p50_ms > SPEEDUP
    # The micro-models showed that half is too little, and the rule says how much is missing in this net.
    (half,) = [r for r in result.plan.rungs if r.rung.pruning_ratio == 0.5 and r.rung.masked]
    assert half.status is RungStatus.REFUSED
    assert "more than two thirds must be" in half.reason
    assert {r.rung.pruning for r in result.plan.planned} == {PruningKind.UNSTRUCTURED}


def test_a_net_that_misses_the_rule_has_the_operator_in_its_plan(
    arm_device: DeviceSpec, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_device(arm_device)
    made = mobile_target(tmp_path, "build_unfit_model")
    where = ("--device", arm_device.name, "--profile", str(made.profile))
    run(made.arguments("plan", *where, "--format", "json"))
    plan = json.loads(capsys.readouterr().out)
    reasons = {r["rung"]["pruning_ratio"]: r["reason"] for r in plan["rungs"] if r["rung"]["pruning"] == "unstructured"}
    assert set(reasons) == {0.5, SHARE}
    for reason in reasons.values():
        assert re.search(r"reads what #\d+ MAX_POOL_2D gives, which has no channels-first kernel", reason)
    assert not [r for r in plan["rungs"] if r["status"] == "planned"]
