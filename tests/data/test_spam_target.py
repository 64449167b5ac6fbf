"""SMS Spam: equal messages are in one part, words are those of training, and what is wrong with a file is told."""

from __future__ import annotations

import lzma
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from targets_for_tests import target_module

from edgeprune.errors import InputError

FOLDER = Path(__file__).parents[2] / "targets" / "sms-spam"


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setenv("EDGEPRUNE_DATA", str(tmp_path))
    return target_module(FOLDER)


def _write(folder: Path, lines: list[str]) -> None:
    (folder / "sms_spam").mkdir(exist_ok=True)
    (folder / "sms_spam" / "SMSSpamCollection.tsv.xz").write_bytes(lzma.compress("\n".join(lines).encode()))


def test_equal_messages_are_in_one_part_and_words_are_those_of_training(code: ModuleType, tmp_path: Path) -> None:
    words = [f"only{chr(97 + n // 26)}{chr(97 + n % 26)}" for n in range(300)]
    lines = [f"ham\tsee you {word}" for word in words]
    _write(tmp_path, lines + [f"spam\tWIN {n} now z{word}!" for word in words for n in (5, 100)])
    data = code.load_data(0)
    parts = [data.train, data.validation, data.test]
    assert sum(len(part) for part in parts) == 900
    assert all(len(part) > 100 for part in parts)
    for part in parts:
        assert part.inputs.shape == (len(part), code.LENGTH)
        # Both texts of a campaign, which differ in digits and so in their length, are here.
        lengths = (part.inputs != code.PADDING).sum(axis=1)
        assert (lengths[part.labels == 1] == 5).sum() == (lengths[part.labels == 1] == 7).sum()
        assert set(lengths[part.labels == 0]) == {3}
    for part in parts:
        known = part.inputs[part.labels == 0, 2] != code.UNKNOWN
        assert known.all() if part is data.train else not known.any()


def test_long_messages_end_where_the_model_ends(code: ModuleType, tmp_path: Path) -> None:
    lines = [f"{label}\t{'word ' * 50}{n * 'x'}" for n in range(1, 60) for label in ("ham", "spam")]
    _write(tmp_path, lines)
    assert (np.asarray(code.load_data(0).train.inputs) != code.PADDING).all()


def test_what_is_wrong_with_the_file_is_told(code: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"tsv.xz: expected lines of label, tab and text"):
        code.load_data(0)
    _write(tmp_path, ["ham\tyes", "eggs\tno"])
    with pytest.raises(InputError, match="expected the labels ham, spam, found 'eggs'"):
        code.load_data(0)
    monkeypatch.delenv("EDGEPRUNE_DATA")
    with pytest.raises(InputError, match="EDGEPRUNE_DATA is not set"):
        code.load_data(0)
