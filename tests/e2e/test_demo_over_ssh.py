from __future__ import annotations

from pathlib import Path

import pytest
from sshd import SshServer
from targets_for_tests import until_quiet

import edgeprune
from edgeprune.deployment.inventory import save_device
from edgeprune.records.result import CandidateStatus
from edgeprune.records.verdict import Verdict

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_demo_passes_on_a_device_behind_ssh(tmp_path: Path) -> None:
    """The README's demo, all three runtimes, on a real sshd with a pinned host key and a user that is not root."""
    with SshServer() as server:
        save_device(server.device(name="edge", profile=str(ROOT / "profiles" / "local.toml")))
        result = until_quiet(
            lambda: edgeprune.build(ROOT / "targets" / "digits", device="edge", output=tmp_path),
        )
    assert result.verdict is Verdict.PASS
    assert result.chosen is not None
    assert result.chosen.status is CandidateStatus.CHOSEN
    assert result.dense.test is not None
    assert result.chosen.test is not None
    # The floor of one point holds on validation data; one image more or less of 359 is 0.3 points.
    assert result.dense.test.overall - result.chosen.test.overall <= 0.025
    assert {r.rung.runtime for r in result.plan.rungs} == {"openvino", "onnxruntime", "tflite"}
