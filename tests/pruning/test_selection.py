from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune.errors import InputError
from edgeprune.pruning.selection import global_widths, sensitivity_widths, told_widths, uniform_widths

WIDTHS = {"stem": 8, "layer1.conv": 16, "layer2.conv": 32}


def test_same_share_everywhere_and_never_all() -> None:
    assert uniform_widths(WIDTHS, 0.25) == {"stem": 6, "layer1.conv": 12, "layer2.conv": 24}
    assert set(uniform_widths(WIDTHS, 1.0).values()) == {1}


def test_shares_as_told_with_wildcards() -> None:
    found = told_widths(WIDTHS, {"layer1.*": 0.5, "layer*": 0.25})
    assert found == {"stem": 8, "layer1.conv": 8, "layer2.conv": 24}
    with pytest.raises(InputError, match="did you mean 'layer1"):
        told_widths(WIDTHS, {"layer1.con": 0.5})


def test_lowest_of_all_go_first_and_no_group_falls_under_the_least() -> None:
    scores = {"a": torch.tensor([0.1, 0.2, 0.3, 0.4]), "b": torch.tensor([0.25, 5.0, 6.0, 7.0])}
    assert global_widths(scores, 0.5) == {"a": 1, "b": 3}
    assert global_widths(scores, 0.25) == {"a": 2, "b": 4}
    assert global_widths(scores, 1.0, least=2) == {"a": 2, "b": 2}


def test_every_group_is_cut_until_it_loses_the_same() -> None:
    slopes = {"stem": 0.4, "layer1.conv": 0.1, "layer2.conv": 0.01}
    found = sensitivity_widths(WIDTHS, lambda group, width: slopes[group] * (WIDTHS[group] - width), 0.5)
    # 28 channels: at a loss of 0.28 the last group gives 28, the others 2 and 0; at 0.26 they give 26, 2 and 0.
    assert found == {"stem": 8, "layer1.conv": 14, "layer2.conv": 6}
    assert sensitivity_widths(WIDTHS, lambda *_: 0.0, 0.0) == WIDTHS


@given(ratio=st.floats(0, 1), sensitive=st.floats(0.1, 10))
@settings(max_examples=40, deadline=None)
def test_at_least_the_share_is_out_where_groups_can_bear_it(ratio: float, sensitive: float) -> None:
    widths = sensitivity_widths(WIDTHS, lambda g, w: (sensitive if g == "stem" else 1) * (1 - w / WIDTHS[g]), ratio)
    out = sum(WIDTHS.values()) - sum(widths.values())
    assert out >= min(round(ratio * 56), 56 - 3)
    assert all(1 <= width <= WIDTHS[group] for group, width in widths.items())


@pytest.mark.parametrize("ratio", [-0.1, 1.1, float("nan")])
def test_impossible_ratios_are_told(ratio: float) -> None:
    for select in (
        lambda: uniform_widths(WIDTHS, ratio),
        lambda: told_widths(WIDTHS, {"*": ratio}),
        lambda: global_widths({"a": torch.ones(2)}, ratio),
        lambda: sensitivity_widths(WIDTHS, lambda *_: 0.0, ratio),
    ):
        with pytest.raises(InputError, match="expected a number from 0 to 1"):
            select()
