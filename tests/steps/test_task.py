"""What a target's outputs are judged by: which metric and floors go together, and what is refused before any work."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from records_for_tests import make_accuracy, make_build_result, make_evidence
from targets_for_tests import make_target
from task_targets import DOSES, MASKS, SCENES, TASKS, make_task
from torch import nn

from edgeprune.cli import run
from edgeprune.data.splits import Split
from edgeprune.errors import BuildError, InputError
from edgeprune.gating.gates import GATES
from edgeprune.records.accuracy import Accuracy, Score
from edgeprune.records.artifact import Parity
from edgeprune.records.codec import from_json, to_json
from edgeprune.records.rung import Limits, Precision
from edgeprune.records.verdict import Floors, Verdict
from edgeprune.reporting.html import render_html
from edgeprune.schema.floors import AccuracyFloors
from edgeprune.steps.budget import floors_from
from edgeprune.steps.evaluating import QualityOn, agreement_of, noise_of, parity_of
from edgeprune.steps.inputs import load_target
from edgeprune.steps.task import classification, task_of

SCORE = Score(metric="mean_iou", value=0.8, error=0.01, examples=50, higher_is_better=True, is_share=True)
ERROR = replace(SCORE, metric="mean_absolute_error", value=2.0, higher_is_better=False, is_share=False)


def judged_by(score: Score) -> Accuracy:
    return Accuracy(split="validation", score=score)


@pytest.mark.parametrize("name", TASKS)
def test_every_example_target_passes_the_check(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = make_task(name, tmp_path)
    assert run(["target", "check", str(made.folder)]) == 0
    assert f"judged by: {TASKS[name][1].get('task.metric', 'accuracy')}" in capsys.readouterr().out


FLAT = {"accuracy.min_class_recall": None}


@pytest.mark.parametrize(
    ("name", "keys", "message"),
    [
        ("masks", {"task.metric": None}, "task.metric: accuracy needs class_names and labels [examples] of integers"),
        ("masks", {"task.metric": "mean_io"}, "task.metric: unknown metric 'mean_io'; did you mean 'mean_iou'?"),
        ("masks", {"task.metric": "model.py:miou"}, "higher_is_better = true or false"),
        ("masks", {"task.higher_is_better": True}, "no higher_is_better: the metric 'mean_iou' knows it"),
        ("masks", {"accuracy.min_class_recall": 0.5}, "accuracy.min_class_recall: recall is of classes"),
        ("masks", {"accuracy.max_worsening": 0.1}, "accuracy.max_worsening: mean_iou is a share; say"),
        ("masks", {"accuracy.min_accuracy": 0.5}, "accuracy.min_accuracy: the metric is mean_iou; say"),
        ("masks", {"training.loss": "mse_loss"}, "training.loss: mse_loss does not take outputs (2, 2, 12, 12)"),
        ("doses", {"recovery.distillation_weight": 0.5}, "recovery.distillation_weight: expected 0 or nothing"),
        (
            "doses",
            {"teacher.factory": "model.py:build_model", "teacher.weight": 0.5},
            "teacher.weight: expected 0 or nothing, got 0.5",
        ),
        ("doses", {"accuracy.max_drop_points": 1.0}, "accuracy.max_drop_points: mean_absolute_error is no share"),
        (
            "doses",
            {"accuracy.max_worsening": None, "accuracy.worst_value": None},
            "accuracy.max_worsening: expected this or accuracy.worst_value",
        ),
        (
            "masks",
            {"accuracy.robustness.min_accuracy": 0.5},
            "accuracy.robustness.min_accuracy: parts are judged by mean_iou; say max_drop_points or worst_value",
        ),
        ("masks", {"accuracy.robustness.max_worsening": 0.1}, "accuracy.robustness.max_worsening: parts are judged by"),
        (
            "doses",
            {"accuracy.slices.old.max_drop_points": 1.0},
            "accuracy.slices.old.max_drop_points: parts are",
        ),
        ("doses", {"accuracy.robustness.worst_value": 1.0}, "inputs (10,) are no images"),
        (
            "masks",
            {f"accuracy.robustness.{key}": 0 for key in ("noise", "blur_px", "brightness")}
            | {"accuracy.robustness.worst_value": 0.5},
            "there is no corruption or no example",
        ),
        ("masks", {"accuracy.robustness.shift_px": 2}, "accuracy.robustness.shift_px: expected 0 or nothing"),
        (
            "keywords",
            {"accuracy.robustness.worst_value": 0.5},
            "parts are judged by right answers; say max_drop",
        ),
        ("doses", {"quantization.tolerated_drop_points": 2.0}, "mean_absolute_error is no share to lose points of"),
        ("masks", {"quantization.tolerated_worsening": 0.1}, "tolerated_worsening: mean_iou is a share; say"),
        ("doses", {"training.loss": None}, "training.loss: cross_entropy takes class indices, the labels are floats"),
        ("doses", {"preprocessing.dtype": "int64"}, "preprocessing.dtype: expected integer inputs"),
        ("scenes", {"training.loss": "mse_loss"}, "mse_loss takes one output and one array of labels, got outputs ("),
        ("keywords", {"accuracy.worst_value": 0.5}, "accuracy.worst_value: the metric is accuracy; say"),
        (
            "scenes",
            {"task.metric": "mean_absolute_error", "task.higher_is_better": None},
            "task.metric: metric 'mean_absolute_error': expected one output and one array of labels, got 2 outputs",
        ),
    ],
)
def test_what_does_not_fit_is_refused_before_any_work(
    name: str, keys: Mapping[str, object], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = make_task(name, tmp_path, target=keys)
    assert run(["target", "check", str(made.folder)]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert "target.toml" in err


@pytest.mark.parametrize(
    ("code", "old", "new", "keys", "message"),
    [
        (DOSES, "nn.Linear(24, 1)", "nn.Linear(24, 2)", {}, "mse_loss does not take outputs (2, 2) and labels (2, 1)"),
        (DOSES, "[:, np.newaxis]", "", {}, "mse_loss does not take outputs (2, 1) and labels (2,): UserWarning"),
        (
            MASKS,
            "return self.head(",
            "return 0, self.head(",
            {},
            "model.factory: expected a model that returns a tensor",
        ),
        (
            MASKS,
            "return Segmenter()",
            "return nn.Sequential(Segmenter(), nn.Flatten(0))",
            {},
            "expected the examples first in each of the model's outputs, 2 here, got shape (576,)",
        ),
        (MASKS, "return self.head(", "return torch.sum(", {}, "expected outputs with the examples first, got a single"),
        (SCENES, "& near", "", {}, ""),
        (SCENES, "& near", "& near.any()", {}, ""),
        (SCENES, "& near", ".mean()", {}, "to return one number an example, shape (2,), got shape ()"),
        (SCENES, "return (scores", "return np.mean(scores", {}, "model.py:hits raised"),
        (SCENES, "return functional", "return [functional", {}, "cannot be imported"),
        (
            SCENES,
            "kind) + 10",
            "kind, reduction='none') + 10",
            {},
            "expected model.py:loss to return one number, got shape",
        ),
        (SCENES, "return functional.", "functional.", {}, "expected model.py:loss to return one number, got NoneType"),
    ],
)
def test_code_that_does_not_fit_is_told(
    code: str,
    old: str,
    new: str,
    keys: Mapping[str, object],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert old in code
    name = next(n for n, (text, _) in TASKS.items() if text == code)
    made = make_target(tmp_path, target={**TASKS[name][1], **keys}, code=code.replace(old, new))
    assert run(["target", "check", str(made.folder)]) == (2 if message else 0)
    assert message in capsys.readouterr().err


def test_a_metric_of_ones_own_is_asked_for_each_example(tmp_path: Path) -> None:
    target = load_target(make_task("scenes", tmp_path).folder)
    task = task_of(target, target.load_data())
    scores, centres = np.eye(2)[[0, 1, 1]], np.zeros((3, 2))
    labels = (np.array([0, 0, 1]), np.array([[0.0, 0.0], [0.0, 0.0], [0.5, 0.0]]))
    # Right; of another kind; six pixels off.
    found = task.accuracy_of((scores, centres), Split(np.zeros((3, 1)), labels), "validation")
    assert found.score is not None
    assert found.value == pytest.approx(1 / 3)
    assert found.score.error == pytest.approx(np.std([1, 0, 0], ddof=1) / np.sqrt(3))
    assert (found.metric, found.unit, found.confusion) == ("model.py:hits", "", ())
    with pytest.raises(BuildError, match="NaN or infinity in 1 values"):
        task.accuracy_of((scores, np.full((3, 2), [0.0, np.nan])[:1]), Split(np.zeros((3, 1)), labels), "test")
    with pytest.raises(InputError, match=r"one number an example, shape \(1,\), got shape \(3,\)"):
        task.values((scores, centres), (labels[0][:1], labels[1][:1]))


def test_a_classifier_keeps_its_confusion_matrix_beside_another_metric() -> None:
    task = replace(classification(("a", "b")), name="model.py:recall")
    found = task.accuracy_of(np.eye(2)[[0, 1, 1, 1]], Split(np.zeros((4, 1)), np.array([0, 0, 1, 1])), "validation")
    assert found.confusion == ((1, 1), (0, 2))
    assert found.metric == "model.py:recall"
    assert from_json(Accuracy, to_json(found)) == found


def test_the_best_epoch_is_the_one_with_the_least_error(tmp_path: Path) -> None:
    target = load_target(make_task("doses", tmp_path).folder)
    task = task_of(target, target.load_data())
    quality = QualityOn(task, np.ones((2, 1), np.float32), np.array([[1.0], [2.0]]))
    near, far = nn.Linear(1, 1), nn.Linear(1, 1)
    for layer, value in ((near, 1.5), (far, 3.0)):
        nn.init.zeros_(layer.weight)
        nn.init.constant_(layer.bias, value)
    assert quality(near) == -0.5 > quality(far) == -1.5
    assert quality.told(quality(near)) == "mean_absolute_error 0.5"


@pytest.mark.parametrize(
    ("score", "floors", "floor"),
    [
        (SCORE, AccuracyFloors(), 0.79),
        (SCORE, AccuracyFloors(max_drop_points=5.0, worst_value=0.6), 0.75),
        (SCORE, AccuracyFloors(max_drop_points=5.0, worst_value=0.78), 0.78),
        (ERROR, AccuracyFloors(max_worsening=0.5), 2.5),
        (ERROR, AccuracyFloors(max_worsening=0.5, worst_value=2.2), 2.2),
        (ERROR, AccuracyFloors(worst_value=3.0), 3.0),
    ],
)
def test_the_stricter_floor_of_a_metric_holds(score: Score, floors: AccuracyFloors, floor: float) -> None:
    found = floors_from(floors, judged_by(score))
    assert found.metric == pytest.approx(floor)
    assert found.accuracy is None


def test_floors_of_a_classifier_are_what_they_were() -> None:
    found = floors_from(AccuracyFloors(), make_accuracy())
    assert (found.accuracy, found.metric) == (pytest.approx(0.92), None)


@pytest.mark.parametrize(
    ("score", "floor", "verdict"),
    [
        (SCORE, 0.8, Verdict.PASS),
        (SCORE, 0.8 + 1e-12, Verdict.PASS),
        (SCORE, 0.81, Verdict.FAIL),
        (ERROR, 2.0, Verdict.PASS),
        (ERROR, 1.9, Verdict.FAIL),
        (ERROR, 2.1, Verdict.PASS),
        (replace(ERROR, examples=0), 2.1, Verdict.INCONCLUSIVE),
        (None, 2.1, Verdict.INCONCLUSIVE),
    ],
)
def test_the_gate_holds_a_metric_to_its_floor(score: Score | None, floor: float, verdict: Verdict) -> None:
    accuracy = judged_by(score) if score else None
    evidence = replace(make_evidence(Limits(), Floors(metric=floor)), accuracy=accuracy)
    found = GATES.get("accuracy").judge(evidence)
    assert found is not None
    assert found.verdict is verdict
    if verdict is not Verdict.INCONCLUSIVE and score is not None:
        assert found.measured == pytest.approx(100 * score.value if score.is_share else score.value)
        assert found.unit == ("%" if score.is_share else "")


def test_each_output_is_compared_by_itself() -> None:
    generator = np.random.default_rng(0)
    large, small = 1000 * generator.normal(size=(50, 3)), generator.normal(size=(50, 2, 2))
    wrong = small + 0.01

    def passed(precision: Precision, second: np.ndarray) -> Parity:
        return parity_of((large, second), (large, small), precision, classifies=False)

    assert passed(Precision.FLOAT32, small).passed
    # Beside the large output's values a hundredth would be nothing.
    assert not passed(Precision.FLOAT32, wrong).passed
    # Weights of 16 bits are rounded, and compute in float32 all the same.
    assert passed(Precision.FLOAT32_W16, wrong).passed
    assert not passed(Precision.FLOAT32_W16, small + 0.2).passed
    assert not passed(Precision.FLOAT32_W16, small * np.nan).passed
    assert passed(Precision.INT8, wrong).passed
    assert not passed(Precision.INT8, small + 0.2).passed
    assert passed(Precision.INT8, wrong).top1_agreement is None


def test_noise_is_a_share_of_what_outputs_vary_by() -> None:
    reference = np.array([[-1.0], [1.0]])
    assert noise_of(reference + 0.1, reference) == pytest.approx(0.1)
    assert noise_of(10 * (reference + 0.1) + 7, 10 * reference + 7) == pytest.approx(0.1)
    assert noise_of(np.full((2, 1), 5.5), np.full((2, 1), 5.0)) == pytest.approx(0.1)
    assert agreement_of(np.eye(2), np.eye(2)[::-1]) == 0.0


def _told_by(dense: Score, chosen: Score) -> str:
    result = make_build_result()
    assert result.chosen is not None
    made = replace(
        result,
        dense=replace(result.dense, validation=judged_by(dense), test=judged_by(dense)),
        chosen=replace(result.chosen, validation=judged_by(chosen), test=judged_by(chosen)),
        candidates=tuple(replace(c, validation=judged_by(chosen), test=None) for c in result.candidates),
    )
    return " ".join(re.sub(r"<[^>]+>", " ", render_html(made)).split())


def test_a_report_tells_the_metric_in_its_own_unit_and_direction() -> None:
    page = _told_by(ERROR, replace(ERROR, value=2.25))
    assert "+0.25 mean_absolute_error 2 to 2.25 on validation data; lower is better" in page
    assert "mean_absolute_error, validation 2 2.25 +0.25" in page
    assert "validation mean_absolute_error" in page
    share = _told_by(SCORE, replace(SCORE, value=0.79))
    assert "points of mean_iou 80.00% to 79.00% on validation data" in share
