from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune.data.corruptions import RawImages, blurred, brighter, corruptions, noisy, raw_images, shifted
from edgeprune.data.slices import slice_members
from edgeprune.data.splits import DataSplits, Split, check_splits
from edgeprune.errors import InputError
from edgeprune.schema.floors import RobustnessSet
from edgeprune.schema.target import Preprocessing

HWC = RawImages(rows=1, columns=2, low=0.0, high=255.0)


def photos(count: int = 6, seed: int = 0) -> np.ndarray:
    """[count, 9, 8, 3], uint8."""
    return np.random.default_rng(seed).integers(0, 256, (count, 9, 8, 3), dtype=np.uint8)


def splits(validation: Mapping[str, np.ndarray], test: Mapping[str, np.ndarray]) -> DataSplits:
    inputs, labels = np.zeros((4, 2), dtype=np.float32), np.array([0, 1, 0, 1])
    return DataSplits(
        train=Split(inputs, labels),
        validation=Split(inputs, labels, slices=validation),
        test=Split(inputs, labels, slices=test),
        class_names=("a", "b"),
    )


def test_a_mask_and_its_indices_are_the_same_slice() -> None:
    mask = np.array([True, False, False, True])
    np.testing.assert_array_equal(slice_members(np.array([3, 0]), 4), slice_members(mask, 4))


def test_slices_are_part_of_the_identity_and_their_absence_changes_nothing() -> None:
    mask = {"night": np.array([True, False, False, True])}
    plain, sliced = splits({}, {}), splits(mask, mask)
    renamed = splits({"dusk": mask["night"]}, {"dusk": mask["night"]})
    assert len({check_splits(d, where="x").identity() for d in (plain, sliced, renamed)}) == 3


@pytest.mark.parametrize(
    ("slices", "message"),
    [
        ({"night": np.array([True, False])}, "slice 'night': expected a mask of 4 examples, got 2"),
        ({"night": np.array([0, 4])}, "expected indices from 0 to 3, got 0 to 4"),
        ({"night": np.array([1, 1, 2])}, "expected each index once, got 1 twice"),
        ({"night": np.array([0.5])}, r"got float64 \(1,\)"),
        ({"night": [True] * 4}, "got list"),
        ({"": np.array([0])}, "expected a name for each slice, got ''"),
        (["night"], "expected slices as a dict of name to mask or indices, got list"),
    ],
)
def test_slices_that_mean_no_examples_are_refused(slices: Mapping[str, np.ndarray], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_splits(splits(slices, {}), where="model.py:load")


def test_a_slice_of_one_split_only_is_refused() -> None:
    night = {"night": np.array([0])}
    with pytest.raises(InputError, match=r"the same slices in validation and test; only one of them has .*'dusk'"):
        check_splits(splits(night, {"dusk": np.array([0])}), where="model.py:load")
    check_splits(splits(night, {}), where="model.py:load")


def test_what_is_an_image() -> None:
    nhwc = Preprocessing(layout="NHWC")
    assert raw_images(photos(), nhwc) == replace(HWC, low=float(photos().min()), high=float(photos().max()))
    assert raw_images(photos(), Preprocessing()) is None  # nine channels of 8 x 3
    assert raw_images(photos().transpose(0, 3, 1, 2), Preprocessing()) is not None
    assert raw_images(np.zeros((4, 1, 7, 7)), Preprocessing()) is None
    assert raw_images(np.zeros((4, 80)), Preprocessing()) is None


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_severity_0_changes_nothing_and_a_seed_gives_the_same_bytes(seed: int) -> None:
    raw = photos(seed=seed)
    for unchanged in (
        noisy(raw, seed, deviation=0.0),
        blurred(raw, seed, images=HWC, deviation_px=0.0),
        brighter(raw, seed, by=0.0),
        shifted(raw, seed, images=HWC, by_px=0),
    ):
        np.testing.assert_array_equal(unchanged, raw.astype(np.float32))
    for corruption in corruptions(RobustnessSet(), HWC):
        once, again = corruption.apply(raw, seed), corruption.apply(raw, seed)
        assert once.tobytes() == again.tobytes()
        assert (once.dtype, once.shape) == (np.float32, raw.shape)
        assert once.min() >= 0.0
        assert once.max() <= 255.0
        assert not np.array_equal(once, raw)


def test_names_say_severity_and_unit_and_0_leaves_one_out() -> None:
    names = [c.name for c in corruptions(RobustnessSet(), HWC)]
    assert names == ["noise 0.08", "blur 0.75 px", "brighter 0.15", "darker 0.15", "shift 1 px"]
    assert [c.name for c in corruptions(RobustnessSet(noise=0.0, brightness=0.0, shift_px=2), HWC)] == [
        "blur 0.75 px", "shift 2 px",
    ]  # fmt: skip


def test_severities_are_what_they_say() -> None:
    grey = np.full((64, 16, 16, 3), 128, dtype=np.uint8)
    by_name = {c.name.split()[0]: c.apply(grey, 1) for c in corruptions(RobustnessSet(), HWC)}
    assert np.std(by_name["noise"]) == pytest.approx(0.08 * 255, rel=0.02)
    assert np.unique(by_name["brighter"]) == pytest.approx(128 + 0.15 * 255)
    assert np.unique(by_name["darker"]) == pytest.approx(128 - 0.15 * 255)
    dot = np.zeros((1, 21, 21, 1), dtype=np.float32)
    dot[0, 10, 10, 0] = 1.0
    spread = blurred(dot, 0, images=HWC, deviation_px=0.75)[0, :, :, 0]
    variance = float((spread.sum(axis=1) * (np.arange(21) - 10.0) ** 2).sum())
    assert np.sqrt(variance) == pytest.approx(0.75, rel=0.02)


def test_a_shift_moves_each_image_one_way_and_repeats_the_edge() -> None:
    rows = np.arange(4.0)[:, None] * np.ones((4, 4))
    image = (rows + 10 * rows.T)[None, :, :, None].repeat(40, axis=0)
    moved = shifted(image, 3, images=HWC, by_px=1)[..., 0]
    up = np.vstack([image[0, 1:, :, 0], image[0, 3:, :, 0]])
    down = np.vstack([image[0, :1, :, 0], image[0, :3, :, 0]])
    left = np.hstack([image[0, :, 1:, 0], image[0, :, 3:, 0]])
    right = np.hstack([image[0, :, :1, 0], image[0, :, :3, 0]])
    ways = [sum(bool(np.array_equal(m, way)) for m in moved) for way in (up, down, left, right)]
    assert sum(ways) == 40
    assert min(ways) > 0


def test_more_severe_is_further_from_the_original() -> None:
    raw = photos(32)
    for name in ("noise", "blur_px", "brightness"):
        distances = []
        for severity in (0.1, 0.3, 0.6):
            wanted = RobustnessSet(**{"noise": 0.0, "blur_px": 0.0, "brightness": 0.0, "shift_px": 0, name: severity})
            distances.append(np.abs(corruptions(wanted, HWC)[0].apply(raw, 5) - raw).mean())
        assert all(a < b for a, b in pairwise(distances)), name
