"""The plan over real shapes, where the size decides: that is the same on every machine."""

from __future__ import annotations

from pathlib import Path

import pytest
from targets_for_tests import MadeTarget, make_target, until_quiet

import edgeprune
from edgeprune.cli.render import results
from edgeprune.errors import BuildError
from edgeprune.planning.feasibility import refuse
from edgeprune.records.rung import Plan, PlannedRung, Precision, Rung

HALVED = "onnxruntime-float32w16-t1"


def ladder(plan: Plan, place: str = "onnxruntime-float32-t1") -> dict[str, PlannedRung]:
    return {r.rung.name.removeprefix(place): r for r in plan.rungs}


def events(folder: Path) -> list[str]:
    return [line for log in folder.rglob("events.jsonl") for line in log.read_text().splitlines()]


def made_with(folder: Path, artifact_mb: float) -> MadeTarget:
    """Where full widths have 0.025 MB in float32, and 0.014 with weights of 16 bits."""
    return make_target(
        folder,
        target={"pruning.ignored": ["conv1"], "pruning.ratios": [0.25, 0.5]},
        profile={"budget.artifact_mb": artifact_mb},
    )


def test_size_refuses_what_is_too_large_and_the_widest_that_fits_is_found(tmp_path: Path) -> None:
    made = made_with(tmp_path, 0.009)
    plan = until_quiet(lambda: edgeprune.plan(made.folder, output=tmp_path))
    rungs = ladder(plan, HALVED)
    assert {"", "-structured50", "onnxruntime-float32-t1", "onnxruntime-int8-t1"} <= set(rungs)
    assert "int8 = false" in rungs["onnxruntime-int8-t1"].reason
    assert all("MB" in rungs[name].reason for name in ("", "onnxruntime-float32-t1"))
    assert [r.rung.name for r in plan.planned] == ["onnxruntime-float32w16-t1-structured50"]
    chosen = plan.planned[0]
    assert [(w.group, w.before, w.after) for w in chosen.widths] == [("conv2", 32, 16)]
    assert any(t.fits for t in chosen.trips)
    assert all(t.measured_ms > 0 and t.predicted_ms > 0 for t in chosen.trips)
    assert any(chosen.rung.name in note and "conv2 32 to 16" in note for note in plan.notes)
    assert any("equally sensitive" in line for line in events(tmp_path))
    # What the widths rest on is kept, and drawn on a page.
    where, survey = chosen.breakdown, plan.survey(chosen.rung)
    assert where is not None
    assert survey is not None
    assert plan.sensitivity is None
    assert (where.measured_ms, survey.full.measured_ms) == (chosen.p50_ms, rungs[""].p50_ms)
    fixed = [(o.title, o.fixed) for o in where.operators]
    assert fixed == [("conv1", True), ("conv2", False), ("head", False), ("max_pool2d_with_indices", False)]
    assert where.observations == 2 + len(chosen.trips)
    assert list(survey.staircases) == ["conv2"]
    assert 16 in survey.staircases["conv2"].admissible
    page = (tmp_path / "tiny-bench-box-local" / "plan.html").read_text()
    assert "Staircases of the groups" in page
    assert "conv2 32 to 16" in page
    # Now even the narrowest is too large, and nothing is searched for.
    made = made_with(tmp_path, 0.001)
    plan = until_quiet(lambda: edgeprune.plan(made.folder, output=tmp_path))
    assert plan.planned == ()
    rungs = ladder(plan, HALVED)
    assert rungs["-structured50"].reason.startswith(
        "even with the narrowest widths (no group may lose more than 50%): size"
    )
    assert rungs["-structured50"].trips == ()
    assert plan.best.p50_ms is not None
    # Size stands in the way, so no operator is priced to say what takes the time.
    assert plan.best.breakdown is None
    assert results.plan(plan, "text").splitlines()[-1].startswith("no plan fits the budget (p50 500 ms")


@pytest.mark.parametrize("said", [{}, {"pruning.sparsities": [0.5], "pruning.mask_scope": "layer"}], ids=["no", "yes"])
def test_what_is_said_of_zeros_where_they_buy_nothing_is_told_to_be_unused(
    tmp_path: Path, said: dict[str, object]
) -> None:
    made = make_target(tmp_path, target=said)
    plan = until_quiet(lambda: edgeprune.plan(made.folder, output=tmp_path))
    told = (
        "pruning.sparsities, pruning.mask_scope: not used, because zeros buy no time on this device "
        "(onnxruntime: it has no sparse kernels for float weights)"
    )
    assert (told in plan.notes) == bool(said)
    assert any(told in line for line in events(tmp_path)) == bool(said)


def test_model_that_no_runtime_can_compile_is_told(tmp_path: Path) -> None:
    code = "\n".join(
        [
            (make_target(tmp_path).folder / "model.py").read_text(),
            "class Odd(TinyNet):",
            "    def forward(self, x):",
            "        return super().forward(x) if float(x.sum()) > 0 else super().forward(-x)",
            "def build_odd(): return Odd()",
        ]
    )
    made = make_target(tmp_path, target={"model.factory": "model.py:build_odd"}, code=code)
    with pytest.raises(BuildError, match="onnx"):
        edgeprune.plan(made.folder, output=tmp_path)


def test_a_long_reason_is_cut_for_tables() -> None:
    rung = Rung(runtime="tflite", precision=Precision.INT8)
    assert refuse(rung, 0.0, "first\nsecond").short_reason == "first"
    assert len(refuse(rung, 0.0, "x" * 1000).short_reason) == 160
    assert refuse(rung, 0.0, "").short_reason == ""


def test_a_claim_of_sparse_kernels_that_the_device_does_not_bear_out_is_told(
    tmp_path: Path,
) -> None:
    claims = {"runtimes.onnxruntime.sparse_kernels": ["unstructured"]}
    made = make_target(tmp_path, target={"pruning.sparsities": [0.5, 0.9]}, profile=claims)
    plan = until_quiet(lambda: edgeprune.plan(made.folder, output=tmp_path))
    rungs = ladder(plan)
    for name in ("-unstructured50", "-unstructured90"):
        assert rungs[name].status == "refused"
        assert rungs[name].p50_ms is None
    (note,) = [n for n in plan.notes if "sparse_kernels" in n]
    assert "runtimes.onnxruntime.sparse_kernels of the profile claims 'unstructured'" in note
    assert "95% unstructured zeros" in note
    assert "it has no sparse kernels for float weights" in note
    assert " ".join(note.split()) in " ".join(results.plan(plan, "text").split())
    events = [line for path in tmp_path.glob("*/events.jsonl") for line in path.read_text().splitlines()]
    assert any('"warning"' in line and "sparse_kernels of the profile claims" in line for line in events)


def test_a_refused_mask_rung_says_what_of_the_model_misses_the_runtimes_rule(tmp_path: Path) -> None:
    only_tflite = {
        "runtimes.onnxruntime.int8": None,
        "runtimes.tflite.int8": False,
        "runtimes.tflite.sparse_kernels": ["unstructured"],
    }
    head = {"pruning.sparsities": [0.9], "pruning.ignored": ["conv*"], "pruning.classifier": True}
    made = make_target(tmp_path, target=head, profile=only_tflite)
    plan = until_quiet(lambda: edgeprune.plan(made.folder, output=tmp_path))
    (masked,) = [r for r in plan.rungs if r.rung.masked]
    assert masked.status == "refused"
    assert "it does not end in a mean over height and width" in masked.reason
    # What was measured of micro-models follows.
    assert "95% unstructured zeros" in masked.reason
