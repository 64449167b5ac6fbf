"""Keys of `target.toml` that go with some metrics only: floors, and what INT8 may lose."""

from __future__ import annotations

from edgeprune.data.splits import DataSplits
from edgeprune.errors import InputError
from edgeprune.protocols import Metric
from edgeprune.schema.floors import PartFloor
from edgeprune.steps.inputs import Target


def check_metric_keys(target: Target, data: DataSplits, metric: Metric) -> None:
    """Refuse floors and tolerances that say nothing of what judges the target's outputs.

    Raises:
        InputError: naming the key, and what to say in its place.
    """
    _check_floors(target, data, metric)
    _check_part_floors(target, data, metric)
    _check_tolerance(target, metric)


def _check_floors(target: Target, data: DataSplits, metric: Metric) -> None:
    floors, name = target.spec.accuracy, target.spec.task.metric
    is_accuracy = name == "accuracy"
    set_here = floors.model_fields_set

    def refuse(key: str, why: str) -> InputError:
        return InputError(f"{target.file}: accuracy.{key}: {why}")

    for key in ("max_class_drop_points", "min_class_recall"):
        if getattr(floors, key) is not None and not data.classifies:
            raise refuse(key, "recall is of classes, and these examples have not one class each")
    if floors.min_accuracy is not None and not is_accuracy:
        raise refuse("min_accuracy", f"the metric is {name}; say accuracy.worst_value in its place")
    if floors.worst_value is not None and is_accuracy:
        raise refuse("worst_value", "the metric is accuracy; say accuracy.min_accuracy in its place")
    if metric.is_share:
        if floors.max_worsening is not None:
            raise refuse("max_worsening", f"{name} is a share; say accuracy.max_drop_points in its place")
        return
    if "max_drop_points" in set_here:
        raise refuse("max_drop_points", f"{name} is no share to lose points of; say accuracy.max_worsening")
    if floors.max_worsening is None and floors.worst_value is None:
        raise refuse("max_worsening", f"expected this or accuracy.worst_value, in the unit of {name}; found neither")


def _check_part_floors(target: Target, data: DataSplits, metric: Metric) -> None:
    """Refuse keys of slices and of the robustness set that say nothing of what judges them."""
    wanted, name = target.spec.accuracy, target.spec.task.metric
    if not data.classifies and "shift_px" in wanted.robustness.model_fields_set and wanted.robustness.shift_px:
        raise InputError(
            f"{target.file}: accuracy.robustness.shift_px: expected 0 or nothing: what labels say of places would move "
            "as well, so that images are shifted only where each example has one class"
        )
    parts: dict[str, PartFloor] = {f"slices.{part}": floor for part, floor in wanted.slices.items()}
    for where, floor in (parts | {"robustness": wanted.robustness}).items():
        if data.classifies:
            meaningless = {"max_worsening", "worst_value"}
            why = "parts are judged by right answers; say max_drop_points or min_accuracy in its place"
        else:
            meaningless = {"min_accuracy", "max_worsening" if metric.is_share else "max_drop_points"}
            other = "max_drop_points" if metric.is_share else "max_worsening"
            why = f"parts are judged by {name}; say {other} or worst_value in its place"
        for key in sorted(meaningless):
            if getattr(floor, key) is not None:
                raise InputError(f"{target.file}: accuracy.{where}.{key}: {why}")


def _check_tolerance(target: Target, metric: Metric) -> None:
    quantization, name = target.spec.quantization, target.spec.task.metric
    where = f"{target.file}: quantization."
    if metric.is_share and quantization.tolerated_worsening is not None:
        raise InputError(f"{where}tolerated_worsening: {name} is a share; say tolerated_drop_points in its place")
    if not metric.is_share and "tolerated_drop_points" in quantization.model_fields_set:
        raise InputError(
            f"{where}tolerated_drop_points: {name} is no share to lose points of; say tolerated_worsening in its place"
        )
