"""Answers that changed, worked by hand."""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from records_for_tests import make_build_result
from task_targets import make_task

from edgeprune.data.corruptions import RawImages
from edgeprune.data.metrics import METRICS
from edgeprune.data.splits import Split
from edgeprune.records.accuracy import Accuracy, PartScore, Score
from edgeprune.records.changes import ConfusionChange
from edgeprune.records.codec import from_json, to_json
from edgeprune.records.result import BuildResult
from edgeprune.records.shares import Share
from edgeprune.reporting.guard_rows import part_tables
from edgeprune.reporting.html import render_html
from edgeprune.reporting.quantities import signed_points
from edgeprune.reporting.thumbnails import LARGEST_SIDE, thumbnail
from edgeprune.statistics import sign_test
from edgeprune.steps.answers import Answers, ScoredAnswers
from edgeprune.steps.changes import answer_changes, score_changes
from edgeprune.steps.inputs import load_target
from edgeprune.steps.task import task_of

NAMES = ("cat", "dog", "eel")
LABELS = np.array([0, 0, 0, 1, 1, 2])
BEFORE = Answers(
    predicted=np.array([0, 0, 1, 1, 1, 0]), losses=np.array([0.1, 0.1, 2.0, 0.1, 0.2, 1.0], dtype=np.float32)
)
AFTER = Answers(
    predicted=np.array([1, 1, 0, 1, 2, 0]), losses=np.array([3.0, 1.0, 0.2, 0.1, 0.9, 0.5], dtype=np.float32)
)
GREY = RawImages(rows=1, columns=2, low=0.0, high=16.0)
IMAGES = np.arange(6, dtype=np.uint8)[:, None, None, None] * np.ones((1, 10, 8, 1), dtype=np.uint8)


def test_counts_pairs_and_examples_by_hand() -> None:
    found = answer_changes(BEFORE, AFTER, Split(IMAGES, LABELS), NAMES, images=None, rung="int8")
    assert (found.examples, found.changed, found.broken, found.fixed) == (6, 4, 3, 1)
    # Of four coins at least three: (4 + 1) / 16.
    assert found.chance == pytest.approx(5 / 16)
    # cat for dog rose from 1 to 2, dog for eel from 0 to 1; eel for cat stays, and what is right is no confusion.
    assert found.pairs == (
        ConfusionChange(true="cat", predicted="dog", before=1, after=2),
        ConfusionChange(true="dog", predicted="eel", before=0, after=1),
    )
    assert [(e.index, e.label, e.before, e.after) for e in found.most_changed] == [
        (0, "cat", "cat", "dog"), (1, "cat", "cat", "dog"), (4, "dog", "dog", "eel"),
    ]  # fmt: skip
    assert found.most_changed[0].loss_after == 3.0
    assert found.most_changed[0].thumbnail == ""


def test_the_same_answers_changed_nothing() -> None:
    found = answer_changes(BEFORE, BEFORE, Split(IMAGES, LABELS), NAMES, images=GREY, rung="int8")
    assert (found.changed, found.broken, found.fixed, found.chance) == (0, 0, 0, 1.0)
    assert (found.pairs, found.most_changed) == ((), ())


def test_sign_test_by_hand() -> None:
    assert sign_test(0, 0) == 1.0
    assert sign_test(0, 9) == 1.0
    assert sign_test(5, 0) == pytest.approx(1 / 32)
    assert sign_test(2, 2) == pytest.approx(11 / 16)


def pixels_of(text: str) -> np.ndarray:
    from matplotlib.image import imread

    return np.asarray(imread(io.BytesIO(base64.b64decode(text)), format="png"))


def test_a_thumbnail_is_the_picture_small_and_the_same_each_time() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (10, 8, 3), dtype=np.uint8)
    once = thumbnail(pixels)
    assert once == thumbnail(pixels)
    np.testing.assert_allclose(pixels_of(once)[..., :3], pixels / 255.0, atol=1e-6)
    grey = pixels_of(thumbnail(pixels[:, :, :1]))
    np.testing.assert_allclose(grey[..., 0], grey[..., 2])
    assert max(pixels_of(thumbnail(np.zeros((500, 300, 3), dtype=np.uint8))).shape) <= LARGEST_SIDE


def test_thumbnails_are_in_the_range_of_the_split_whatever_the_layout() -> None:
    channels_first = RawImages(rows=2, columns=3, low=0.0, high=16.0)
    last = answer_changes(BEFORE, AFTER, Split(IMAGES, LABELS), NAMES, images=GREY, rung="x")
    first = answer_changes(
        BEFORE, AFTER, Split(IMAGES.transpose(0, 3, 1, 2), LABELS), NAMES, images=channels_first, rung="x"
    )
    assert last == first
    shown = pixels_of(last.most_changed[2].thumbnail)
    assert shown.shape[:2] == (10, 8)
    assert shown[0, 0, 0] == pytest.approx(4 / 16, abs=1 / 255)


def test_the_report_names_classes_slices_pairs_and_shows_examples() -> None:
    result = make_build_result()
    assert result.chosen is not None
    assert result.chosen.validation is not None
    assert result.dense.validation is not None
    night, noise = Share(name="night", correct=9, total=10), Share(name="noise 0.08", correct=200, total=256)
    chosen = replace(
        result.chosen,
        validation=replace(
            result.chosen.validation, slices=(replace(night, correct=8),), robustness=(replace(noise, correct=150),)
        ),
    )
    dense = replace(result.dense, validation=replace(result.dense.validation, slices=(night,), robustness=(noise,)))
    changes = answer_changes(BEFORE, AFTER, Split(IMAGES, LABELS), ("cat", "<b>dog", "eel"), images=GREY, rung="int8")
    result = replace(result, dense=dense, chosen=chosen, candidates=(chosen,), changes=changes)
    titles = [(table.title, len(table.rows)) for table in part_tables(result)]
    assert titles == [("Recall of each class", 5), ("Slices", 1), ("Corrupted images", 1)]
    row = part_tables(result)[1].rows[0]
    # Of ten, eight: 49.3 to 96.3 %.
    assert (row.before, row.after, row.change, row.known) == (
        "90.0%",
        "80.0%",
        signed_points(0.9, 0.8),
        "49.3% to 96.3%",
    )
    page = render_html(result)
    for text in (
        "Parts that an average hides",
        "noise 0.08",
        "Of 6 validation examples 4 have another answer",
        "3 became wrong and 1 became right. Were both equally likely, so many would",
        "with a probability of 0.31",
        "cat → &lt;b&gt;dog",
        'src="data:image/png;base64,',
    ):
        assert text in page, text
    assert "<b>dog" not in page


def _result_by(before: Score, after: Score) -> BuildResult:
    """A build whose two models are judged by a metric, on one slice."""
    result = make_build_result()
    assert result.chosen is not None
    parts = [
        Accuracy(split="validation", score=score, slice_scores=(PartScore(name="<night>", score=score),))
        for score in (before, after)
    ]
    dense, chosen = replace(result.dense, validation=parts[0]), replace(result.chosen, validation=parts[1])
    return replace(result, dense=dense, chosen=chosen, candidates=(chosen,))


IOU = Score(metric="mean_iou", value=0.9, error=0.02, examples=10, higher_is_better=True, is_share=True)
ERROR_MM = replace(IOU, metric="mean_absolute_error", higher_is_better=False, is_share=False)


def test_parts_by_another_metric_are_told_in_its_unit() -> None:
    (table,) = part_tables(_result_by(IOU, replace(IOU, value=0.8)))
    (row,) = table.rows
    assert (table.title, table.change_title) == ("Slices, mean_iou", "points")
    assert (row.before, row.after, row.change, row.examples) == ("90.00 %", "80.00 %", signed_points(0.9, 0.8), "10")
    # Student's t with 9 degrees of freedom: 1.833, and so 3.67 points.
    assert row.known == "76.33 % to 83.67 %"
    (table,) = part_tables(_result_by(ERROR_MM, replace(ERROR_MM, value=1.25, examples=1)))
    (row,) = table.rows
    assert (table.change_title, row.before, row.after, row.change, row.known) == (
        "change",
        "0.9",
        "1.25",
        "+0.35",
        "one example",
    )


def test_what_a_metric_says_worse_of_is_counted_and_shown(tmp_path: Path) -> None:
    made = load_target(make_task("masks", tmp_path).folder)
    task = task_of(made, made.load_data())
    before = ScoredAnswers(values=np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4]))
    after = ScoredAnswers(values=np.array([0.9, 0.5, 0.6, 0.7, 0.4, 0.4]))
    found = score_changes(before, after, Split(IMAGES, LABELS), task, images=GREY, rung="int8")
    assert (found.metric, found.examples, found.worse, found.better) == ("mean_iou", 6, 3, 1)
    assert found.chance == pytest.approx(5 / 16)
    # Those that fell by a tenth are the same but for the last bit.
    told = [(e.index, e.before, e.after) for e in found.most_changed]
    assert told[0] == (1, "80.00 %", "50.00 %")
    assert sorted(told[1:]) == [(2, "70.00 %", "60.00 %"), (4, "50.00 %", "40.00 %")]
    # What the same weights give in another runtime is no change.
    rounded = ScoredAnswers(values=before.values * (1 - 1e-6))
    same = score_changes(before, rounded, Split(IMAGES, LABELS), task, images=None, rung="int8")
    assert (same.worse, same.better, same.most_changed) == (0, 0, ())
    # Of an error, more is worse.
    errors = replace(task, metric=METRICS.get("mean_absolute_error"))
    assert score_changes(before, after, Split(IMAGES, LABELS), errors, images=None, rung="int8").worse == 1
    page = render_html(replace(_result_by(IOU, IOU), changes=found))
    for text in (
        "Of 6 validation examples, mean_iou is worse than in the dense model for 3 and better for 1. Were both",
        "80.00 % → 50.00 %",
        "&lt;night&gt;",
        'src="data:image/png;base64,',
    ):
        assert text in page, text
    again = from_json(BuildResult, to_json(replace(_result_by(IOU, IOU), changes=found)))
    assert again.changes == found


def test_of_many_classes_those_that_fell_most_are_shown() -> None:
    result = make_build_result()
    assert result.chosen is not None
    assert result.chosen.validation is not None
    names = tuple(str(k) for k in range(30))
    rows = tuple(tuple(10 if i == j else 0 for j in range(30)) for i in range(30))
    dense = replace(result.chosen.validation, confusion=rows, class_names=names)
    fallen = (*rows[:29], (*(0 for _ in range(28)), 7, 3))
    chosen = replace(result.chosen, validation=replace(dense, confusion=fallen))
    result = replace(result, dense=replace(result.dense, validation=dense), chosen=chosen)
    (table,) = part_tables(result)
    assert (table.rows[0].name, table.rows[0].after, len(table.rows), table.left_out) == ("29", "30.0%", 20, 10)
