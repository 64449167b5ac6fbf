from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from records_for_tests import make_build_result, make_failed_result
from targets_for_tests import make_target

from edgeprune.deployment.inventory import load_device
from edgeprune.errors import InputError
from edgeprune.records.codec import to_json
from edgeprune.records.control import Control
from edgeprune.records.verdict import GateResult, Judgement, Verdict, worst_verdict
from edgeprune.steps.evidence import read_evidence
from edgeprune.steps.inputs import load_profile, load_target
from edgeprune.steps.outcome import BuildInputs, forget_outcome, kept_result
from edgeprune.store.inputs_file import write_inputs


def make_outcome(root: Path, mark: str, *, artifact: bool = True, evidence: bool = True) -> None:
    for name in ("report.html", "summary.json", *(["evidence.zip"] if evidence else [])):
        (root / name).write_text(mark)
    if artifact:
        (root / "artifact").mkdir()
        (root / "artifact" / "model.onnx").write_text(mark)


def files(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file()}


def kept(mark: str) -> dict[str, str]:
    names = ("artifact/model.onnx", "evidence.zip", "report.html", "summary.json")
    return {f"previous/{name}": mark for name in names}


def test_an_outcome_is_kept_aside_in_place_of_the_one_before(tmp_path: Path) -> None:
    for mark in ("first", "second"):
        make_outcome(tmp_path, mark)
        assert forget_outcome(tmp_path) == tmp_path / "previous"
        assert files(tmp_path) == kept(mark)


@pytest.mark.parametrize("evidence", [True, False])
def test_one_without_an_artifact_does_not_replace_one_that_passed(tmp_path: Path, *, evidence: bool) -> None:
    make_outcome(tmp_path, "passed")
    forget_outcome(tmp_path)
    make_outcome(tmp_path, "failed", artifact=False, evidence=evidence)
    (tmp_path / "plan.json").write_text("{}")
    assert forget_outcome(tmp_path) is None
    assert files(tmp_path) == kept("passed")


def test_killed_on_the_way_it_goes_on_with_what_is_left(tmp_path: Path) -> None:
    make_outcome(tmp_path, "passed")
    (tmp_path / "previous.part").mkdir()
    (tmp_path / "evidence.zip").rename(tmp_path / "previous.part" / "evidence.zip")
    assert forget_outcome(tmp_path) == tmp_path / "previous"
    assert files(tmp_path) == kept("passed")


def test_nothing_to_keep(tmp_path: Path) -> None:
    assert forget_outcome(tmp_path) is None
    assert files(tmp_path) == {}


def test_a_folder_without_evidence_says_how_its_last_build_ended(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").touch()
    with pytest.raises(InputError, match="did not come to its end"):
        read_evidence(tmp_path)
    (tmp_path / "report.html").touch()
    with pytest.raises(InputError, match="without a judged candidate"):
        read_evidence(tmp_path)


@pytest.mark.parametrize(
    ("gates", "again"),
    [
        ({"p99": Verdict.INCONCLUSIVE}, True),
        ({"p99": Verdict.INCONCLUSIVE, "classes": Verdict.INCONCLUSIVE}, True),
        ({"p99": Verdict.PASS, "classes": Verdict.INCONCLUSIVE}, False),
        ({"p99": Verdict.PASS, "classes": Verdict.FAIL}, False),
    ],
)
def test_only_what_measuring_may_decide_is_measured_again(
    tmp_path: Path, gates: dict[str, Verdict], *, again: bool
) -> None:
    judgement = Judgement(
        verdict=worst_verdict(gates.values()),
        gates=tuple(
            GateResult(gate=g, verdict=v, measured=1.0, bound=1.0, limit=1.0, unit="%", reason="")
            for g, v in gates.items()
        ),
    )
    result = make_failed_result()
    candidate = replace(result.candidates[-2], judgement=judgement)
    (tmp_path / "summary.json").write_bytes(to_json(replace(result, candidates=(candidate,))))
    measured = tmp_path / candidate.folder / "measure"
    measured.mkdir(parents=True)
    forget_outcome(tmp_path)
    assert measured.is_dir() is not again
    assert measured.with_name("measure-undecided-1").is_dir() is again


def test_a_kept_result_without_the_controls_that_are_asked_for_is_not_enough(tmp_path: Path) -> None:
    made = make_target(tmp_path)
    plain = BuildInputs(
        target=load_target(made.folder), profile=load_profile(made.profile), device=load_device("local"),
        output=made.runs,
    )  # fmt: skip
    both = replace(plain, controls=("random", "scratch"))
    plain.folder.mkdir(parents=True)
    make_outcome(plain.folder, "x")
    result = make_build_result()
    (plain.folder / "summary.json").write_bytes(to_json(result))
    write_inputs(plain.folder, plain.identity())
    assert kept_result(plain) is not None
    assert kept_result(both) is None
    controls = (Control(name="random", how=""), Control(name="scratch", how="", reason="no recipe"))
    (plain.folder / "summary.json").write_bytes(to_json(replace(result, controls=controls)))
    assert kept_result(both) is not None
    assert kept_result(plain) is not None
    # One that failed says why it has none.
    (plain.folder / "summary.json").write_bytes(to_json(make_failed_result()))
    assert kept_result(plain) is not None
    assert kept_result(both) is None
