from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from targets_for_tests import MadeTarget, make_target, run_until_decided, until_quiet

import edgeprune
from edgeprune.benchmarking import sampling
from edgeprune.benchmarking.validity import Watch
from edgeprune.cli import run
from edgeprune.gating.archive import pack, unpack
from edgeprune.gating.evidence import EVIDENCE, PROFILE, pack_evidence
from edgeprune.records.codec import from_json, to_plain
from edgeprune.records.model_card import ModelCard
from edgeprune.records.result import BuildResult, CandidateStatus
from edgeprune.records.rung import Plan, PruningKind
from edgeprune.records.verdict import Verdict
from edgeprune.steps import looks
from edgeprune.steps.evidence import read_evidence

# Only INT8 with half of the channels is small enough: the size decides, which no noise can change.
SMALL = {"runtimes.onnxruntime.int8": True, "budget.artifact_mb": 0.009}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> MadeTarget:
    """A target that was built in this process with its controls, and passed."""
    made = make_target(tmp_path_factory.mktemp("built"), target={"pruning.ignored": None}, profile=SMALL)
    assert run_until_decided(made.arguments("build", "--quiet", "--controls")) == 0
    return made


@pytest.fixture
def copy(built: MadeTarget, tmp_path: Path) -> MadeTarget:
    """The same in another place, to be changed."""
    shutil.copytree(built.folder.parent, tmp_path / "copy")
    return MadeTarget(tmp_path / "copy" / "tiny", tmp_path / "copy" / "bench-box.toml", tmp_path / "copy" / "runs")


def test_build_leaves_everything_in_the_run_folder(built: MadeTarget) -> None:
    result = from_json(BuildResult, (built.run / "summary.json").read_bytes())
    assert result.verdict is Verdict.PASS
    assert result.chosen is not None
    assert result.chosen.rung.name.startswith("onnxruntime-int8-t1-structured")
    assert result.chosen.rung.pruning is PruningKind.STRUCTURED
    assert result.chosen.judgement is not None
    assert {g.gate for g in result.chosen.judgement.gates} == {"p50", "p99", "size", "accuracy", "worst_class"}
    assert result.chosen.measurement is not None
    assert len(result.chosen.measurement.samples_ns) >= 300
    assert [(w.group, w.before) for w in result.chosen.widths] == [("conv1", 16), ("conv2", 32)]
    assert any(w.after < w.before for w in result.chosen.widths)
    assert all(w.after % 8 == 0 and 2 * w.after >= w.before for w in result.chosen.widths)
    for candidate in (result.dense, result.chosen):
        assert candidate.test is not None
        assert candidate.test.overall > 0.9
        assert candidate.parity is not None
        assert candidate.parity.passed
    manifest = json.loads((built.run / "artifact" / "manifest.json").read_text())
    names = {file["name"] for file in manifest["artifact"]["files"]}
    cards = {"MODEL_CARD.md", "model_card.json"}
    assert {p.name for p in (built.run / "artifact").iterdir()} == {"manifest.json", *names, *cards}
    card = from_json(ModelCard, (built.run / "artifact" / "model_card.json").read_bytes())
    assert read_evidence(built.run).bundle.card == card
    assert card.making is not None
    assert (card.making.criterion, card.making.training_epochs, card.making.recovery_epochs) == ("l2", 2, 1)
    assert {x.layer for x in card.making.layers} == {"conv1", "conv2", "head"}
    assert [(a.split, a.total) for a in card.final.accuracy] == [("train", 96), ("validation", 96), ("test", 64)]
    (reading,) = card.test_readings
    chosen = result.chosen.rung.name
    tested = [result.dense.rung.name, chosen, f"{chosen}-random-control", f"{chosen}-scratch-control"]
    assert [name for name, _ in reading.models] == tested
    assert "The test split was read once" in (built.run / "artifact" / "MODEL_CARD.md").read_text()
    assert manifest["class_names"] == ["nw", "ne", "sw", "se"]
    page = (built.run / "report.html").read_text()
    assert result.chosen.rung.name in page
    assert "whole shapes on the device" in page
    assert all(t in page for t in ("Where the milliseconds go", "Staircases of the groups", "What each group loses"))
    events = [json.loads(line) for line in (built.run / "events.jsonl").read_text().splitlines()]
    stages = {e["stage"] for e in events if e["event"] == "StageFinished"}
    assert {"shape", "sensitivity", "train", "compress", "compile", "evaluate", "baseline", "measure", "test"} <= stages
    assert not (built.run / ".partial").exists() or not list((built.run / ".partial").iterdir())


def test_controls_stand_beside_the_result(built: MadeTarget, capsys: pytest.CaptureFixture[str]) -> None:
    result = from_json(BuildResult, (built.run / "summary.json").read_bytes())
    assert result.chosen is not None
    assert [c.name for c in result.controls] == ["random", "scratch"]
    for control in result.controls:
        assert control.reason == ""
        assert (control.parameters, control.macs) == (result.chosen.parameters, result.chosen.macs)
        assert [a and (a.split, a.total) for a in (control.validation, control.test)] == [
            ("validation", 96), ("test", 64),
        ]  # fmt: skip
        # It is compiled as the result is, and is another model.
        assert control.artifact_digest not in {"", result.chosen.artifact and result.chosen.artifact.digest}
    card = from_json(ModelCard, (built.run / "artifact" / "model_card.json").read_bytes())
    assert card.controls == result.controls
    assert run(built.arguments("build", "--quiet", "--control", "scratch")) == 0
    out = " ".join(capsys.readouterr().out.split())
    page = (built.run / "report.html").read_text()
    for told, row in (("control random: ", "pruned by lot"), ("control scratch: ", "trained from scratch")):
        assert told in out
        assert f'<th scope="row">{row}</th>' in page
    assert run(built.arguments("build", "--control", "scratch", "--explain")) == 2


def test_rungs_that_are_too_large_say_so(built: MadeTarget) -> None:
    result = from_json(BuildResult, (built.run / "summary.json").read_bytes())
    refused = {r.rung.name: r.reason for r in result.plan.rungs if r.status == "refused"}
    full = {f"onnxruntime-{precision}-t1" for precision in ("float32", "float32w16", "int8")}
    assert set(refused) == {*full, "onnxruntime-float32-t1-structured", "onnxruntime-float32w16-t1-structured"}
    # Widths are searched for with half of float32's bytes.
    del refused["onnxruntime-float32-t1-structured"]
    floats = refused.pop("onnxruntime-float32w16-t1-structured")
    # Cut or not: INT8 costs this model nothing that can be told from nothing.
    assert "could cost less" in floats or "even with the narrowest widths: size" in floats
    assert all("MB" in reason for reason in refused.values())
    assert result.plan.costs_measured
    assert all(r.accuracy_cost is not None and r.accuracy_cost < 1.0 for r in result.plan.planned)


def test_second_build_does_nothing_and_prints_the_same(built: MadeTarget, capsys: pytest.CaptureFixture[str]) -> None:
    before = _files(built.run)
    assert run(built.arguments("build", "--format", "json")) == 0
    out, err = capsys.readouterr()
    assert "nothing changed" in err
    result = from_json(BuildResult, (built.run / "summary.json").read_bytes())
    assert json.loads(out) == {**to_plain(result), "exit_code": 0}
    assert run(built.arguments("build", "--quiet")) == 0
    out = capsys.readouterr().out
    assert "PASS on local" in out
    assert str(built.run / "report.html") in out
    assert _files(built.run) == before


def test_second_build_loads_no_heavy_library_and_takes_no_second(built: MadeTarget) -> None:
    code = (
        "import sys; from edgeprune.cli import run; code = run(sys.argv[1:]);"
        "print('code', code, sorted({'torch', 'onnx', 'onnxruntime', 'nncf', 'matplotlib'} & set(sys.modules)))"
    )
    best_s = float("inf")
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [sys.executable, "-c", code, *built.arguments("build")]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == "code 0 []"
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        best_s = min(best_s, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert best_s < 1.0


def test_moved_run_folder_is_still_the_same_build(copy: MadeTarget) -> None:
    result = edgeprune.build(copy.folder, output=copy.runs)
    assert result.folder == str(copy.run)


def test_explain_names_what_changed(copy: MadeTarget, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(copy.arguments("build", "--explain")) == 0
    assert capsys.readouterr().out == "nothing changed since the last build\n"
    _append(copy.folder / "model.py", "# a comment\n")
    _append(copy.profile, 'description = "another"\n')
    before = _files(copy.run)
    assert run(copy.arguments("build", "--explain", "--format", "json")) == 0
    assert json.loads(capsys.readouterr().out)["changes"] == ["profile: changed", "target model.py: changed"]
    assert run(["build", str(copy.folder), "--output", str(copy.runs / "else"), "--explain"]) == 0
    assert "no finished build in" in capsys.readouterr().out
    assert _files(copy.run) == before


def test_other_budget_repeats_the_measurement_alone(copy: MadeTarget, capsys: pytest.CaptureFixture[str]) -> None:
    copy.profile.write_text(copy.profile.read_text().replace("p50_ms = 500.0", "p50_ms = 400.0"))
    earlier = (copy.run / "events.jsonl").read_text()
    assert run_until_decided(copy.arguments("build", "--quiet")) == 0
    events = [json.loads(line) for line in (copy.run / "events.jsonl").read_text()[len(earlier) :].splitlines()]
    redone = {e["stage"] for e in events if e["event"] == "StageFinished" and not e["cached"]}
    # A look at a shape that was disturbed is not kept.
    allowed = {"shape"} if "the device was disturbed" in earlier else set()
    assert redone - allowed == {"sample", "measure"}


def test_damaged_summary_is_built_again_from_the_kept_steps(copy: MadeTarget) -> None:
    path = copy.run / "summary.json"
    path.write_bytes(path.read_bytes()[:1000])
    assert run_until_decided(copy.arguments("build", "--quiet")) == 0
    assert from_json(BuildResult, path.read_bytes()).verdict is Verdict.PASS


def test_failed_build_leaves_no_artifact_of_the_build_before(
    copy: MadeTarget, capsys: pytest.CaptureFixture[str]
) -> None:
    # Nothing is trained: no candidate reaches the floor.
    target = copy.folder / "target.toml"
    text = target.read_text().replace("training.epochs = 2", "training.epochs = 0")
    target.write_text(text.replace("recovery.epochs = 1", "recovery.epochs = 0") + "accuracy.min_accuracy = 0.9\n")
    assert run_until_decided(copy.arguments("build", "--quiet", "--controls")) == 3
    out = capsys.readouterr().out
    assert "verdict   FAIL: no candidate passed" in out
    assert "control   scratch: none: no candidate passed" in out
    assert "accuracy" in out
    assert not (copy.run / "artifact").exists()
    assert run(["gate", str(copy.run)]) == 7
    result = edgeprune.build(copy.folder, output=copy.runs)
    assert (result.verdict, result.exit_code, result.chosen) == (Verdict.FAIL, 3, None)
    assert result.candidates[-1].status is CandidateStatus.REJECTED
    assert run(copy.arguments("build", "--format", "json", "--quiet")) == 3


def test_a_budget_that_nothing_fits_leaves_a_plan_a_report_and_the_outcome_before(
    copy: MadeTarget, capsys: pytest.CaptureFixture[str]
) -> None:
    copy.profile.write_text(copy.profile.read_text().replace("artifact_mb = 0.009", "artifact_mb = 0.0001"))
    assert run_until_decided(copy.arguments("build")) == 3
    err = capsys.readouterr().err
    assert f"is kept in {copy.run / 'previous'}" in err
    assert err.rstrip().endswith(str(copy.run / "report.html"))
    assert from_json(Plan, (copy.run / "plan.json").read_bytes()).planned == ()
    assert "no rung fits the bench-box budget on local" in (copy.run / "report.html").read_text()
    assert run(["gate", str(copy.run)]) == 2
    assert "ended without a judged candidate" in capsys.readouterr().err
    assert run(["gate", str(copy.run / "previous")]) == 0


def test_a_disturbed_device_ends_the_climb_and_its_measurement_is_not_kept(
    copy: MadeTarget, capsys: pytest.CaptureFixture[str]
) -> None:
    # With this size several rungs fit; the baseline is kept from before.
    copy.profile.write_text(copy.profile.read_text().replace("artifact_mb = 0.009", "artifact_mb = 1.0"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Watch, "disturbance", lambda *_: "a busy neighbour")
        # This neighbour stays, however long it is waited for.
        patch.setattr(looks, "_BACK_OFF_S", 0.0)
        patch.setattr(sampling, "LONGEST_BACK_OFF_S", 0.0)
        assert run(copy.arguments("build")) == 9
    assert "stop what runs on the device and build again" in capsys.readouterr().err
    result = from_json(BuildResult, (copy.run / "summary.json").read_bytes())
    assert len(result.plan.planned) > 1
    (candidate,) = result.candidates
    assert (copy.run / candidate.folder / "compile").is_dir()
    assert not (copy.run / candidate.folder / "measure").exists()
    assert run(["gate", str(copy.run)]) == 9
    assert run_until_decided(copy.arguments("build", "--quiet")) == 0


def test_undecided_build_is_measured_again(tmp_path: Path) -> None:
    # No 3,000 runs can show a p99 at this confidence.
    few = {"measurement.processes": 3, "measurement.looks": 1}
    made = make_target(tmp_path, profile={"measurement.confidence": 0.999999999999999, **few})
    assert run_until_decided(made.arguments("build", "--quiet")) == 8
    earlier = len((made.run / "events.jsonl").read_text().splitlines())
    assert run_until_decided(made.arguments("build", "--quiet")) == 8
    lines = (made.run / "events.jsonl").read_text().splitlines()[earlier:]
    finished = [e for e in map(json.loads, lines) if e["event"] == "StageFinished"]
    assert {e["stage"] for e in finished if not e["cached"]} == {"sample", "measure"}


def test_gate_says_the_same_from_the_raw_samples_alone(
    built: MadeTarget, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evidence = tmp_path / "evidence.zip"
    shutil.copy(built.run / "evidence.zip", evidence)
    junit, markdown = tmp_path / "out" / "gate.xml", tmp_path / "gate.md"
    assert run(["gate", str(evidence), "--junit", str(junit), "--markdown", str(markdown), "--format", "json"]) == 0
    said = json.loads(capsys.readouterr().out)
    result = from_json(BuildResult, (built.run / "summary.json").read_bytes())
    assert result.chosen is not None
    assert result.chosen.judgement is not None
    assert said == {"schema": 1, **to_plain(result.chosen.judgement), "exit_code": 0}
    assert edgeprune.gate(evidence) == result.chosen.judgement
    assert {case.get("name") for case in ET.parse(junit).iter("testcase")} == {  # noqa: S314 - our own
        "p50", "p99", "size", "accuracy", "worst_class",
    }  # fmt: skip
    assert "PASS" in markdown.read_text()
    assert run(["gate", str(built.run)]) == 0
    assert "verdict: PASS" in capsys.readouterr().out


def test_gate_fails_a_tighter_limit(built: MadeTarget, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = read_evidence(built.run).bundle
    profile = bundle.profile.model_copy(update={"budget": bundle.profile.budget.model_copy(update={"p50_ms": 1e-6})})
    limits = replace(bundle.evidence.limits, p50_ms=1e-6)
    tighter = replace(bundle, profile=profile, evidence=replace(bundle.evidence, limits=limits))
    (tmp_path / "evidence.zip").write_bytes(pack_evidence(tighter))
    assert run(["gate", str(tmp_path), "--junit", str(tmp_path / "gate.xml"), "--format", "json"]) == 7
    said = json.loads(capsys.readouterr().out)
    assert said["verdict"] == "FAIL"
    assert [g["gate"] for g in said["gates"] if g["verdict"] == "FAIL"] == ["p50"]
    assert len(list(ET.parse(tmp_path / "gate.xml").iter("failure"))) == 1  # noqa: S314 - our own


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda content: content.replace(b'"artifact_bytes":', b'"artifact_bytes": ', 1),
            "changed after it was written",
        ),
        (lambda content: content[: len(content) // 2], "damaged"),
        (
            lambda content: _edited(content, EVIDENCE, b'"artifact_bytes":', b'"artifact_bytes":1'),
            "not those of the profile",
        ),
        (lambda content: _edited(content, PROFILE, b'"p50_ms": 500.0', b'"p50_ms": 900.0'), "not those of the profile"),
        (lambda content: None, "no such file"),
    ],
    ids=["edited", "cut", "limit edited and sums made anew", "budget edited and sums made anew", "missing"],
)
def test_gate_refuses_evidence_that_is_not_what_was_written(
    built: MadeTarget,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[bytes], bytes | None],
    message: str,
) -> None:
    changed = change((built.run / "evidence.zip").read_bytes())
    if changed is not None:
        (tmp_path / "evidence.zip").write_bytes(changed)
    assert run(["gate", str(tmp_path), "--format", "json"]) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert json.loads(out)["error"]["exit_code"] == 2


def _edited(content: bytes, member: str, before: bytes, after: bytes) -> bytes:
    """By somebody who knows how the archive is made."""
    members = unpack(content, where="evidence.zip")
    assert before in members[member]
    return pack({**members, member: members[member].replace(before, after, 1)})


def test_verify_says_that_a_build_left_its_evidence_whole(
    built: MadeTarget, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(built.run / "evidence.zip", tmp_path)
    assert run(["gate", "verify", str(tmp_path / "evidence.zip"), "--format", "json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["intact"], said["judgement"]["verdict"], said["signer"]) == (True, "PASS", None)


def test_a_build_that_passed_becomes_a_release_and_the_next_one_is_held_against_it(
    built: MadeTarget, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    releases = ["--releases", str(tmp_path / "releases")]
    assert run(["release", "promote", str(built.run), "--name", "1.0", *releases]) == 0
    shipped = tmp_path / "releases" / "current" / "artifact"
    assert {p.name for p in shipped.iterdir()} == {p.name for p in (built.run / "artifact").iterdir()}
    capsys.readouterr()
    compared = ["gate", str(built.run), "--baseline", "current", "--max-regression", "99%", *releases]
    assert run([*compared, "--format", "json"]) in {0, 8}
    gates = {g["gate"]: g for g in json.loads(capsys.readouterr().out)["gates"]}
    assert gates["regression"]["measured"] == 1.0


def test_api_returns_what_the_command_prints(built: MadeTarget, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(built.arguments("build", "--format", "json", "--quiet")) == 0
    printed = json.loads(capsys.readouterr().out)
    target, profile = edgeprune.load_target(built.folder), edgeprune.load_profile(built.profile)
    assert {**to_plain(edgeprune.build(target, profile, output=built.runs)), "exit_code": 0} == printed
    assert run(built.arguments("plan", "--format", "json", "--quiet")) == 0
    planned = json.loads(capsys.readouterr().out)
    assert {"schema": 1, "no": None, **to_plain(edgeprune.plan(target, profile, output=built.runs))} == planned
    assert run(built.arguments("build", "--dry-run", "--format", "json", "--quiet")) == 0
    assert json.loads(capsys.readouterr().out) == planned


def test_bench_measures_the_artifact_and_a_bare_file(built: MadeTarget, capsys: pytest.CaptureFixture[str]) -> None:
    artifact = built.run / "artifact"
    arguments = ["bench", "--runs", "300", "--percentile", "50", "--percentile", "99.5", "--quiet", "--format", "json"]
    assert run_until_decided([*arguments, str(artifact), "--p50-ms", "500"]) == 0
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [p["percent"] for p in said["percentiles"]] == [50.0, 99.5]
    assert sum(len(b["samples_ns"]) for b in said["measurement"]["blocks"]) >= 300
    assert said["measurement"]["precision"] == "int8"
    assert said["judgement"]["verdict"] == "PASS"
    (file,) = artifact.glob("*.onnx")
    result = until_quiet(lambda: edgeprune.bench(file))
    assert result.judgement.gates == ()
    assert result.measurement.runtime == "onnxruntime"
    assert [p.percent for p in result.percentiles] == [50.0, 90.0, 99.0, 99.9]
    assert run_until_decided(["bench", str(file), "--p50-ms", "0.0000001", "--quiet"]) == 7
    assert "p50" in capsys.readouterr().out


def test_bench_refuses_an_artifact_that_was_changed(copy: MadeTarget, capsys: pytest.CaptureFixture[str]) -> None:
    (file,) = (copy.run / "artifact").glob("*.onnx")
    _append(file, "x")
    assert run(["bench", str(copy.run)]) == 2
    assert f"did you mean {copy.run / 'artifact'}?" in capsys.readouterr().err
    assert run(["bench", str(copy.run / "artifact")]) == 2
    assert "sha256" in capsys.readouterr().err
    manifest = copy.run / "artifact" / "manifest.json"
    manifest.write_text(manifest.read_text()[:100])
    assert run(["bench", str(copy.run / "artifact")]) == 2
    assert "manifest.json: damaged" in capsys.readouterr().err


def _files(folder: Path) -> dict[str, tuple[int, int]]:
    """(inode, time of change) of every file."""
    found = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            found[str(path.relative_to(folder))] = (path.stat().st_ino, path.stat().st_mtime_ns)
    return found


def _append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)
