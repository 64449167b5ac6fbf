"""Spam or not: a small BERT, trained here on the SMS Spam Collection, from the folder that `$EDGEPRUNE_DATA` names."""

from __future__ import annotations

import hashlib
import lzma
import os
import re
from collections import Counter
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from edgeprune import DataSplits, Split
from edgeprune.errors import InputError

CLASSES = ("ham", "spam")
WORDS, LENGTH = 2000, 32
PADDING, UNKNOWN = 0, 1
_TOKEN = re.compile(r"[a-z']+|\d|[^\sa-z\d]")
_SPLITS = ("train", "train", "train", "validation", "test")
"""A fifth each to choose by and to report on."""


class SpamFilter(nn.Module):
    """Token ids in, scores out: the mask of the padding is made here, so that the device needs one input."""

    def __init__(self) -> None:
        super().__init__()
        from transformers import BertConfig, BertForSequenceClassification

        config = BertConfig(
            vocab_size=WORDS,
            hidden_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=256,
            max_position_embeddings=LENGTH,
            num_labels=len(CLASSES),
            pad_token_id=PADDING,
        )
        self.bert = BertForSequenceClassification(config)

    def forward(self, ids: Tensor) -> Tensor:
        """Token ids [batch, 32] to logits [batch, 2]."""
        logits: Tensor = self.bert(input_ids=ids, attention_mask=(ids != PADDING).long()).logits
        return logits


def build_model() -> nn.Module:
    """The network with fresh weights."""
    return SpamFilter()


def load_data(seed: int) -> DataSplits:  # noqa: ARG001
    """The messages as ids [n, 32] of the words that are most frequent in training, in fixed parts.

    Equal messages, of which there are hundreds, are in one part.

    Raises:
        InputError: `$EDGEPRUNE_DATA` is not set, or the file is missing or damaged.
    """
    parts: dict[str, list[tuple[int, list[str]]]] = {name: [] for name in _SPLITS}
    for label, text in _messages():
        parts[_split_of(text)].append((CLASSES.index(label), _TOKEN.findall(text.lower())))
    counts = Counter(token for _, tokens in parts["train"] for token in tokens)
    ids = {token: n for n, (token, _) in enumerate(counts.most_common(WORDS - 2), start=UNKNOWN + 1)}
    splits = {name: Split(_ids(part, ids), np.array([label for label, _ in part])) for name, part in parts.items()}
    return DataSplits(**splits, class_names=CLASSES)


def _split_of(text: str) -> str:
    """By the message itself, but for digits and case: those of one campaign differ in nothing else."""
    same = re.sub(r"\d+", "0", text.lower())
    return _SPLITS[hashlib.sha256(same.encode()).digest()[0] % len(_SPLITS)]


def _ids(part: list[tuple[int, list[str]]], ids: dict[str, int]) -> np.ndarray:
    found = np.full((len(part), LENGTH), PADDING, dtype=np.int64)
    for row, (_, tokens) in zip(found, part, strict=True):
        kept = [ids.get(token, UNKNOWN) for token in tokens[:LENGTH]]
        row[: len(kept)] = kept
    return found


def _messages() -> list[tuple[str, str]]:
    root = os.environ.get("EDGEPRUNE_DATA", "")
    if not root:
        raise InputError("environment variable EDGEPRUNE_DATA is not set: expected the folder that holds sms_spam/")
    path = Path(root) / "sms_spam" / "SMSSpamCollection.tsv.xz"
    try:
        lines = lzma.decompress(path.read_bytes()).decode().splitlines()
    except (OSError, lzma.LZMAError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: expected lines of label, tab and text, packed with xz: {error}") from error
    messages = [(label, text) for label, _, text in (line.partition("\t") for line in lines)]
    if strange := sorted({label for label, _ in messages} - set(CLASSES)):
        raise InputError(f"{path}: expected the labels {', '.join(CLASSES)}, found {strange[0]!r}")
    return messages
