"""From a raw example to the model's input: one function for training, calibration, parity and judging."""

from __future__ import annotations

import numpy as np

from edgeprune.errors import InputError
from edgeprune.schema.target import Preprocessing


def preprocess(raw: np.ndarray, spec: Preprocessing) -> np.ndarray:
    """Apply `(raw * scale - mean) / std` and put channels first; integers that the model takes as they are pass.

    Args:
        raw: [examples, ...], any numeric dtype.
        spec: mean and std have one value, or one a channel.

    Returns:
        [examples, channels, ...], float32, contiguous; or [examples, ...] of the integer dtype that `spec` says.

    Raises:
        InputError: the channels of the data and of `mean` or `std` differ, or integers are expected and not found.
    """
    if spec.dtype != "float32":
        return _integers(raw, spec.dtype)
    values = raw.astype(np.float32)
    if spec.layout == "NHWC":
        values = np.moveaxis(values, -1, 1)
    mean = _a_channel(spec.mean, values, "mean")
    std = _a_channel(spec.std, values, "std")
    return np.ascontiguousarray((values * np.float32(spec.scale) - mean) / std)


def _integers(raw: np.ndarray, dtype: str) -> np.ndarray:
    limits = np.iinfo(dtype)
    if raw.dtype.kind not in "ui":
        raise InputError(
            f"preprocessing.dtype: expected integer inputs, such as token ids, for {dtype}, got {raw.dtype}"
        )
    if raw.size and (raw.min() < limits.min or raw.max() > limits.max):
        raise InputError(f"preprocessing.dtype: inputs from {raw.min()} to {raw.max()} do not fit into {dtype}")
    return np.ascontiguousarray(raw, dtype=dtype)


def _a_channel(values: tuple[float, ...], data: np.ndarray, key: str) -> np.ndarray:
    array = np.asarray(values, dtype=np.float32)
    if len(values) == 1:
        return array
    if data.ndim < 2 or data.shape[1] != len(values):  # noqa: PLR2004
        raise InputError(
            f"preprocessing.{key}: expected 1 value or one for each channel of data shaped {data.shape[1:]}, "
            f"got {len(values)}"
        )
    return array.reshape(1, -1, *([1] * (data.ndim - 2)))
