from __future__ import annotations

import json
from dataclasses import replace

import pytest
from records_for_tests import make_breakdown, make_build_result, make_failed_result, make_judgement, make_plan

from edgeprune.cli.render import results
from edgeprune.records.codec import to_plain
from edgeprune.records.rung import Limits, Prediction, RungStatus
from edgeprune.records.verdict import Verdict
from edgeprune.reporting.plan_rows import plan_rows


def test_build_shows_dense_and_chosen_side_by_side() -> None:
    text = results.build(make_build_result(), "text")
    assert "verdict   PASS on box-7, after" in text
    assert "artifact  /runs/door/artifact" in text
    assert "report    /runs/door/report.html" in text
    assert "dense (fastest)" in " ".join(text.split())
    assert max(len(line) for line in text.splitlines()) <= 118


def test_failed_build_tells_why_of_every_candidate() -> None:
    result = make_failed_result()
    text = results.build(result, "text")
    assert "verdict   FAIL: no candidate passed on box-7" in text
    for candidate in result.candidates:
        assert candidate.reason in text
    assert "/artifact" not in text


def test_json_is_the_record_and_the_exit_code() -> None:
    for result, code in (
        (make_build_result(), 0),
        (make_failed_result(), 3),
        (replace(make_failed_result(), verdict=Verdict.INCONCLUSIVE), 8),
        (replace(make_failed_result(), verdict=Verdict.INVALID), 9),
    ):
        assert json.loads(results.build(result, "json")) == {**to_plain(result), "exit_code": code}


def test_plan_lists_every_rung_with_its_reason() -> None:
    plan = make_plan()
    text = " ".join(results.plan(plan, "text").split())
    assert "budget: p50 2.60 ms, p99 3.40 ms" in text
    assert "note: probed sparse kernels: none" in text
    assert json.loads(results.plan(plan, "json")) == {"schema": 1, **to_plain(plan), "no": None}


def test_a_no_says_the_same_as_text_and_as_json() -> None:
    best = make_plan().rungs[3]
    best = replace(best, status=RungStatus.REFUSED, breakdown=make_breakdown(measured_ms=1.4))
    plan = replace(make_plan(), rungs=(best,), limits=Limits(p50_ms=1.0), not_asked=("tflite-float32-t1",))
    no = json.loads(results.plan(plan, "json"))["no"]
    assert no["message"] == results.plan(plan, "text").splitlines()[-1]
    assert (no["best_rung"], no["best_p50_ms"], no["best_p99_ms"]) == (best.rung.name, 1.4, 1.7)
    assert no["least_feasible_p50_ms"] == pytest.approx(1.4 / 0.98)
    assert no["limited_by"]["operators"][0]["layer"] == "layer0.0.conv1"
    assert no["not_asked"] == ["tflite-float32-t1"]


def test_what_is_only_predicted_stands_after_a_tilde() -> None:
    plan = make_plan()
    predicted = Prediction(p50_ms=1.3, p99_ms=1.9, memory_bytes=99_000_000, artifact_bytes=170_000)
    fallback = replace(
        plan.rungs[3], p50_ms=None, p99_ms=None, peak_bytes=None, artifact_bytes=None, predicted=predicted
    )
    (row,) = plan_rows(replace(plan, rungs=(fallback,)))
    assert (row.p50, row.p99, row.memory, row.size) == ("~1.30 ms", "~1.90 ms", "~99.0 MB", "~0.170 MB")
    told = json.loads(results.plan(replace(plan, rungs=(fallback,)), "json"))["rungs"][0]["predicted"]
    assert told == to_plain(predicted)


def test_memory_is_that_of_which_the_budget_speaks() -> None:
    plan = make_plan()
    rung = replace(plan.rungs[1], peak_bytes=106_000_000, base_bytes=100_000_000)
    of_model = replace(plan, rungs=(rung,), limits=Limits(p50_ms=2.6, memory_bytes=7_000_000, memory_of="model"))
    assert [row.memory for row in plan_rows(of_model)] == ["6.00 MB"]
    assert "memory (model)" in " ".join(results.plan(of_model, "text").split())
    of_process = replace(of_model, limits=Limits(p50_ms=2.6))
    assert [row.memory for row in plan_rows(of_process)] == ["106 MB"]


def test_a_plan_is_read_at_a_hundred_columns() -> None:
    plan = make_plan()
    long = replace(plan.rungs[-1].rung, runtime="onnxruntime", threads=16)
    rungs = (replace(plan.rungs[2], p50_ms=None), replace(plan.rungs[-1], rung=long, reason="because " * 50))
    text = results.plan(replace(plan, rungs=(*plan.rungs, *rungs), notes=("word " * 60,)), "text")
    assert max(map(len, text.splitlines())) <= 100
    found = " ".join(text.split())
    for shown in ("2.40 ms", "104 MB", "0.320 MB", "3.000", "~2.05 ms", "widths at knees: 8, 16, 24, 32, 48"):
        assert shown in found


def test_brackets_in_a_reason_are_no_markup() -> None:
    plan = make_plan()
    odd = replace(plan.rungs[0], reason="[/tmp] [bold]x")
    text = results.plan(replace(plan, rungs=(odd,)), "text")
    assert "[/tmp]" in text
    assert "[bold]x" in text


def test_gate_shows_numbers_and_verdict() -> None:
    judgement = make_judgement()
    text = results.gate(judgement, "text")
    for found in judgement.gates:
        assert found.gate in text
    assert text.endswith(f"verdict: {judgement.verdict}")


def test_changes() -> None:
    assert results.changes((), "text") == "nothing changed since the last build"
    assert results.changes(("profile: changed",), "text") == "profile: changed"
    assert json.loads(results.changes((), "json")) == {"schema": 1, "changes": []}
