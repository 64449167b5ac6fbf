"""Images made worse in ways that cameras know, each with a severity in units, drawn at a fixed seed.

The kinds are those of Hendrycks & Dietterich 2019, "Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations", arXiv:1903.12261, section 3 (Gaussian noise, blur, brightness), and small shifts, after Azulay & Weiss
2019, "Why do deep convolutional networks generalize so poorly to small image transformations?", arXiv:1805.12177.
Severities are our own, because they must be stated for images of any size and range.

They are taken on raw arrays, before preprocessing, as a camera would. A severity of 0 changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from edgeprune.schema.floors import RobustnessSet
from edgeprune.schema.target import Preprocessing

_IMAGE_DIMENSIONS = 4
_CHANNELS = {1, 3, 4}
_LEAST_SIDE = 8
"""Narrower than this, a blur or a shift of a pixel leaves no picture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RawImages:
    """What a corruption needs to know of the raw arrays.

    Attributes:
        rows, columns: their axes.
        low, high: the range of values: the smallest and the largest of the split.
    """

    rows: int
    columns: int
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Corruption:
    """One way to make images worse.

    Attributes:
        name: with its severity and unit, such as `blur 0.75 px`.
        apply: of raw images [examples, ...] and a seed; returns float32 of the same shape.
    """

    name: str
    apply: Callable[[np.ndarray, int], np.ndarray]


def raw_images(inputs: np.ndarray, preprocessing: Preprocessing) -> RawImages | None:
    """How raw inputs are images; None where they are not: not four dimensions, 1, 3 or 4 channels, and 8 pixels a side.

    Args:
        inputs: [examples, ...], raw; a layout of `any` is taken for channels first, as the model takes them.
        preprocessing: says the layout.
    """
    if inputs.ndim != _IMAGE_DIMENSIONS:
        return None
    channels, rows, columns = (3, 1, 2) if preprocessing.layout == "NHWC" else (1, 2, 3)
    sides = inputs.shape[rows], inputs.shape[columns]
    if inputs.shape[channels] not in _CHANNELS or min(sides) < _LEAST_SIDE:
        return None
    return RawImages(rows=rows, columns=columns, low=float(inputs.min()), high=float(inputs.max()))


def corruptions(wanted: RobustnessSet, images: RawImages) -> tuple[Corruption, ...]:
    """The corruptions that are asked for, always in the same order."""
    span = images.high - images.low
    known = (
        (wanted.noise, f"noise {wanted.noise:g}", partial(noisy, deviation=wanted.noise * span)),
        (wanted.blur_px, f"blur {wanted.blur_px:g} px", partial(blurred, images=images, deviation_px=wanted.blur_px)),
        (wanted.brightness, f"brighter {wanted.brightness:g}", partial(brighter, by=wanted.brightness * span)),
        (wanted.brightness, f"darker {wanted.brightness:g}", partial(brighter, by=-wanted.brightness * span)),
        (wanted.shift_px, f"shift {wanted.shift_px:g} px", partial(shifted, images=images, by_px=wanted.shift_px)),
    )
    asked = ((name, how) for severity, name, how in known if severity)
    return tuple(Corruption(name=name, apply=partial(_clipped, how, images)) for name, how in asked)


def noisy(raw: np.ndarray, seed: int, *, deviation: float) -> np.ndarray:
    """Add normal noise of that standard deviation, in raw units, drawn for each value."""
    drawn = np.random.default_rng(seed).standard_normal(raw.shape, dtype=np.float32)
    return raw.astype(np.float32) + np.float32(deviation) * drawn


def blurred(raw: np.ndarray, _seed: int, *, images: RawImages, deviation_px: float) -> np.ndarray:
    """Blur each channel with a Gaussian of that standard deviation; beyond the edge, the edge goes on."""
    from scipy.ndimage import gaussian_filter

    sigma = [0.0] * raw.ndim
    sigma[images.rows] = sigma[images.columns] = deviation_px
    made: np.ndarray = gaussian_filter(raw.astype(np.float32), sigma, mode="nearest")
    return made


def brighter(raw: np.ndarray, _seed: int, *, by: float) -> np.ndarray:
    """Add so much to every value, in raw units; negative is darker."""
    return raw.astype(np.float32) + np.float32(by)


def shifted(raw: np.ndarray, seed: int, *, images: RawImages, by_px: int) -> np.ndarray:
    """Move each image up, down, left or right, drawn for each; what moves in repeats its edge."""
    moved = raw.astype(np.float32)
    directions = np.random.default_rng(seed).integers(0, 4, len(raw))
    for direction, (axis, step) in enumerate(
        ((images.rows, -by_px), (images.rows, by_px), (images.columns, -by_px), (images.columns, by_px))
    ):
        chosen = directions == direction
        side = raw.shape[axis]
        source = np.clip(np.arange(side) - step, 0, side - 1)
        moved[chosen] = moved[chosen].take(source, axis=axis)
    return moved


def _clipped(how: Callable[[np.ndarray, int], np.ndarray], images: RawImages, raw: np.ndarray, seed: int) -> np.ndarray:
    """No sensor gives more than its range."""
    made: np.ndarray = np.clip(how(raw, seed), np.float32(images.low), np.float32(images.high))
    return made
