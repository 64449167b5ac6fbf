"""Targets other than images of ten classes, each small enough to train in a second or two: copy one to begin with.

`make_task` writes one as `tiny/` with its profile, as `make_target` does.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from targets_for_tests import MadeTarget, make_target

_HEAD = """
import numpy as np
import torch
from torch import nn
from torch.nn import functional

from edgeprune import DataSplits, Split


def load_data(seed):
    return DataSplits(train=_split(256, 1), validation=_split(96, 2), test=_split(64, 3), class_names=CLASSES)
"""

SCENES = (
    _HEAD
    + '''
CLASSES = ("square", "bar")


class Detector(nn.Module):
    """What is in the image and where: two heads on one trunk, as a detector of one object has them."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 16, 3, stride=2, padding=1)
        self.deep = nn.Conv2d(16, 16, 3, padding=1)
        self.scores = nn.Linear(16 * 36, 2)
        self.centre = nn.Linear(16 * 36, 2)

    def forward(self, x):
        x = torch.flatten(torch.relu(self.deep(torch.relu(self.stem(x)))), 1)
        return {"scores": self.scores(x), "centre": self.centre(x)}


def build_model():
    return Detector()


def loss(outputs, labels):
    (scores, centre), (kind, place) = outputs, labels
    return functional.cross_entropy(scores, kind) + 10 * functional.smooth_l1_loss(centre, place)


def hits(outputs, labels):
    """1 where the kind is right and the centre is less than two pixels off."""
    (scores, centre), (kind, place) = outputs, labels
    near = np.linalg.norm(12 * (centre - place), axis=1) < 2
    return (scores.argmax(axis=1) == kind) & near


def _split(count, seed):
    generator = np.random.default_rng(seed)
    images = generator.normal(0.0, 0.2, (count, 1, 12, 12)).astype(np.float32)
    kinds, corners = np.arange(count) % 2, generator.integers(0, 8, (count, 2))
    sizes = np.array([(4, 4), (2, 5)])[kinds]
    for image, (row, column), (height, width) in zip(images, corners, sizes):
        image[0, row : row + height, column : column + width] += 2.0
    centres = ((corners + sizes / 2) / 12).astype(np.float32)
    return Split(images, (kinds, centres))
'''
)

MASKS = (
    _HEAD
    + '''
CLASSES = ("ground", "blob")


class Segmenter(nn.Module):
    """A class for each pixel."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, padding=1)
        self.conv2 = nn.Conv2d(16, 16, 3, padding=1)
        self.head = nn.Conv2d(16, 2, 1)

    def forward(self, x):
        return self.head(torch.relu(self.conv2(torch.relu(self.conv1(x)))))


def build_model():
    return Segmenter()


def _split(count, seed):
    generator = np.random.default_rng(seed)
    images = generator.normal(0.0, 0.4, (count, 1, 12, 12)).astype(np.float32)
    masks = np.zeros((count, 12, 12), dtype=np.int64)
    for mask, (row, column) in zip(masks, generator.integers(0, 7, (count, 2))):
        mask[row : row + 5, column : column + 5] = 1
    images[:, 0] += masks
    return Split(images, masks)
'''
)

DOSES = (
    _HEAD
    + '''
CLASSES = ()


def build_model():
    return nn.Sequential(nn.Linear(10, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 1))


def _split(count, seed):
    """The diabetes data of scikit-learn, in parts that share no patient; values are progression / 100."""
    from sklearn.datasets import load_diabetes

    inputs, values = load_diabetes(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(inputs))
    first = {1: 0, 2: 256, 3: 352}[seed]
    chosen = order[first : first + count]
    return Split(20 * inputs[chosen], (values[chosen] / 100).astype(np.float32)[:, np.newaxis])
'''
)

SEQUENCES = (
    _HEAD
    + '''
CLASSES = ("a first", "b first")


class Recurrent(nn.Module):
    """Which of two events came first; only the order tells."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(3, 12)
        self.recurrent = nn.KIND(12, 16, batch_first=True)
        self.hidden = nn.Linear(16, 12)
        self.head = nn.Linear(12, 2)

    def forward(self, x):
        steps, _ = self.recurrent(torch.relu(self.embed(x)))
        return self.head(torch.relu(self.hidden(steps[:, -1])))


def build_model():
    return Recurrent()


def _split(count, seed):
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    steps = generator.normal(0.0, 0.1, (count, 10, 3)).astype(np.float32)
    for series, label in zip(steps, labels):
        early, late = sorted(generator.choice(10, 2, replace=False))
        series[early, label] += 2.0
        series[late, 1 - label] += 2.0
    return Split(steps, labels)
'''
)

TEXTS = (
    _HEAD
    + '''
CLASSES = ("calm", "urgent", "rude")
WORDS, LENGTH, PADDING = 40, 12, 0


class TextClassifier(nn.Module):
    """Token ids in, scores out: the mask of the padding is made here, so that the device needs one input."""

    def __init__(self):
        super().__init__()
        from transformers import BertConfig, BertForSequenceClassification

        config = BertConfig(
            vocab_size=WORDS, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48,
            max_position_embeddings=LENGTH, num_labels=len(CLASSES), pad_token_id=PADDING,
            hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        )
        self.bert = BertForSequenceClassification(config)

    def forward(self, ids):
        return self.bert(input_ids=ids, attention_mask=(ids != PADDING).long()).logits


def build_model():
    return TextClassifier()


def _split(count, seed):
    """Words 1 to 3 tell the class, wherever they stand; the rest says nothing."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    texts = generator.integers(4, WORDS, (count, LENGTH))
    lengths = generator.integers(4, LENGTH + 1, count)
    for text, label, length in zip(texts, labels, lengths):
        text[generator.integers(0, length)] = 1 + label
        text[length:] = PADDING
    return Split(texts, labels)
'''
)

KEYWORDS = (
    _HEAD
    + '''
CLASSES = ("low", "high", "rising", "falling")


class KeywordNet(nn.Module):
    """A small 1-D convolutional net over waveforms, depthwise-separable in the middle as keyword spotters are."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv1d(1, 16, 9, stride=4, padding=4, bias=False), nn.BatchNorm1d(16), nn.ReLU())
        self.depthwise = nn.Sequential(nn.Conv1d(16, 16, 5, padding=2, groups=16, bias=False), nn.BatchNorm1d(16))
        self.pointwise = nn.Sequential(nn.ReLU(), nn.Conv1d(16, 24, 1, bias=False), nn.BatchNorm1d(24), nn.ReLU())
        self.last = nn.Sequential(nn.Conv1d(24, 24, 5, stride=2, padding=2, bias=False), nn.BatchNorm1d(24), nn.ReLU())
        self.head = nn.Linear(48, len(CLASSES))

    def forward(self, x):
        x = self.last(self.pointwise(self.depthwise(self.stem(x))))
        half = x.shape[2] // 2
        return self.head(torch.cat([x[:, :, :half].mean(dim=2), x[:, :, half:].mean(dim=2)], dim=1))


def build_model():
    return KeywordNet()


def _split(count, seed):
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % len(CLASSES)
    time = np.arange(256) / 256
    start, end = np.array([(8, 8), (24, 24), (8, 24), (24, 8)])[labels].T
    turns = start[:, None] * time + (end - start)[:, None] * time**2 / 2
    waves = np.sin(2 * np.pi * (turns + generator.random((count, 1))))
    return Split((waves + generator.normal(0.0, 0.3, waves.shape)).astype(np.float32)[:, np.newaxis], labels)
'''
)

_ADAM: Mapping[str, object] = {"training.optimizer": "adamw", "training.learning_rate": 0.005, "training.epochs": 6}

TASKS: Final[Mapping[str, tuple[str, Mapping[str, object]]]] = {
    "scenes": (
        SCENES,
        {
            **_ADAM,
            "task.metric": "model.py:hits",
            "task.higher_is_better": True,
            "training.loss": "model.py:loss",
            "accuracy.max_drop_points": None,
            "accuracy.min_class_recall": None,
            "accuracy.max_worsening": 0.1,
        },
    ),
    "masks": (MASKS, {**_ADAM, "task.metric": "mean_iou", "accuracy.min_class_recall": None}),
    "doses": (
        DOSES,
        {
            **_ADAM,
            "training.epochs": 20,
            "training.loss": "mse_loss",
            "task.metric": "mean_absolute_error",
            "accuracy.max_drop_points": None,
            "accuracy.min_class_recall": None,
            "accuracy.max_worsening": 0.1,
            "accuracy.worst_value": 0.7,
        },
    ),
    "gru": (SEQUENCES.replace("KIND", "GRU"), {**_ADAM, "training.epochs": 15}),
    "lstm": (SEQUENCES.replace("KIND", "LSTM"), {**_ADAM, "training.epochs": 15}),
    "texts": (TEXTS, {**_ADAM, "training.epochs": 8, "preprocessing.dtype": "int64"}),
    "keywords": (KEYWORDS, _ADAM),
}
"""By name: the code of `model.py`, and what its `target.toml` has beside the keys of `make_target`."""


def make_task(
    name: str,
    folder: Path,
    *,
    target: Mapping[str, object] | None = None,
    profile: Mapping[str, object] | None = None,
) -> MadeTarget:
    """Write one of `TASKS` into a folder; further keys as for `make_target`."""
    code, keys = TASKS[name]
    return make_target(folder, target={**keys, **(target or {})}, profile=profile, code=code)
