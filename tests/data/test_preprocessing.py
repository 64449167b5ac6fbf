from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from edgeprune.data.preprocessing import preprocess
from edgeprune.errors import InputError
from edgeprune.schema.target import Preprocessing


def test_by_hand_with_channels_last() -> None:
    raw = np.array([[[[0, 255]]]], dtype=np.uint8)  # One example of 1x1 pixel and 2 channels.
    spec = Preprocessing(layout="NHWC", scale=1 / 255, mean=(0.5, 0.25), std=(0.5, 0.25))
    result = preprocess(raw, spec)
    assert result.shape == (1, 2, 1, 1)
    np.testing.assert_allclose(result.ravel(), [-1.0, 3.0], rtol=1e-6)


@given(
    channels=st.integers(1, 4),
    scale=st.floats(0.01, 2),
    mean=st.floats(-2, 2),
    std=st.floats(0.1, 3),
    seed=st.integers(0, 99),
)
@settings(max_examples=40, deadline=None)
def test_can_be_undone(channels: int, scale: float, mean: float, std: float, seed: int) -> None:
    raw = np.random.default_rng(seed).integers(0, 256, (2, 3, 5, channels), dtype=np.uint8)
    spec = Preprocessing(layout="NHWC", scale=scale, mean=(mean,) * channels, std=(std,) * channels)
    result = preprocess(raw, spec)
    assert result.dtype == np.float32
    assert result.flags["C_CONTIGUOUS"]
    assert result.shape == (2, channels, 3, 5)
    undone = np.rint((np.moveaxis(result, 1, -1).astype(np.float64) * std + mean) / scale)
    np.testing.assert_array_equal(undone, raw)


def test_raw_data_is_left_alone_and_one_value_serves_any_shape() -> None:
    raw = np.arange(6.0).reshape(2, 3)
    result = preprocess(raw, Preprocessing(mean=(1.0,)))
    np.testing.assert_array_equal(result, raw - 1)
    np.testing.assert_array_equal(raw, np.arange(6.0).reshape(2, 3))


@pytest.mark.parametrize("key", ["mean", "std"])
def test_wrong_number_of_channels_is_told(key: str) -> None:
    spec = Preprocessing.model_validate({key: (1.0, 2.0)})
    with pytest.raises(InputError, match=rf"preprocessing.{key}: expected 1 value or one for each channel .* got 2"):
        preprocess(np.zeros((1, 3, 4, 4)), spec)


def test_token_ids_pass_as_they_are() -> None:
    raw = np.array([[3, 0], [70_000, 1]], dtype=np.uint32)
    for dtype in ("int32", "int64"):
        found = preprocess(raw, Preprocessing(dtype=dtype))
        assert found.dtype == dtype
        assert found.tolist() == raw.tolist()


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (np.zeros((2, 3)), "preprocessing.dtype: expected integer inputs, .* for int32, got float64"),
        (np.array([[0, 2**40]]), "preprocessing.dtype: inputs from 0 to 1099511627776 do not fit into int32"),
    ],
)
def test_what_is_no_token_id_is_refused(raw: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        preprocess(raw, Preprocessing(dtype="int32"))


@pytest.mark.parametrize("more", [{"scale": 0.5}, {"mean": (1.0,)}, {"layout": "NHWC"}])
def test_token_ids_are_neither_scaled_nor_moved(more: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="no layout, scale, mean or std beside dtype int64"):
        Preprocessing.model_validate({"dtype": "int64", **more})
