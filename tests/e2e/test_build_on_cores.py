"""Cores are part of what is built: kept in the manifest, and gone by when the artifact is measured again.

On the last core only: other tests run on the first one. Which of several is chosen: `tests/planning/test_placement.py`.
"""

from __future__ import annotations

import os
from pathlib import Path

from targets_for_tests import make_target, run_until_decided, until_quiet

import edgeprune
from edgeprune.api import BenchPolicy
from edgeprune.records.codec import from_json
from edgeprune.records.result import BuildResult
from edgeprune.records.verdict import Verdict
from edgeprune.steps.benching import bench_subject
from edgeprune.steps.evidence import read_evidence

CORE = max(os.sched_getaffinity(0))


def test_a_build_is_measured_on_the_cores_of_its_rung(tmp_path: Path) -> None:
    made = make_target(tmp_path, profile={"cpus": [str(CORE), "4095"]})
    assert run_until_decided(made.arguments("build", "--quiet")) == 0
    result = from_json(BuildResult, (made.run / "summary.json").read_bytes())
    assert result.verdict is Verdict.PASS
    assert result.chosen is not None
    rungs = {r.rung.name: r for r in result.plan.rungs if r.rung.precision == "float32"}
    assert set(rungs) == {f"onnxruntime-float32-t1-cpu{core}" for core in (CORE, 4095)}
    refused = rungs["onnxruntime-float32-t1-cpu4095"].reason
    assert refused.startswith("no core(s) 4095 that the device lets us use: ")
    assert result.chosen.rung.cpus == (CORE,)
    for candidate in (result.chosen, result.dense):
        assert candidate.measurement is not None
        assert candidate.measurement.cpus == candidate.rung.cpus == (CORE,)
        assert {b.cpus for b in candidate.measurement.blocks} == {(CORE,)}
    # Nobody need say it again.
    assert bench_subject(made.run / "artifact").rung.cpus == (CORE,)
    assert bench_subject(made.run / "artifact", 2).rung.cpus == ()
    assert bench_subject(made.run / "artifact", 2, (5, 4)).rung.cpus == (4, 5)
    again = until_quiet(lambda: edgeprune.bench(made.run / "artifact", policy=BenchPolicy(runs=300)))
    assert again.measurement.cpus == (CORE,)
    assert {b.cpus for b in again.measurement.all_blocks} == {(CORE,)}
    assert edgeprune.gate(made.run).verdict is Verdict.PASS
    assert read_evidence(made.run).manifest.rung.cpus == (CORE,)
