"""Other blocks in the place of a result's, by hand."""

from __future__ import annotations

from dataclasses import replace

from records_for_tests import PRUNED

from edgeprune.records.rung import GroupWidth, PlannedRung, RungStatus
from edgeprune.steps.block_lots import draw_blocks, left_whole, with_blocks_out

AFTER = {"stem": (16, 12), "a.conv": (16, 8), "b.conv": (16, 0), "c.conv": (32, 24)}
PLANNED = PlannedRung(
    rung=replace(PRUNED, blocks_out=1),
    status=RungStatus.PLANNED,
    reason="",
    accuracy_cost=0.0,
    widths=tuple(GroupWidth(group=name, before=before, after=after) for name, (before, after) in AFTER.items()),
    removed_blocks=("b",),
)


def test_every_other_choice_is_drawn_by_some_seed_and_the_results_own_by_none() -> None:
    assert {draw_blocks(["b"], ["a", "b", "c"], seed) for seed in range(20)} == {("a",), ("c",)}
    two = {draw_blocks(["a", "b"], ["a", "b", "c"], seed) for seed in range(20)}
    assert two == {("a", "c"), ("b", "c")}
    assert draw_blocks(["b"], ["a", "b", "c"], 3) == draw_blocks(["b"], ["a", "b", "c"], 3)


def test_what_comes_back_has_the_width_of_what_goes_in_its_stead() -> None:
    found = with_blocks_out(PLANNED, ("a",))
    assert found.removed_blocks == ("a",)
    assert {w.group: w.after for w in found.widths} == {"stem": 12, "a.conv": 0, "b.conv": 8, "c.conv": 24}
    assert left_whole(PLANNED, ("a",)) == ()


def test_what_comes_back_for_a_block_of_another_shape_stays_whole() -> None:
    found = with_blocks_out(PLANNED, ("c",))
    assert {w.group: w.after for w in found.widths} == {"stem": 12, "a.conv": 8, "b.conv": 16, "c.conv": 0}
    assert left_whole(PLANNED, ("c",)) == ("b.conv",)
