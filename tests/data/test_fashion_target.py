"""Fashion-MNIST: which images are to choose by, and what is wrong with a folder that does not hold them."""

from __future__ import annotations

import lzma
from pathlib import Path

import numpy as np
import pytest
from targets_for_tests import target_module

from edgeprune.errors import InputError

FOLDER = Path(__file__).parents[2] / "targets" / "fashion-lenet"


def test_the_last_training_images_are_to_choose_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = target_module(FOLDER)
    monkeypatch.setenv("EDGEPRUNE_DATA", str(tmp_path))
    with pytest.raises(InputError, match=r"train_images.npy.xz: expected an .npy.xz file"):
        code.load_data(0)
    folder = tmp_path / "fashion_mnist"
    folder.mkdir()
    for split, count in (("train", 5020), ("test", 30)):
        images = np.zeros((count, 28, 28), np.uint8)
        images[:, 0, 0] = np.arange(count) % 251
        with lzma.open(folder / f"{split}_images.npy.xz", "wb", preset=0) as stream:
            np.save(stream, images)
    with pytest.raises(InputError, match=r"labels.npz: expected arrays train and test"):
        code.load_data(0)
    np.savez(folder / "labels.npz", train=np.arange(5020) % 251 % 10, test=np.arange(30) % 10)
    data = code.load_data(0)
    parts = [data.train, data.validation, data.test]
    assert [part.inputs.shape for part in parts] == [(20, 1, 28, 28), (5000, 1, 28, 28), (30, 1, 28, 28)]
    for part in parts:
        assert np.array_equal(part.labels, part.inputs[:, 0, 0, 0] % 10)
    assert data.validation.inputs[0, 0, 0, 0] == 20


def test_what_is_missing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDGEPRUNE_DATA", raising=False)
    with pytest.raises(InputError, match="EDGEPRUNE_DATA is not set"):
        target_module(FOLDER).load_data(0)
