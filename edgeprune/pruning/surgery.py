"""Structured pruning: taking whole channels out, and building such a model again from its recipe."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from math import fsum
from pathlib import Path
from typing import TYPE_CHECKING

from edgeprune.errors import BuildError, InputError
from edgeprune.files import appearing, write_atomically
from edgeprune.graph.blocks import remove_blocks
from edgeprune.graph.groups import ChannelGraph
from edgeprune.graph.slicing import ChannelEdit, Side, remove_channels_
from edgeprune.graph.weights import load_weights_
from edgeprune.protocols import Criterion, ScoringData
from edgeprune.pruning.scoring import channel_scores
from edgeprune.records.codec import from_json, to_json
from edgeprune.records.recipe import Cut, PruningRecipe

if TYPE_CHECKING:
    from torch import Tensor, nn

RECIPE_FILE = "recipe.json"
WEIGHTS_FILE = "model.safetensors"


def structured_prune(
    model: nn.Module,
    example: Tensor,
    widths: Mapping[str, int],
    criterion: Criterion,
    *,
    seed: int = 0,
    data: ScoringData | None = None,
) -> tuple[nn.Module, tuple[Cut, ...]]:
    """Bring channel groups down to given widths on a copy, keeping the best channels of each.

    Args:
        model: left alone.
        example: one input, with its batch dimension.
        widths: channels to keep, by group name; groups that are not named, or have that width, stay as they are. Where
            channels only go in units, such as attention heads, a width is rounded up to whole ones.
        criterion: scores the channels: see `pruning.scoring.channel_scores`.
        seed: for criteria that draw at random.
        data: for criteria that look at data.

    Returns:
        The copy, and what was cut from it, in the order of `widths`.

    Raises:
        BuildError: no such group, a width under 1 or over the present one, or scores that are not finite.
        InputError: the criterion needs data and has none.
    """
    graph = ChannelGraph(model, example)
    narrowed = [group for group, width in widths.items() if width != graph.width(group)]
    for group in narrowed:
        _check_width(graph, group, widths[group])
    scores = channel_scores(model, graph, narrowed, criterion, seed=seed, data=data)
    return cut_by_scores(model, graph, widths, scores)


def cut_by_scores(
    model: nn.Module, graph: ChannelGraph, widths: Mapping[str, int], scores: Mapping[str, Tensor]
) -> tuple[nn.Module, tuple[Cut, ...]]:
    """The same with scores that were taken before, of this very model.

    Args:
        model: left alone.
        graph: of the model.
        widths: channels to keep, by group name.
        scores: by group, [width of its root]; the higher stay.

    Raises:
        BuildError: no such group, or a width under 1 or over the present one.
    """
    cuts: list[Cut] = []
    edits: list[ChannelEdit] = []
    for group, width in widths.items():
        _check_width(graph, group, width)
        if width == graph.width(group):
            continue
        removed = _worst(scores[group], graph.units(group), graph.needed(group), width)
        if not removed:
            continue
        cuts.append(Cut(group=group, removed=removed))
        edits.extend(graph.edits(group, removed))
    pruned = copy.deepcopy(model)
    remove_channels_(pruned, edits)
    return pruned, tuple(cuts)


def _worst(
    scores: Tensor, units: Sequence[Sequence[int]], needed: Iterable[frozenset[int]], width: int
) -> tuple[int, ...]:
    """Channels of the units that go, ascending; a unit counts as the mean of its channels."""
    values = scores.tolist()
    means = [fsum(values[channel] for channel in unit) / len(unit) for unit in units]
    # A stable order, so that equal scores keep the channels of the lower index on every machine.
    order = sorted(range(len(units)), key=lambda unit: -means[unit])
    # No layer may lose all that it reads: the best of those stays, whatever its score.
    first = {min(some, key=order.index) for some in needed}
    order.sort(key=lambda unit: unit not in first)
    kept = 0
    while order and kept < width:
        kept += len(units[order.pop(0)])
    return tuple(sorted(channel for unit in order for channel in units[unit]))


def rebuild(model: nn.Module, example: Tensor, recipe: PruningRecipe) -> nn.Module:
    """Replay a recipe on a copy of a fresh model; the shapes are those of the pruned one.

    Raises:
        BuildError: the recipe does not fit the model.
    """
    rebuilt = remove_blocks(model, recipe.removed_blocks)
    left = recipe.cuts
    while left:
        edits, served = _served_by(ChannelGraph(rebuilt, example), left)
        remove_channels_(rebuilt, edits)
        left = left[served:]
    return rebuilt


def save_pruned(model: nn.Module, recipe: PruningRecipe, folder: Path) -> None:
    """Write `recipe.json` and `model.safetensors` into a folder, each by atomic rename.

    A tensor that the model holds under two names is written once.
    """
    from safetensors.torch import save_model

    with appearing(folder / WEIGHTS_FILE) as weights:
        save_model(copy.deepcopy(model), str(weights))
    # The recipe comes last: where it is, the weights are.
    write_atomically(folder / RECIPE_FILE, to_json(recipe, indent=1))


def load_pruned(model: nn.Module, example: Tensor, folder: Path) -> nn.Module:
    """A pruned model as `save_pruned` wrote it.

    Args:
        model: fresh from the target's factory; left alone.
        example: one input, with its batch dimension.
        folder: that `save_pruned` wrote.

    Raises:
        InputError: a file is missing or damaged, or is not of this model; the message names file, tensor, expected
            and found.
    """
    path = folder / RECIPE_FILE
    try:
        recipe = from_json(PruningRecipe, path.read_bytes())
        pruned = rebuild(model, example, recipe)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    except BuildError as error:
        raise InputError(f"{path}: {error.message}") from error
    load_weights_(pruned, folder / WEIGHTS_FILE)
    return pruned


def _check_width(graph: ChannelGraph, group: str, width: int) -> None:
    present = graph.width(group)
    if not 1 <= width <= present:
        raise BuildError(f"group {group!r}: expected a width from 1 to {present}, got {width}", group=group)


def _served_by(graph: ChannelGraph, cuts: Sequence[Cut]) -> tuple[list[ChannelEdit], int]:
    """The edits of the first of these cuts, and of how many: those that one trace can serve.

    A root layer whose outputs another cut takes has other indices after it, and maybe other units: of attention with
    one head left, each row of the values goes alone.
    """
    edits: list[ChannelEdit] = []
    for served, cut in enumerate(cuts):
        if any(edit.layer == cut.group and edit.side is not Side.IN for edit in edits):
            return edits, served
        if cut.removed:
            edits.extend(graph.edits(cut.group, cut.removed))
    return edits, len(cuts)
