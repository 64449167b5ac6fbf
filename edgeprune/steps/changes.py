"""What became of each answer: the dense model's beside the compressed one's, on the validation split."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgeprune.data.corruptions import RawImages, raw_images
from edgeprune.data.parts import sole
from edgeprune.records.changes import AnswerChanges, ChangedExample, ConfusionChange
from edgeprune.records.result import BuildResult
from edgeprune.reporting.summary import subject_of
from edgeprune.reporting.thumbnails import thumbnail
from edgeprune.statistics import sign_test
from edgeprune.steps.guarding import Answers, load_answers
from edgeprune.store.run_folder import step_name

if TYPE_CHECKING:
    from edgeprune.data.splits import Split
    from edgeprune.steps.workbench import Workbench

MOST_PAIRS = 10
MOST_EXAMPLES = 12


def changes_of(bench: Workbench, result: BuildResult) -> AnswerChanges | None:
    """Of the chosen model, or the nearest miss; None where either's answers are not kept."""
    subject = subject_of(result)
    if subject is None:
        return None
    kept = [load_answers(bench.run.path(step_name("evaluate", r.name))) for r in (result.dense.rung, subject.rung)]
    if kept[0] is None or kept[1] is None:
        return None
    split, names = bench.data.validation, bench.data.class_names
    images = raw_images(split.inputs, bench.target.spec.preprocessing)
    return answer_changes(kept[0], kept[1], split, names, images=images, rung=subject.rung.name)


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
