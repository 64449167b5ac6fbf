"""What guards look at besides overall accuracy: slices, a robustness set, and each example's answer."""

from __future__ import annotations

import difflib
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edgeprune.data.corruptions import corruptions, raw_images
from edgeprune.data.parts import sole
from edgeprune.data.preprocessing import preprocess
from edgeprune.data.slices import slice_members
from edgeprune.data.splits import DataSplits, Split
from edgeprune.errors import InputError
from edgeprune.files import appearing
from edgeprune.records.accuracy import Accuracy
from edgeprune.records.shares import Share
from edgeprune.schema.floors import RobustnessSet
from edgeprune.steps.inputs import Target

ANSWERS = "answers.npz"
_ROW_SUM_SLACK = 1e-3


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """What a model says of each example of a split.

    Attributes:
        predicted: [examples], int64, the arg max.
        losses: [examples], float32, cross-entropy of the outputs against the labels.
    """

    predicted: np.ndarray
    losses: np.ndarray


def slice_shares(outputs: np.ndarray, split: Split) -> tuple[Share, ...]:
    """Right answers on each slice that the split names.

    Args:
        outputs: [examples, classes].
        split: with the labels.
    """
    right = outputs.argmax(axis=1) == sole(split.labels)
    return tuple(_share(name, right[slice_members(split.slices[name], len(split))]) for name in sorted(split.slices))


def robustness_shares(split: Split, target: Target, infer: Callable[[np.ndarray], np.ndarray]) -> tuple[Share, ...]:
    """Right answers under each corruption, on a sample of the split; none for inputs that are no images.

    Args:
        split: of validation; never training or test.
        target: says which corruptions, how strong, and how inputs are prepared.
        infer: the compiled artifact, of prepared inputs.
    """
    spec, wanted = target.spec, target.spec.accuracy.robustness
    images = raw_images(split.inputs, spec.preprocessing)
    made = corruptions(wanted, images) if images is not None and wanted.examples else ()
    if not made:
        return ()
    drawn = np.sort(np.random.default_rng(spec.seed).permutation(len(split))[: wanted.examples])
    raw, labels = split.inputs[drawn], sole(split.labels)[drawn]
    # All in one go: a fresh process of the runtime costs more than the images.
    worse = [preprocess(c.apply(raw, spec.seed ^ zlib.crc32(c.name.encode())), spec.preprocessing) for c in made]
    predicted = infer(np.concatenate(worse)).argmax(axis=1).reshape(len(made), len(labels))
    return tuple(_share(c.name, row == labels) for c, row in zip(made, predicted, strict=True))


def with_guards(accuracy: Accuracy, outputs: np.ndarray, split: Split) -> Accuracy:
    """The same, with its slices."""
    return replace(accuracy, slices=slice_shares(outputs, split))


def robustness_key(wanted: RobustnessSet) -> dict[str, float]:
    """What the robustness set depends on; its floors are not among that."""
    kept: dict[str, float] = wanted.model_dump(mode="json", exclude={"max_drop_points", "min_accuracy"})
    return kept


def check_guards(target: Target, data: DataSplits) -> None:
    """Refuse floors that nothing could be held to, before anything is built.

    Raises:
        InputError: a floor for a slice that the data do not name, for corrupted images where there are none, or for
            right answers where there are no classes.
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
    robustness = wanted.robustness
    if not data.classifies and (wanted.slices or robustness.is_set):
        key = "slices" if wanted.slices else "robustness"
        raise InputError(
            f"{target.file}: accuracy.{key}: a floor is on the share of right answers, and these examples have not one "
            "class each; take it out"
        )
    if not robustness.is_set:
        return
    images = raw_images(data.validation.inputs, target.spec.preprocessing)
    if images is None:
        raise InputError(
            f"{target.file}: accuracy.robustness: a floor is asked for, and inputs {data.validation.inputs.shape[1:]} "
            "are no images (1, 3 or 4 channels, 8 pixels a side); take the floor out"
        )
    if not robustness.examples or not corruptions(robustness, images):
        raise InputError(
            f"{target.file}: accuracy.robustness: a floor is asked for, and there is no corruption or no example"
        )


def answers_of(outputs: np.ndarray, labels: np.ndarray) -> Answers:
    """Prediction and loss of each example.

    Args:
        outputs: [examples, classes]: logits, or probabilities where each row is non-negative and sums to 1.
        labels: [examples].
    """
    values = outputs.astype(np.float64)
    if values.min() >= 0 and np.abs(values.sum(axis=1) - 1.0).max() <= _ROW_SUM_SLACK:
        logs = np.log(np.maximum(values, np.finfo(np.float32).tiny))
    else:
        logs = values - values.max(axis=1, keepdims=True)
        logs -= np.log(np.exp(logs).sum(axis=1, keepdims=True))
    losses = -logs[np.arange(len(labels)), labels.astype(np.int64)]
    return Answers(predicted=outputs.argmax(axis=1).astype(np.int64), losses=losses.astype(np.float32))


def save_answers(folder: Path, answers: Answers) -> None:
    """Write `answers.npz`, whole or not at all."""
    with appearing(folder / ANSWERS) as path, path.open("wb") as file:
        np.savez(file, predicted=answers.predicted, losses=answers.losses)


def load_answers(folder: Path) -> Answers | None:
    """What `save_answers` wrote; None where it is not there."""
    path = folder / ANSWERS
    if not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as stored:
        return Answers(predicted=stored["predicted"], losses=stored["losses"])


def _share(name: str, right: np.ndarray) -> Share:
    return Share(name=name, correct=int(right.sum()), total=len(right))
