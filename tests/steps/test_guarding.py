"""Slices, the robustness set and each example's answer, from the data factory to the gates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from compressors import compressor, compressor_of
from records_for_tests import make_build_result
from targets_for_tests import MODEL_CODE, make_target
from task_targets import MASKS, SCENES, TASKS

from edgeprune.data.splits import Split
from edgeprune.errors import BuildError, InputError
from edgeprune.gating.gates import GATES
from edgeprune.gating.judge import judge
from edgeprune.records.accuracy import Accuracy
from edgeprune.records.changes import AnswerChanges
from edgeprune.records.rung import PlannedRung, Precision, Rung, RungStatus
from edgeprune.records.shares import Share
from edgeprune.records.verdict import Verdict
from edgeprune.steps.answers import Answers, ScoredAnswers, answers_of, load_answers, save_answers
from edgeprune.steps.candidates import CandidateMaker
from edgeprune.steps.changes import changes_of
from edgeprune.steps.guarding import (
    check_guards,
    with_robustness,
)
from edgeprune.steps.inputs import Target, load_target
from edgeprune.steps.task import classification, task_of

# Every fourth example, by index, and the left half, by mask.
SLICED = MODEL_CODE.replace(
    "return Split(images, labels)",
    'return Split(images, labels, slices={"ne": np.arange(1, count, 4), "left": labels % 2 == 0})',
)
FLOORS: Mapping[str, object] = {
    "accuracy.slices.left.max_drop_points": 5.0,
    "accuracy.slices.ne.min_accuracy": 0.5,
    "accuracy.robustness.max_drop_points": 20.0,
    "accuracy.robustness.examples": 40,
    "accuracy.max_class_drop_points": 10.0,
}
NOTHING = Accuracy(split="validation")
CLASSES = classification(("nw", "ne", "sw", "se"))
DENSE = PlannedRung(
    rung=Rung(runtime="onnxruntime", precision=Precision.FLOAT32),
    status=RungStatus.PLANNED,
    reason="dense",
    accuracy_cost=0.0,
)


def target(folder: Path, changes: Mapping[str, object], code: str = SLICED) -> Target:
    return load_target(make_target(folder, target=changes, code=code).folder)


def test_right_answers_on_slices_by_hand() -> None:
    outputs = np.eye(3, dtype=np.float32)[[0, 1, 2, 0, 0]]
    labels = np.array([0, 1, 2, 1, 2])
    slices = {"late": np.array([3, 4]), "first": np.array([True, True, False, False, True])}
    split = Split(np.zeros((5, 2)), labels, slices=slices)
    assert classification(("a", "b", "c")).accuracy_of(outputs, split, "validation").slices == (
        Share(name="first", correct=2, total=3),
        Share(name="late", correct=0, total=2),
    )


def test_robustness_is_of_a_drawn_part_prepared_as_the_model_takes_it(tmp_path: Path) -> None:
    made = target(tmp_path, {**FLOORS, "preprocessing.scale": 0.5})
    validation = made.load_data().validation
    seen: list[np.ndarray] = []

    def says_nw(inputs: np.ndarray) -> np.ndarray:
        seen.append(inputs)
        return np.eye(4, dtype=np.float32)[np.zeros(len(inputs), dtype=int)]

    shares = with_robustness(NOTHING, CLASSES, validation, made, says_nw).robustness
    assert [s.name for s in shares] == ["noise 0.08", "blur 0.75 px", "brighter 0.15", "darker 0.15", "shift 1 px"]
    assert {s.total for s in shares} == {40}
    assert len({s.correct for s in shares}) == 1  # the same forty examples under each
    assert seen[0].shape == (200, 1, 12, 12)
    assert np.abs(seen[0]).max() <= 0.5 * np.abs(validation.inputs).max() + 1e-6
    with_robustness(NOTHING, CLASSES, validation, made, says_nw)
    assert seen[0].tobytes() == seen[1].tobytes()


def test_no_robustness_set_for_what_is_no_image_or_not_asked_for(tmp_path: Path) -> None:
    made = target(tmp_path, {"accuracy.robustness.examples": 0})
    assert with_robustness(NOTHING, CLASSES, made.load_data().validation, made, lambda x: x) is NOTHING
    rows = Split(np.zeros((4, 80), dtype=np.float32), np.zeros(4, dtype=int))
    assert with_robustness(NOTHING, CLASSES, rows, target(tmp_path, {}), lambda x: x) is NOTHING


@pytest.mark.parametrize(
    ("changes", "code", "message"),
    [
        ({"accuracy.slices.lft.min_accuracy": 0.5}, SLICED, "accuracy.slices.lft: .*did you mean 'left'"),
        (
            {"accuracy.slices.left.min_accuracy": 0.5},
            MODEL_CODE,
            "names no such slice of the validation split; .* none",
        ),
        (
            {"accuracy.slices.ne.min_accuracy": 0.5},
            SLICED.replace("np.arange(1, count, 4)", "np.arange(0)"),
            "accuracy.slices.ne: it has no example in the validation split",
        ),
        (
            {"accuracy.robustness.min_accuracy": 0.5},
            MODEL_CODE.replace("return Split(images, labels)", "return Split(images[:, :, 0], labels)"),
            r"inputs \(1, 12\) are no images",
        ),
        (
            {"accuracy.robustness.min_accuracy": 0.5, "accuracy.robustness.examples": 0},
            MODEL_CODE,
            "there is no corruption or no example",
        ),
    ],
)
def test_a_floor_that_nothing_could_be_held_to_is_refused(
    tmp_path: Path, changes: Mapping[str, object], code: str, message: str
) -> None:
    made = target(tmp_path, changes, code)
    with pytest.raises(InputError, match=message):
        check_guards(made, made.load_data())


def test_a_slice_floor_that_holds_nothing_is_refused(tmp_path: Path) -> None:
    made = make_target(tmp_path)
    (made.folder / "target.toml").write_text((made.folder / "target.toml").read_text() + "[accuracy.slices.left]\n")
    with pytest.raises(InputError, match=r"accuracy\.slices\.left: expected one at least of max_drop_points, min_"):
        load_target(made.folder)


def test_the_metric_on_slices_by_hand(tmp_path: Path) -> None:
    made = target(tmp_path, {**TASKS["masks"][1]}, MASKS)
    data = made.load_data()
    labels = np.zeros((3, 2, 2), dtype=int)
    labels[1] = 1
    outputs = np.zeros((3, 2, 2, 2), dtype=np.float32)
    outputs[:, 0] = 1.0  # ground everywhere: right, wrong, and right in three of four
    labels[2, 0, 0] = 1
    slices = {"one": np.array([0]), "two": np.array([False, True, True]), "void": np.array([], dtype=int)}
    task, split = task_of(made, data), Split(np.zeros((3, 1, 2, 2)), labels, slices=slices)
    found = task.accuracy_of(outputs, split, "validation").slice_scores
    assert [part.name for part in found] == ["one", "two"]
    # Of the third: ground 3 of 4, blob 0 of 1.
    assert [part.score.value for part in found] == pytest.approx([1.0, (0.0 + 0.375) / 2])
    assert [part.score.examples for part in found] == [1, 2]
    assert (found[0].score.error, found[1].score.error) == pytest.approx((0.0, 0.375 / 2))


@pytest.mark.parametrize("floor", [None, 0.1])
def test_a_metric_that_means_nothing_under_a_corruption(floor: float | None, tmp_path: Path) -> None:
    code = SCENES.replace("& near", "/ np.abs(np.sign(scores[:, 0] - 7.0))")
    made = target(tmp_path, {**TASKS["scenes"][1], "accuracy.robustness.worst_value": floor}, code)
    validation = made.load_data().validation
    asked: list[np.ndarray] = []

    def infer(inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        asked.append(inputs)
        scores = np.full((len(inputs), 2), 7.0 if len(asked) == 2 else 1.0, dtype=np.float32)
        return scores, np.zeros((len(inputs), 2), dtype=np.float32)

    task = task_of(made, made.load_data())
    with np.errstate(all="ignore"):
        if floor is not None:
            with pytest.raises(
                BuildError, match=r"images with blur 0\.75 px: .*hits is NaN or infinite for 96 examples"
            ):
                with_robustness(NOTHING, task, validation, made, infer)
            return
        found = with_robustness(NOTHING, task, validation, made, infer)
    assert [part.name for part in found.robustness_scores] == ["noise 0.08", "brighter 0.15", "darker 0.15"]


SLICED_TASKS: Mapping[str, tuple[str, Mapping[str, object]]] = {
    "masks": (
        MASKS.replace(
            "return Split(images, masks)", 'return Split(images, masks, slices={"odd": np.arange(count) % 2 > 0})'
        ),
        {"accuracy.slices.odd.max_drop_points": 3.0, "accuracy.robustness.max_drop_points": 20.0},
    ),
    "scenes": (
        SCENES.replace("(kinds, centres))", '(kinds, centres), slices={"odd": kinds > 0})'),
        {"accuracy.slices.odd.max_worsening": 0.03, "accuracy.robustness.worst_value": 0.01},
    ),
}


@pytest.mark.parametrize("name", SLICED_TASKS)
def test_parts_of_other_tasks_are_held_by_their_metric(name: str, tmp_path: Path) -> None:
    code, floors = SLICED_TASKS[name]
    keys = {**TASKS[name][1], **floors, "accuracy.robustness.examples": 40, "training.epochs": 1}
    with compressor_of(make_target(tmp_path, target=keys, code=code)) as made:
        maker = CandidateMaker(made.bench, made)
        compiled = maker.compile(DENSE)
        accuracy, metric = compiled.evaluation.accuracy, made.bench.task.name
        (odd,) = accuracy.slice_scores
        assert (odd.name, odd.score.metric, odd.score.examples) == ("odd", metric, 48)
        # What labels say of places would move with the image.
        kinds = ["noise 0.08", "blur 0.75 px", "brighter 0.15", "darker 0.15"]
        assert [part.name for part in accuracy.robustness_scores] == kinds
        assert {part.score.examples for part in accuracy.robustness_scores} == {40}
        kept = load_answers(made.bench.run.path(f"candidates/{DENSE.rung.name}/evaluate"))
        assert isinstance(kept, ScoredAnswers)
        assert kept.values.mean() == pytest.approx(accuracy.value)
        evidence = maker.evidence(compiled, compiled)
        judged = {gate: GATES.get(gate).judge(evidence) for gate in ("slices", "robustness")}
        assert all(found is not None and found.verdict is Verdict.PASS for found in judged.values())
        worse = replace(odd, score=replace(odd.score, value=odd.score.value - 0.2, error=0.01))
        fallen = replace(evidence, accuracy=replace(accuracy, slice_scores=(worse,)))
        found = GATES.get("slices").judge(fallen)
        assert found is not None
        assert found.verdict is Verdict.FAIL
        assert f"slice odd: {metric} " in found.reason
        assert maker.assessor.accuracy(
            DENSE.rung, compiled.artifact, compiled.folder, made.bench.data.test, "test"
        ).slice_scores


def test_losses_of_logits_and_of_probabilities_agree(tmp_path: Path) -> None:
    logits = np.array([[2.0, -1.0, 0.5], [0.0, 0.0, 0.0]], dtype=np.float32)
    exponents = np.exp(logits)
    labels = np.array([0, 2])
    from_logits = answers_of(logits, labels)
    from_shares = answers_of(exponents / exponents.sum(axis=1, keepdims=True), labels)
    # -log(e^2 / (e^2 + e^-1 + e^0.5)) and log 3.
    assert from_logits.losses == pytest.approx([0.2413, np.log(3)], abs=1e-4)
    assert from_shares.losses == pytest.approx(from_logits.losses, abs=1e-6)
    assert from_logits.predicted.tolist() == [0, 0]
    assert load_answers(tmp_path) is None
    save_answers(tmp_path, from_logits)
    again = load_answers(tmp_path)
    assert isinstance(again, Answers)
    assert again.losses.tobytes() == from_logits.losses.tobytes()


def test_a_build_holds_what_it_compiled_to_the_floors_of_its_parts(tmp_path: Path) -> None:
    code = SLICED
    with compressor(tmp_path, target=FLOORS, code=code) as made:
        maker = CandidateMaker(made.bench, made)
        compiled = maker.compile(DENSE)
        accuracy = compiled.evaluation.accuracy
        # Indices 1, 5, ... are the class ne; the mask takes nw and sw.
        nw, ne, sw, _ = accuracy.classes
        left = Share(name="left", correct=nw.correct + sw.correct, total=48)
        assert accuracy.slices == (left, Share(name="ne", correct=ne.correct, total=24))
        assert [s.total for s in accuracy.robustness] == [40] * 5
        judgement = judge(maker.evidence(compiled, compiled))
        verdicts = {g.gate: g.verdict for g in judgement.gates}
        assert all(verdicts[name] is Verdict.PASS for name in ("classes", "slices", "robustness"))
        answers = load_answers(made.bench.run.path(f"candidates/{DENSE.rung.name}/evaluate"))
        assert isinstance(answers, Answers)
        right = answers.predicted == made.bench.data.validation.labels
        assert int(right.sum()) == accuracy.correct
        result = make_build_result()
        assert result.chosen is not None
        result = replace(
            result, dense=replace(result.dense, rung=DENSE.rung), chosen=replace(result.chosen, rung=DENSE.rung)
        )
        changes = changes_of(made.bench, result)
        assert isinstance(changes, AnswerChanges)
        assert (changes.examples, changes.changed, changes.most_changed) == (96, 0, ())
        assert changes_of(made.bench, make_build_result()) is None
