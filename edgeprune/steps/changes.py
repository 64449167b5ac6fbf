"""What became of each answer: the dense model's beside the compressed one's, on the validation split."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from edgeprune.data.corruptions import RawImages, raw_images
from edgeprune.data.parts import sole
from edgeprune.records.accuracy import told_value
from edgeprune.records.changes import AnswerChanges, ChangedExample, ConfusionChange, ScoreChanges, ScoredExample
from edgeprune.records.result import BuildResult
from edgeprune.reporting.summary import subject_of
from edgeprune.reporting.thumbnails import thumbnail
from edgeprune.statistics import sign_test
from edgeprune.steps.answers import Answers, ScoredAnswers, load_answers
from edgeprune.store.run_folder import step_name

if TYPE_CHECKING:
    from edgeprune.data.splits import Split
    from edgeprune.steps.task import Task
    from edgeprune.steps.workbench import Workbench

MOST_PAIRS = 10
MOST_EXAMPLES = 12
_NOISE = 1e-4
"""Of a metric's value."""


def changes_of(bench: Workbench, result: BuildResult) -> AnswerChanges | ScoreChanges | None:
    """Of the chosen model, or the nearest miss; None where either's answers are not kept."""
    subject = subject_of(result)
    if subject is None:
        return None
    before, after = (
        load_answers(bench.run.path(step_name("evaluate", rung.name))) for rung in (result.dense.rung, subject.rung)
    )
    split, names, rung = bench.data.validation, bench.data.class_names, subject.rung.name
    images = raw_images(split.inputs, bench.target.spec.preprocessing)
    if isinstance(before, Answers) and isinstance(after, Answers):
        return answer_changes(before, after, split, names, images=images, rung=rung)
    if isinstance(before, ScoredAnswers) and isinstance(after, ScoredAnswers):
        return score_changes(before, after, split, bench.task, images=images, rung=rung)
    return None


def answer_changes(
    before: Answers,
    after: Answers,
    split: Split,
    class_names: tuple[str, ...],
    *,
    images: RawImages | None,
    rung: str,
) -> AnswerChanges:
    """Compare answers on the same examples.

    Args:
        before: of the dense model.
        after: of the compressed model.
        split: with labels and raw inputs, in the answers' order.
        class_names: one a class index.
        images: how the inputs are images; None where they are not, and have no thumbnails.
        rung: name of the compressed model.
    """
    labels = sole(split.labels).astype(np.int64)
    was, is_now = before.predicted == labels, after.predicted == labels
    broken, fixed = int((was & ~is_now).sum()), int((~was & is_now).sum())
    return AnswerChanges(
        rung=rung,
        split="validation",
        examples=len(labels),
        changed=int((before.predicted != after.predicted).sum()),
        broken=broken,
        fixed=fixed,
        chance=sign_test(broken, fixed),
        pairs=_worse_pairs(labels, before, after, class_names),
        most_changed=_most_changed(split, labels, before, after, class_names, images),
    )


def score_changes(
    before: ScoredAnswers, after: ScoredAnswers, split: Split, task: Task, *, images: RawImages | None, rung: str
) -> ScoreChanges:
    """Compare what the metric says of the same examples.

    Args:
        before: of the dense model.
        after: of the compressed model.
        split: with raw inputs, in the answers' order.
        task: whose metric it is.
        images: how the inputs are images; None where they are not, and have no thumbnails.
        rung: name of the compressed model.
    """
    loss = before.values - after.values if task.metric.higher_is_better else after.values - before.values
    # Less is rounding: the same weights in another runtime differ by as much.
    noise = _NOISE * np.maximum(np.abs(before.values), np.abs(after.values))
    worse, better = int((loss > noise).sum()), int((loss < -noise).sum())
    order = np.argsort(-loss, kind="stable")[:MOST_EXAMPLES]
    told = partial(told_value, is_share=task.metric.is_share)
    return ScoreChanges(
        rung=rung,
        split="validation",
        metric=task.name,
        examples=len(loss),
        worse=worse,
        better=better,
        chance=sign_test(worse, better),
        most_changed=tuple(
            ScoredExample(
                index=k,
                before=told(before.values[k]),
                after=told(after.values[k]),
                thumbnail="" if images is None else thumbnail(_pixels(split.inputs[k], images)),
            )
            for k in order.tolist()
            if loss[k] > noise[k]
        ),
    )


def _worse_pairs(
    labels: np.ndarray, before: Answers, after: Answers, class_names: tuple[str, ...]
) -> tuple[ConfusionChange, ...]:
    counts = np.zeros((2, len(class_names), len(class_names)), dtype=np.int64)
    for table, answers in zip(counts, (before, after), strict=True):
        np.add.at(table, (labels, answers.predicted), 1)
        np.fill_diagonal(table, 0)
    rise = (counts[1] - counts[0]).ravel()
    order = np.argsort(-rise, kind="stable")[:MOST_PAIRS]
    return tuple(
        ConfusionChange(
            true=class_names[k // len(class_names)],
            predicted=class_names[k % len(class_names)],
            before=int(counts[0].flat[k]),
            after=int(counts[1].flat[k]),
        )
        for k in order.tolist()
        if rise[k] > 0
    )


def _most_changed(
    split: Split,
    labels: np.ndarray,
    before: Answers,
    after: Answers,
    class_names: tuple[str, ...],
    images: RawImages | None,
) -> tuple[ChangedExample, ...]:
    rise = after.losses - before.losses
    order = np.argsort(-rise, kind="stable")[:MOST_EXAMPLES]
    return tuple(
        ChangedExample(
            index=k,
            label=class_names[labels[k]],
            before=class_names[before.predicted[k]],
            after=class_names[after.predicted[k]],
            loss_before=float(before.losses[k]),
            loss_after=float(after.losses[k]),
            thumbnail="" if images is None else thumbnail(_pixels(split.inputs[k], images)),
        )
        for k in order.tolist()
        if rise[k] > 0
    )


def _pixels(example: np.ndarray, images: RawImages) -> np.ndarray:
    """[height, width, channels], uint8, from one raw example."""
    channels_last = np.moveaxis(example, (images.rows - 1, images.columns - 1), (0, 1)).astype(np.float64)
    span = (images.high - images.low) or 1.0
    return np.clip(255.0 * (channels_last - images.low) / span, 0, 255).round().astype(np.uint8)
