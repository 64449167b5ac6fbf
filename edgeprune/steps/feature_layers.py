"""Layers whose outputs are compared with a teacher's: the pairs that a target names, and if both models have them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from edgeprune.errors import InputError
from edgeprune.recovery.features import make_adapters
from edgeprune.schema.target import TargetSpec
from edgeprune.steps.inputs import Target

if TYPE_CHECKING:
    from torch import Tensor, nn

RECOVERY, TEACHER = "recovery.features", "teacher.features"


def feature_pairs(features: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """(layer, layer of the teacher) of each."""
    return tuple((ours, theirs or ours) for ours, _, theirs in (pair.partition(":") for pair in features))


def compared_layers(spec: TargetSpec) -> dict[str, str]:
    """By layer that recovery compares, the key that names it: it must be there after every cut."""
    return {ours: RECOVERY for ours, _ in feature_pairs(spec.recovery.features)}


def check_features(target: Target, model: nn.Module, example: Tensor) -> None:
    """Look for the layers in both models, so that a misspelt one is told before anything is built.

    Args:
        target: names them.
        model: its own.
        example: one input, with its batch dimension.

    Raises:
        InputError: there is no such layer, it gives no tensor, or no adapter brings it to the teacher's.
    """
    spec = target.spec
    teaching = spec.teacher.features if spec.teacher else ()
    uses = ((RECOVERY, spec.recovery.features, spec.recovery.teacher), (TEACHER, teaching, "teacher"))
    for key, features, who in uses:
        if not features:
            continue
        factory = spec.teacher.factory if spec.teacher and who == "teacher" else spec.model.factory
        teacher = model if who == "dense" else target.build_model(factory, key="teacher.factory")
        find = partial(_find, f"{target.file}: {key}", model, teacher, feature_pairs(features), example)
        target.guard(find, factory, key)


def _find(
    where: str, model: nn.Module, teacher: nn.Module, pairs: tuple[tuple[str, str], ...], example: Tensor
) -> None:
    try:
        make_adapters(model, teacher, pairs, example)
    except InputError as error:
        raise InputError(f"{where}: {error.message.removeprefix('features: ')}", **error.facts) from error
