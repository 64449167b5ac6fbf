"""The section `accuracy` of `target.toml`: what the compiled artifact must keep."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from edgeprune.schema.base import FileModel, Share

SliceName = Annotated[str, Field(pattern=r"^\S(.*\S)?$")]


class PartFloor(FileModel):
    """What must be kept on a part of the data."""

    max_drop_points: Annotated[float, Field(ge=0, le=100)] | None = None
    """Percentage points of accuracy, or of another metric in [0, 1], under the dense model on the same examples."""
    min_accuracy: Share | None = None
    """Accuracy, at least, in [0, 1], where each example has one class."""
    max_worsening: Annotated[float, Field(ge=0)] | None = None
    """How much worse than the dense model's on the same examples, at most, for a metric that is no share."""
    worst_value: float | None = None
    """The value of the metric, at the worst, where an example has not one class."""

    @property
    def is_set(self) -> bool:
        """Whether anything must be kept."""
        return any(getattr(self, key) is not None for key in PartFloor.model_fields)


class SliceFloor(PartFloor):
    """What must be kept on a slice that the data factory names."""

    @model_validator(mode="after")
    def _one_at_least(self) -> Self:
        if not self.is_set:
            raise ValueError("one at least of max_drop_points, min_accuracy, max_worsening and worst_value")
        return self


class RobustnessSet(PartFloor):
    """Corrupted validation images: the dense model and the artifact are compared on them, through the compiled files.

    Each corruption is drawn at the target's seed, and none is trained on. 0 leaves one out. The floors are optional,
    and hold for each corruption by itself. Where an example has not one class, images are not shifted: what labels say
    of places would move as well.
    """

    examples: Annotated[int, Field(ge=0)] = 256
    """Drawn from the validation split, at the target's seed; 0 for no robustness set."""
    noise: Annotated[float, Field(ge=0, lt=1)] = 0.08
    """Standard deviation of normal noise, as a share of the range from the smallest to the largest raw value."""
    blur_px: Annotated[float, Field(ge=0)] = 0.75
    """Standard deviation of a Gaussian blur, in pixels."""
    brightness: Annotated[float, Field(ge=0, lt=1)] = 0.15
    """Added to every pixel, and in another set taken away, as a share of that range."""
    shift_px: Annotated[int, Field(ge=0)] = 1
    """Pixels that an image is moved, up, down, left or right; its edge is repeated. Only for one class an example."""


class AccuracyFloors(FileModel):
    """What the compiled artifact must keep, on the validation split.

    The recall of a class, and accuracy on a slice or under a corruption, FAIL only where they are under their floor
    beyond chance (exact binomial bound, 95 % over all parts; Student's t for another metric); under it within chance is
    INCONCLUSIVE.
    """

    max_drop_points: Annotated[float, Field(ge=0, le=100)] = 1.0
    """Percentage points of accuracy, or of another metric in [0, 1], under the dense model, at most."""
    max_worsening: Annotated[float, Field(ge=0)] | None = None
    """How much worse than the dense model's, at most, for a metric that is no share: in the metric's own unit."""
    worst_value: float | None = None
    """The value of any metric but accuracy, at the worst: the least, or the most where lower is better."""
    min_accuracy: Share | None = None
    """Accuracy, at least, in [0, 1]."""
    max_class_drop_points: Annotated[float, Field(ge=0, le=100)] | None = None
    """Percentage points of each class's recall under the dense model's recall of that class, at most."""
    min_class_recall: Share | None = None
    """Recall of the worst class, at least, in [0, 1]."""
    slices: dict[SliceName, SliceFloor] = Field(default_factory=dict)
    """By name of the slice, as the data factory names it."""
    robustness: RobustnessSet = RobustnessSet()
