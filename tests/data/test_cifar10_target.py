from __future__ import annotations

import lzma
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from targets_for_tests import target_module

from edgeprune.data.splits import check_splits
from edgeprune.errors import InputError
from edgeprune.graph.cost import count_parameters
from edgeprune.graph.groups import find_groups
from edgeprune.schema.base import load_toml
from edgeprune.schema.target import TargetSpec

FOLDER = Path(__file__).parents[2] / "targets" / "cifar10-resnet20"


@pytest.fixture(scope="module")
def module() -> ModuleType:
    return target_module(FOLDER)


def _write_images(path: Path, images: np.ndarray) -> None:
    """The recipe of the target's README."""
    planes = images.transpose(3, 0, 1, 2).copy()
    planes[0] -= planes[1]
    planes[2] -= planes[1]
    planes = np.diff(planes, axis=3, prepend=np.uint8(0))
    planes = np.diff(planes, axis=2, prepend=np.uint8(0))
    with lzma.open(path, "wb") as stream:
        np.save(stream, planes)


@pytest.fixture
def folder(tmp_path: Path, module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGEPRUNE_DATA", str(tmp_path))
    folder = tmp_path / "cifar10"
    folder.mkdir()
    images = np.random.default_rng(0).integers(0, 256, (14, 32, 32, 3), dtype=np.uint8)
    np.save(tmp_path / "images.npy", images)
    for number, name in enumerate(module.TRAIN_FILES):
        _write_images(folder / name, images[2 * number : 2 * number + 2])
    _write_images(folder / module.TEST_FILE, images[10:])
    labels = {"train": np.arange(10, dtype=np.uint8), "test": np.arange(4, dtype=np.uint8)}
    np.savez(folder / "labels.npz", **labels, test_index=np.array([0, 3, 5, 8]))
    return folder


def test_images_come_back_bit_for_bit_and_even_indices_validate(module: ModuleType, folder: Path) -> None:
    images = np.load(folder.parent / "images.npy")
    data = check_splits(module.load_data(seed=0), where="cifar10")
    np.testing.assert_array_equal(data.train.inputs, images[:10])
    np.testing.assert_array_equal(data.validation.inputs, images[[10, 13]])
    np.testing.assert_array_equal(data.test.inputs, images[[11, 12]])
    assert data.validation.labels.tolist() == [0, 3]
    assert data.test.labels.tolist() == [1, 2]


def test_missing_variable_folder_and_file_say_how(
    module: ModuleType, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "train_batch_3.npy.xz").unlink()
    with pytest.raises(InputError, match=r"train_batch_3.npy.xz: no such file.*README.md"):
        module.load_data(seed=0)
    monkeypatch.setenv("EDGEPRUNE_DATA", "/nowhere")
    with pytest.raises(InputError, match=r"/nowhere/cifar10/labels.npz: no such file.*EDGEPRUNE_DATA is '/nowhere'"):
        module.load_data(seed=0)
    monkeypatch.delenv("EDGEPRUNE_DATA")
    with pytest.raises(InputError, match=r"EDGEPRUNE_DATA is not set: .*README.md"):
        module.load_data(seed=0)


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_file_cut_short_is_told(module: ModuleType, folder: Path, share: float) -> None:
    path = folder / module.TEST_FILE
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(InputError, match=r"test_9980.npy.xz: not a readable .npy.xz file"):
        module.load_data(seed=0)


def test_labels_without_an_array_are_told(module: ModuleType, folder: Path) -> None:
    np.savez(folder / "labels.npz", train=np.arange(10))
    with pytest.raises(InputError, match=r"labels.npz: expected arrays train, test and test_index"):
        module.load_data(seed=0)


def test_network_is_the_published_one(module: ModuleType) -> None:
    model = module.build_model()
    assert count_parameters(model) == 269_722
    groups = find_groups(model, torch.zeros(1, 3, 32, 32))
    # The stream goes through all stages: the shortcuts pad its channels with zeros on both sides.
    assert [g.name for g in groups.groups][1:] == [f"layer{s}.{b}.conv1" for s in (1, 2, 3) for b in (0, 1, 2)]
    assert groups.groups[0].name == "conv1"
    assert groups.refused == ()


def test_augmentation_crops_and_mirrors(module: ModuleType) -> None:
    inputs = torch.rand(40, 3, 32, 32)
    outputs = module.augment(inputs, torch.Generator().manual_seed(0))
    black = -torch.tensor(module.MEAN) / torch.tensor(module.STD)
    padded = black[:, None, None].repeat(40, 1, 40, 40)
    padded[:, :, 4:36, 4:36] = inputs
    mirrored = 0
    for image, output in zip(padded, outputs, strict=True):
        crops = [
            (flip, image[:, row : row + 32, column : column + 32])
            for row in range(9)
            for column in range(9)
            for flip in (False, True)
        ]
        (flip,) = [flip for flip, crop in crops if torch.equal(crop.flip(2) if flip else crop, output)]
        mirrored += flip
    assert 10 <= mirrored <= 30


def test_target_file_is_sound(module: ModuleType) -> None:
    target = load_toml(FOLDER / "target.toml", TargetSpec)
    assert target.name == FOLDER.name
    assert target.data.help
    assert (target.preprocessing.mean, target.preprocessing.std) == (module.MEAN, module.STD)
    for factory in (target.model.factory, target.data.factory, target.training.augment):
        assert factory is not None
        assert callable(getattr(module, factory.split(":")[1]))
