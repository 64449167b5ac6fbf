from __future__ import annotations

from edgeprune.planning.live_tensors import Followed, follow_groups
from edgeprune.records.memory import LiveTensor, OpenSchedule, OpenTensor, Schedule

FULL = {"a": 16, "b": 16}
ENDS = {"a": 4, "b": 4}


def calls(*tensors: tuple[float, tuple[tuple[str, float], ...]]) -> OpenSchedule:
    """Of a chain: each tensor lives until the next one is made."""
    made = tuple(
        OpenTensor(name=str(n), fixed=fixed, by_group=by_group, element_bytes=4, first=n, last=n + 1)
        for n, (fixed, by_group) in enumerate(tensors)
    )
    return OpenSchedule(steps=tuple(map(str, range(len(tensors) + 1))), tensors=made)


def schedule(*sizes: int, element_bytes: float = 4) -> Schedule:
    tensors = tuple(
        LiveTensor(name=str(n), elements=size, element_bytes=element_bytes, first=n, last=n + 1)
        for n, size in enumerate(sizes)
    )
    return Schedule(steps=tuple(map(str, range(len(sizes) + 1))), tensors=tensors, weight_bytes=0)


def followed(dense: Schedule, narrow: Schedule, of: OpenSchedule) -> Followed:
    found = follow_groups(dense, narrow, of, FULL, ENDS)
    assert found is not None
    return found


def shares(found: Followed) -> list[tuple[float, tuple[tuple[str, float], ...]]]:
    return [(t.fixed, t.by_group) for t in found.schedule.tensors]


CHAIN = calls((48, ()), (0, (("a", 10),)), (0, (("b", 10),)), (5, ()))


def test_equal_sizes_are_told_apart_by_their_order() -> None:
    found = followed(schedule(48, 160, 160, 5), schedule(48, 40, 40, 5), CHAIN)
    assert shares(found) == [(48, ()), (0, (("a", 10),)), (0, (("b", 10),)), (5, ())]
    assert found.share == 1


def test_what_the_runtime_adds_follows_its_neighbour_in_proportion() -> None:
    # Padded by the runtime: 13 places for each channel of a; and a copy of b of another element type.
    dense, narrow = schedule(48, 160, 208, 160, 160, 5), schedule(48, 40, 52, 40, 40, 5)
    found = followed(dense, narrow, CHAIN)
    assert shares(found)[2] == (0, (("a", 13),))
    assert shares(found)[4] == (0, (("b", 10),))
    assert found.share == 1


def test_what_the_runtime_fuses_away_is_not_missed() -> None:
    found = followed(schedule(48, 160, 5), schedule(48, 40, 5), CHAIN)
    assert [bool(by_group) for _, by_group in shares(found)] == [False, True, False]


def test_what_shrinks_like_nothing_in_the_model_counts_in_full_and_is_told() -> None:
    found = followed(schedule(48, 160, 100, 160, 5), schedule(48, 40, 70, 40, 5), CHAIN)
    assert shares(found)[2] == (100, ())
    assert found.share == (48 + 160 + 160 + 5) / (48 + 160 + 100 + 160 + 5)


def test_element_types_are_the_compiled_ones() -> None:
    found = followed(schedule(48, 160, element_bytes=1), schedule(48, 40, element_bytes=1), CHAIN)
    assert found.schedule.peak_bytes({"a": 8, "b": 8}) == 48 + 80


def test_graphs_that_differ_in_more_than_sizes_are_not_laid_beside_one_another() -> None:
    assert follow_groups(schedule(48, 160, 5), schedule(48, 5), CHAIN, FULL, ENDS) is None
    other = schedule(48, 40, 5, element_bytes=1)
    assert follow_groups(schedule(48, 160, 5), other, CHAIN, FULL, ENDS) is None
