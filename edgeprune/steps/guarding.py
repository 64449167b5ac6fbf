"""What guards look at besides accuracy and its slices: a robustness set."""

from __future__ import annotations

import difflib
import zlib
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from edgeprune.data.corruptions import Corruption, corruptions, raw_images
from edgeprune.data.parts import mapped, sole
from edgeprune.data.preprocessing import preprocess
from edgeprune.data.slices import slice_members
from edgeprune.data.splits import DataSplits, Split
from edgeprune.errors import BuildError, InputError
from edgeprune.protocols import Arrays
from edgeprune.records.accuracy import Accuracy, PartScore
from edgeprune.records.shares import Share
from edgeprune.schema.floors import PartFloor, RobustnessSet
from edgeprune.steps.inputs import Target
from edgeprune.steps.task import Task


def with_robustness(
    accuracy: Accuracy, task: Task, split: Split, target: Target, infer: Callable[[np.ndarray], Arrays]
) -> Accuracy:
    """The same, with what it is under each corruption of a sample of the split; as it is for inputs that are no images.

    Where no floor is asked for, a corruption that the metric is NaN or infinite under is left out.

    Args:
        accuracy: on the whole split.
        task: what answers are judged by.
        split: of validation; never training or test.
        target: says which corruptions, how strong, and how inputs are prepared.
        infer: the compiled artifact, of prepared inputs.

    Raises:
        BuildError: the metric is NaN or infinite under a corruption that a floor is asked for.
    """
    spec, wanted = target.spec, target.spec.accuracy.robustness
    made = _corruptions(target, split, classifies=task.classifies)
    if not made:
        return accuracy
    drawn = np.sort(np.random.default_rng(spec.seed).permutation(len(split))[: wanted.examples])
    raw, labels = split.inputs[drawn], mapped(lambda part: part[drawn], split.labels)
    worse = (preprocess(c.apply(raw, spec.seed ^ zlib.crc32(c.name.encode())), spec.preprocessing) for c in made)
    if task.classifies:
        # All in one go: a fresh process of the runtime costs more than the images.
        predicted = sole(infer(np.concatenate(list(worse)))).argmax(axis=1).reshape(len(made), len(drawn))
        shares = (_share(c.name, row == sole(labels)) for c, row in zip(made, predicted, strict=True))
        return replace(accuracy, robustness=tuple(shares))
    # One by one: a picture's outputs for each of a picture's pixels are many.
    scores = (
        _corrupted_score(task, c.name, infer(inputs), labels, wanted) for c, inputs in zip(made, worse, strict=True)
    )
    return replace(accuracy, robustness_scores=tuple(score for score in scores if score is not None))


def _corrupted_score(task: Task, name: str, outputs: Arrays, labels: Arrays, wanted: RobustnessSet) -> PartScore | None:
    try:
        return PartScore(name=name, score=task.score_of(task.values(outputs, labels)))
    except BuildError as error:
        if wanted.is_set:
            raise BuildError(f"images with {name}: {error.message}") from error
        return None


def robustness_key(wanted: RobustnessSet) -> dict[str, float]:
    """What the robustness set depends on; its floors are not among that."""
    kept: dict[str, float] = wanted.model_dump(mode="json", exclude=set(PartFloor.model_fields))
    return kept


def _corruptions(target: Target, split: Split, *, classifies: bool) -> tuple[Corruption, ...]:
    """Of images, where examples are asked for; shifts only where labels say nothing of places."""
    wanted = target.spec.accuracy.robustness
    images = raw_images(split.inputs, target.spec.preprocessing)
    if images is None or not wanted.examples:
        return ()
    return corruptions(wanted if classifies else wanted.model_copy(update={"shift_px": 0}), images)


def check_guards(target: Target, data: DataSplits) -> None:
    """Refuse floors that nothing could be held to, before anything is built.

    Raises:
        InputError: a floor for a slice that the data do not name or that has no example, or for corrupted images where
            there are none.
    """
    wanted, known = target.spec.accuracy, sorted(data.validation.slices)
    for name in wanted.slices:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"it names: {', '.join(known) or 'none'}"
            raise InputError(
                f"{target.file}: accuracy.slices.{name}: {target.spec.data.factory} names no such slice of the "
                f"validation split; {hint}"
            )
        if not slice_members(data.validation.slices[name], len(data.validation)).any():
            raise InputError(
                f"{target.file}: accuracy.slices.{name}: it has no example in the validation split; take the floor out"
            )
    robustness = wanted.robustness
    if not robustness.is_set:
        return
    if raw_images(data.validation.inputs, target.spec.preprocessing) is None:
        raise InputError(
            f"{target.file}: accuracy.robustness: a floor is asked for, and inputs {data.validation.inputs.shape[1:]} "
            "are no images (1, 3 or 4 channels, 8 pixels a side); take the floor out"
        )
    if not _corruptions(target, data.validation, classifies=data.classifies):
        raise InputError(
            f"{target.file}: accuracy.robustness: a floor is asked for, and there is no corruption or no example"
            + ("" if data.classifies else "; images are shifted only where each example has one class")
        )


def _share(name: str, right: np.ndarray) -> Share:
    return Share(name=name, correct=int(right.sum()), total=len(right))
