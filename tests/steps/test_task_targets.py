"""Each example target through the steps of a build: trained, compiled, run by the agent, judged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from compressors import compressor_of
from records_for_tests import make_evidence
from task_targets import TASKS, make_task

from edgeprune.gating.gates import GATES
from edgeprune.graph.groups import ChannelGraph
from edgeprune.records.accuracy import Accuracy
from edgeprune.records.rung import GroupWidth, Limits, PlannedRung, Precision, PruningKind, Rung, RungStatus
from edgeprune.records.verdict import Verdict
from edgeprune.runtimes import RUNTIMES
from edgeprune.steps.assessing import Assessor
from edgeprune.steps.budget import floors_from
from edgeprune.steps.compiling import CompileJob, compile_artifact
from edgeprune.steps.compressing import Compressor
from edgeprune.steps.evaluating import torch_outputs
from edgeprune.steps.sensitivity import SensitivityBench

LEAST = {"scenes": 0.9, "masks": 0.9, "doses": -0.6, "gru": 0.95, "lstm": 0.95, "texts": 0.9, "keywords": 0.95}
"""Quality on validation data of a model that has learned its task: the mean error, where lower is better, negative."""


def _verdict(accuracy: Accuracy, compressor: Compressor) -> Verdict:
    """What the gate says, where this very accuracy was the dense model's."""
    floors = floors_from(compressor.bench.target.spec.accuracy, accuracy)
    judged = GATES.get("accuracy").judge(replace(make_evidence(Limits(), floors), accuracy=accuracy))
    assert judged is not None
    return judged.verdict


@pytest.mark.parametrize(
    ("name", "runtime", "precision"),
    [
        ("scenes", "openvino", Precision.FLOAT32),
        *(
            pytest.param(name, runtime, precision, marks=pytest.mark.slow)
            for name in TASKS
            for runtime in RUNTIMES.names()
            for precision in (Precision.FLOAT32, Precision.INT8)
        ),
    ],
)
def test_trained_compiled_and_judged(name: str, runtime: str, precision: Precision, tmp_path: Path) -> None:
    rung = Rung(runtime=runtime, precision=precision)
    with compressor_of(make_task(name, tmp_path, target={"quantization.calibration_samples": 64})) as compressor:
        bench, model = compressor.bench, compressor.dense_module
        folder = tmp_path / "artifact"
        folder.mkdir()
        artifact = compile_artifact(CompileJob(model, bench.input_shape, bench.calibration), rung, folder)
        found = Assessor(bench).evaluate(rung, model, artifact, folder, tmp_path)
        assert _verdict(found.accuracy, compressor) is Verdict.PASS
    assert found.parity.passed or precision is Precision.INT8, found.parity.detail
    value = found.accuracy.value
    quality = value if found.accuracy.higher_is_better else -value
    assert quality >= LEAST[name] - (0.05 if precision is Precision.INT8 else 0.0)


@pytest.mark.parametrize(
    ("name", "cut"),
    [
        ("keywords", (GroupWidth(group="pointwise.1", before=24, after=16),)),
        ("gru", (GroupWidth(group="recurrent", before=16, after=12), GroupWidth(group="embed", before=12, after=8))),
        pytest.param(
            "texts",
            (GroupWidth(group="bert.bert.encoder.layer.0.intermediate.dense", before=48, after=24),),
            marks=pytest.mark.slow,
        ),
        ("masks", (GroupWidth(group="conv1", before=16, after=8),)),
    ],
)
def test_what_can_be_cut_is_cut_and_recovered(name: str, cut: tuple[GroupWidth, ...], tmp_path: Path) -> None:
    made = make_task(name, tmp_path, target={"pruning.ignored": None, "recovery.learning_rate": 0.003})
    planned = PlannedRung(
        rung=Rung(
            runtime="onnxruntime", precision=Precision.FLOAT32, pruning=PruningKind.STRUCTURED, pruning_ratio=0.5
        ),
        status=RungStatus.PLANNED,
        reason="",
        accuracy_cost=0.0,
        widths=cut,
    )
    with compressor_of(made) as compressor:
        groups = compressor.bench.groups
        assert {w.group for w in cut} <= {g.name for g in groups.groups}
        model = compressor.compressed(planned)
        assert model.parameters < compressor.dense.parameters
        task, data = compressor.bench.task, compressor.bench.data.validation
        outputs = torch_outputs(compressor.load(model), compressor.bench.validation_inputs)
        assert task.quality(outputs, data.labels) >= LEAST[name] - 0.1


def test_sensitivity_is_of_the_targets_own_loss_and_metric(tmp_path: Path) -> None:
    made = make_task("scenes", tmp_path, target={"pruning.ignored": None})
    with compressor_of(made) as compressor:
        found = SensitivityBench(compressor).measure()
    assert found.examples == 96
    assert found.accuracy >= LEAST["scenes"]
    assert [c.group for c in found.curves] == ["stem", "deep"]
    assert all(point.error > 0 for curve in found.curves for point in curve.points)


@pytest.mark.parametrize("criterion", ["taylor", "fisher"])
def test_criteria_that_look_at_data_take_several_outputs_and_labels(criterion: str, tmp_path: Path) -> None:
    keys = {"pruning.ignored": None, "pruning.criterion": criterion, "training.epochs": 0}
    with compressor_of(make_task("scenes", tmp_path, target=keys)) as compressor:
        model, example = compressor.dense_module, compressor.bench.example
        scores = compressor.scorer.channels(model, ChannelGraph(model, example), ["deep"])
    assert scores["deep"].shape == (16,)
    assert bool((scores["deep"] >= 0).all())
    assert len(scores["deep"].unique()) > 1


@pytest.mark.parametrize(
    ("criterion", "refused"),
    [
        ("l2", ()),
        ("taylor", ()),
        pytest.param("geometric_median", (), marks=pytest.mark.slow),
        pytest.param("random", (), marks=pytest.mark.slow),
        # It looks at what reads channels, and only the recurrent layer reads these.
        pytest.param("fisher", ("embed",), marks=pytest.mark.slow),
    ],
)
def test_what_a_criterion_cannot_score_keeps_its_width_and_the_rest_is_cut(
    criterion: str, refused: tuple[str, ...], tmp_path: Path
) -> None:
    keys = {"pruning.ignored": None, "pruning.criterion": criterion, "training.epochs": 0}
    with compressor_of(make_task("gru", tmp_path, target=keys)) as compressor:
        groups = compressor.bench.groups
        names = [g.name for g in groups.groups]
        assert [n for n in ("embed", "recurrent", "hidden") if n not in refused] == names
        assert [g.name for g in groups.refused] == list(refused)
        assert all(f"the criterion '{criterion}' scores none of its layers" in g.reason for g in groups.refused)
        scores = compressor.scorer.channels(
            compressor.dense_module, ChannelGraph(compressor.dense_module, compressor.bench.example), names
        )
    assert [len(scores[g.name]) for g in groups.groups] == [g.width for g in groups.groups]
