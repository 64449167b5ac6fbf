from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from structures import structure

from edgeprune.errors import InputError
from edgeprune.graph.groups import ChannelGraph, find_groups
from edgeprune.pruning.criteria import CRITERIA
from edgeprune.pruning.scoring import channel_scores
from edgeprune.pruning.selection import (
    Room,
    global_widths,
    sensitivity_shares,
    sensitivity_widths,
    told_widths,
    uniform_widths,
)
from edgeprune.pruning.surgery import structured_prune

WIDTHS = {"stem": 8, "layer1.conv": 16, "layer2.conv": 32}
ROOMS = {group: Room(width=width) for group, width in WIDTHS.items()}
HEADS = {"heads": Room(width=32, unit=8, least=9), "feed": Room(width=32)}


def test_same_share_everywhere_and_never_all() -> None:
    assert uniform_widths(ROOMS, 0.25) == {"stem": 6, "layer1.conv": 12, "layer2.conv": 24}
    assert set(uniform_widths(ROOMS, 1.0).values()) == {1}
    # 32 less 40 % are 19.2 channels, nearest to two heads; a least of 9 channels is two heads as well.
    assert uniform_widths(HEADS, 0.4) == {"heads": 16, "feed": 19}
    assert uniform_widths(HEADS, 1.0) == {"heads": 16, "feed": 1}


def test_shares_as_told_with_wildcards() -> None:
    found = told_widths(ROOMS, {"layer1.*": 0.5, "layer*": 0.25})
    assert found == {"stem": 8, "layer1.conv": 8, "layer2.conv": 24}
    with pytest.raises(InputError, match="did you mean 'layer1"):
        told_widths(ROOMS, {"layer1.con": 0.5})


def test_lowest_of_all_go_first_and_no_group_falls_under_the_least() -> None:
    scores = {"a": torch.tensor([0.1, 0.2, 0.3, 0.4]), "b": torch.tensor([0.25, 5.0, 6.0, 7.0])}
    rooms = {"a": Room(width=4), "b": Room(width=4)}
    assert global_widths(rooms, scores, 0.5) == {"a": 1, "b": 3}
    assert global_widths(rooms, scores, 0.25) == {"a": 2, "b": 4}
    assert global_widths({g: Room(width=4, least=2) for g in rooms}, scores, 1.0) == {"a": 2, "b": 2}


def test_what_goes_together_is_ranked_and_taken_together() -> None:
    scores = {"heads": torch.tensor([0.1, 0.9, 0.3, 0.2]), "feed": torch.tensor([0.4, 0.5, 0.6, 2.0])}
    rooms = {"heads": Room(width=4, unit=2), "feed": Room(width=4)}
    # The heads are channels 0 and 2, of mean 0.2, and 1 and 3, of mean 0.55: between 0.5 and 0.6.
    units = {"heads": ((0, 2), (1, 3)), "feed": ((0,), (1,), (2,), (3,))}
    assert global_widths(rooms, scores, 0.25, units) == {"heads": 2, "feed": 4}
    assert global_widths(rooms, scores, 0.5, units) == {"heads": 2, "feed": 2}
    # The other head would be next, but one stays.
    assert global_widths(rooms, scores, 0.6, units) == {"heads": 2, "feed": 1}


@pytest.mark.parametrize("name", ["decoder", "packed", "shuffle"])
def test_widths_of_real_units_can_be_cut_as_they_are(name: str) -> None:
    model, example = structure(name)
    groups, graph = find_groups(model, example).groups, ChannelGraph(model, example)
    rooms = {g.name: Room(width=g.width, unit=g.unit) for g in groups}
    scores = channel_scores(model, graph, list(rooms), CRITERIA.get("l2"))
    widths = global_widths(rooms, scores, 0.4, {g: graph.units(g) for g in rooms})
    pruned, _ = structured_prune(model, example, widths, CRITERIA.get("l2"))
    after = ChannelGraph(pruned, example)
    assert {g: after.width(g) for g in rooms} == widths
    assert sum(r.width for r in rooms.values()) - sum(widths.values()) >= round(
        0.4 * sum(r.width for r in rooms.values())
    )


def test_every_group_is_cut_until_it_loses_the_same() -> None:
    slopes = {"stem": 0.4, "layer1.conv": 0.1, "layer2.conv": 0.01}
    found = sensitivity_widths(ROOMS, lambda group, width: slopes[group] * (WIDTHS[group] - width), 0.5)
    # 28 channels: at a loss of 0.28 the last group gives 28, the others 2 and 0; at 0.26 they give 26, 2 and 0.
    assert found == {"stem": 8, "layer1.conv": 14, "layer2.conv": 6}
    assert sensitivity_widths(ROOMS, lambda *_: 0.0, 0.0) == WIDTHS
    # A head costs as much as 8 channels of the other: at a loss of 8 both have given them.
    assert sensitivity_widths(HEADS, lambda g, w: 32.0 - w, 0.25) == {"heads": 24, "feed": 24}
    assert sensitivity_widths(HEADS, lambda g, w: 32.0 - w, 1.0) == {"heads": 16, "feed": 1}


@given(ratio=st.floats(0, 1), sensitive=st.floats(0.1, 10))
@settings(max_examples=40, deadline=None)
def test_at_least_the_share_is_out_where_groups_can_bear_it(ratio: float, sensitive: float) -> None:
    widths = sensitivity_widths(ROOMS, lambda g, w: (sensitive if g == "stem" else 1) * (1 - w / WIDTHS[g]), ratio)
    out = sum(WIDTHS.values()) - sum(widths.values())
    assert out >= min(round(ratio * 56), 56 - 3)
    assert all(1 <= width <= WIDTHS[group] for group, width in widths.items())


@pytest.mark.parametrize("ratio", [-0.1, 1.1, float("nan")])
def test_impossible_ratios_are_told(ratio: float) -> None:
    for select in (
        lambda: uniform_widths(ROOMS, ratio),
        lambda: told_widths(ROOMS, {"*": ratio}),
        lambda: global_widths({"a": Room(width=2)}, {"a": torch.ones(2)}, ratio),
        lambda: sensitivity_widths(ROOMS, lambda *_: 0.0, ratio),
    ):
        with pytest.raises(InputError, match="expected a number from 0 to 1"):
            select()


def test_zeros_go_where_they_lose_least_until_all_lose_the_same() -> None:
    steepness = {"firm": 4.0, "easy": 1.0}
    weights = {"firm": 1000, "easy": 3000}
    found = sensitivity_shares(weights, lambda layer, share: steepness[layer] * share, 0.5, most=0.9)
    # 4 f = e and f + 3 e = 4 * 0.5.
    assert found["easy"] == pytest.approx(2 / (3 + 0.25), abs=0.01)
    assert found["firm"] == pytest.approx(found["easy"] / 4, abs=0.01)
    # What is full leaves the rest to the other.
    found = sensitivity_shares(weights, lambda layer, share: steepness[layer] * share, 0.8, most=0.9)
    assert found["easy"] == pytest.approx(0.9)
    assert found["firm"] == pytest.approx(0.5)


def test_a_loss_that_falls_again_is_no_reason_for_more_zeros() -> None:
    def loss(layer: str, share: float) -> float:
        return 1.0 if layer == "noisy" and 0.2 < share < 0.4 else 0.5 * share

    found = sensitivity_shares({"noisy": 100, "smooth": 100}, loss, 0.4, most=0.9)
    assert found["noisy"] < 0.25
    assert found["smooth"] > 0.55


layer_losses = st.dictionaries(
    st.text("abcdef", min_size=1, max_size=3),
    st.tuples(st.integers(1, 5000), st.lists(st.floats(-1, 9), min_size=2, max_size=5)),
    min_size=1,
    max_size=5,
)


@given(layer_losses, st.floats(0, 1), st.floats(0.01, 1))
def test_shares_of_zeros_meet_what_was_asked_for(
    layers: dict[str, tuple[int, list[float]]], part: float, most: float
) -> None:
    def loss(layer: str, share: float) -> float:
        values = layers[layer][1]
        return values[min(len(values) - 1, int(share * len(values)))]

    weights = {layer: count for layer, (count, _) in layers.items()}
    found = sensitivity_shares(weights, loss, part * most, most=most)
    zeros = sum(weights[layer] * share for layer, share in found.items())
    assert zeros == pytest.approx(part * most * sum(weights.values()), rel=1e-6, abs=1e-6)
    assert all(-1e-12 <= share <= most + 1e-12 for share in found.values())


def test_more_zeros_than_any_layer_may_have_are_refused() -> None:
    with pytest.raises(InputError, match=r"expected a number from 0 to 0\.9, got 0\.95"):
        sensitivity_shares({"a": 1}, lambda *_: 0.0, 0.95, most=0.9)
    assert sensitivity_shares({}, lambda *_: 0.0, 0.5, most=0.9) == {}
