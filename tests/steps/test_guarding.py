"""Slices, the robustness set and each example's answer, from the data factory to the gates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from compressors import compressor
from records_for_tests import make_build_result
from targets_for_tests import MODEL_CODE, make_target

from edgeprune.data.splits import Split
from edgeprune.errors import InputError
from edgeprune.gating.judge import judge
from edgeprune.records.rung import PlannedRung, Precision, Rung, RungStatus
from edgeprune.records.shares import Share
from edgeprune.records.verdict import Verdict
from edgeprune.steps.candidates import CandidateMaker
from edgeprune.steps.changes import changes_of
from edgeprune.steps.guarding import (
    answers_of,
    check_guards,
    load_answers,
    robustness_shares,
    save_answers,
    slice_shares,
)
from edgeprune.steps.inputs import Target, load_target

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
    assert slice_shares(outputs, split) == (
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

    shares = robustness_shares(validation, made, says_nw)
    assert [s.name for s in shares] == ["noise 0.08", "blur 0.75 px", "brighter 0.15", "darker 0.15", "shift 1 px"]
    assert {s.total for s in shares} == {40}
    assert len({s.correct for s in shares}) == 1  # the same forty examples under each
    assert seen[0].shape == (200, 1, 12, 12)
    assert np.abs(seen[0]).max() <= 0.5 * np.abs(validation.inputs).max() + 1e-6
    robustness_shares(validation, made, says_nw)
    assert seen[0].tobytes() == seen[1].tobytes()


def test_no_robustness_set_for_what_is_no_image_or_not_asked_for(tmp_path: Path) -> None:
    made = target(tmp_path, {"accuracy.robustness.examples": 0})
    assert robustness_shares(made.load_data().validation, made, lambda x: x) == ()
    rows = Split(np.zeros((4, 80), dtype=np.float32), np.zeros(4, dtype=int))
    assert robustness_shares(rows, target(tmp_path, {}), lambda x: x) == ()


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
    with pytest.raises(InputError, match=r"accuracy\.slices\.left: expected max_drop_points, min_accuracy, or both"):
        load_target(made.folder)


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
    assert again is not None
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
        assert answers is not None
        right = answers.predicted == made.bench.data.validation.labels
        assert int(right.sum()) == accuracy.correct
        result = make_build_result()
        assert result.chosen is not None
        result = replace(
            result, dense=replace(result.dense, rung=DENSE.rung), chosen=replace(result.chosen, rung=DENSE.rung)
        )
        changes = changes_of(made.bench, result)
        assert changes is not None
        assert (changes.examples, changes.changed, changes.most_changed) == (96, 0, ())
        assert changes_of(made.bench, make_build_result()) is None
