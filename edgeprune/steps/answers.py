"""What a model says of each example of a split, kept beside its accuracy: the report shows what changed."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np

from edgeprune.data.parts import sole
from edgeprune.data.splits import Split
from edgeprune.files import appearing
from edgeprune.protocols import Arrays
from edgeprune.steps.task import Task

ANSWERS = "answers.npz"
_ROW_SUM_SLACK = 1e-3


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """Of a classifier.

    Attributes:
        predicted: [examples], int64, the arg max.
        losses: [examples], float32, cross-entropy of the outputs against the labels.
    """

    predicted: np.ndarray
    losses: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class ScoredAnswers:
    """Of a model whose examples have not one class each.

    Attributes:
        values: [examples], float64, what the target's metric says of each.
    """

    values: np.ndarray


AnyAnswers: TypeAlias = Answers | ScoredAnswers


def answers_to_keep(task: Task, outputs: Arrays, split: Split) -> AnyAnswers:
    """What is to be kept of a model's outputs on a split."""
    if task.classifies:
        return answers_of(sole(outputs), sole(split.labels))
    return ScoredAnswers(values=task.values(outputs, split.labels))


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


def save_answers(folder: Path, answers: AnyAnswers) -> None:
    """Write `answers.npz`, whole or not at all."""
    with appearing(folder / ANSWERS) as path, path.open("wb") as file:
        np.savez(file, **asdict(answers))


def load_answers(folder: Path) -> AnyAnswers | None:
    """What `save_answers` wrote; None where it is not there."""
    path = folder / ANSWERS
    if not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as stored:
        if "values" in stored:
            return ScoredAnswers(values=stored["values"])
        return Answers(predicted=stored["predicted"], losses=stored["losses"])
