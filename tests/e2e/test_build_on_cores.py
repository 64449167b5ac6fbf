"""Cores are part of what is built: chosen, kept in the manifest, and gone by when the artifact is measured again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from targets_for_tests import make_target, run_until_decided, until_quiet

import edgeprune
from edgeprune.api import BenchPolicy
from edgeprune.records.codec import from_json
from edgeprune.records.result import BuildResult
from edgeprune.records.verdict import Verdict
from edgeprune.steps.benching import bench_subject
from edgeprune.steps.evidence import read_evidence

CORES = sorted(os.sched_getaffinity(0))[:2]


@pytest.mark.skipif(len(CORES) < 2, reason="one core leaves nothing to choose")
def test_a_build_chooses_cores_and_is_measured_on_them(tmp_path: Path) -> None:
    sets = [str(core) for core in CORES]
    made = make_target(tmp_path, profile={"cpus": [*sets, "4095"]})
    assert run_until_decided(made.arguments("build", "--quiet")) == 0
    result = from_json(BuildResult, (made.run / "summary.json").read_bytes())
    assert result.verdict is Verdict.PASS
    assert result.chosen is not None
    rungs = {r.rung.name: r for r in result.plan.rungs if r.rung.precision == "float32"}
    assert set(rungs) == {f"onnxruntime-float32-t1-cpu{name}" for name in (*sets, "4095")}
    refused = rungs["onnxruntime-float32-t1-cpu4095"].reason
    assert refused.startswith("no core(s) 4095 that the device lets us use: ")
    (core,) = result.chosen.rung.cpus
    assert core in CORES
    assert all(rungs[f"onnxruntime-float32-t1-cpu{name}"].p50_ms is not None for name in sets)
    for candidate in (result.chosen, result.dense):
        assert candidate.measurement is not None
        assert {b.cpus for b in candidate.measurement.blocks} == {candidate.rung.cpus}
    # Nobody need say it again.
    assert bench_subject(made.run / "artifact").rung.cpus == (core,)
    assert bench_subject(made.run / "artifact", 2).rung.cpus == ()
    assert bench_subject(made.run / "artifact", 2, tuple(CORES)).rung.cpus == tuple(CORES)
    again = until_quiet(lambda: edgeprune.bench(made.run / "artifact", policy=BenchPolicy(runs=300)))
    assert {b.cpus for b in again.measurement.blocks} == {(core,)}
    assert edgeprune.gate(made.run).verdict is Verdict.PASS
    assert read_evidence(made.run).manifest.rung.cpus == (core,)
