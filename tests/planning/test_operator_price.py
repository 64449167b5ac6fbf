from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from operators_for_tests import conv_use

from edgeprune.planning.allocation import Allocation, allocate
from edgeprune.planning.allocation_problem import Choice, Configuration
from edgeprune.planning.cost import CostModel, Observation
from edgeprune.planning.operator_price import corner_shapes, latency_price, weight_count, weight_price
from edgeprune.planning.shape_problem import LATENCY, WEIGHTS, ShapeProblem
from edgeprune.records.operators import ChannelPart, OperatorShape, OperatorUse

WIDTHS = (8, 16, 24, 32)
FULL = 32


def _conv(
    ins: str = "", outs: str = "", *, kind: str = "conv", fixed: tuple[int, int] = (0, 0), per_channel: float = 1
) -> OperatorUse:
    """A 1x1 convolution of these groups of 32 channels, and of some that nobody cuts."""
    in_parts, out_parts = (
        tuple(ChannelPart(group=g, width=FULL, per_channel=per_channel) for g in side) for side in (ins, outs)
    )
    channels = [n + round(FULL * per_channel) * len(side) for n, side in zip(fixed, (ins, outs), strict=True)]
    shape = OperatorShape(
        kind=kind,
        in_channels=channels[0],
        out_channels=channels[1],
        kernel=(1, 1),
        stride=(1, 1),
        padding=(0, 0),
        dilation=(1, 1),
        extent=(8, 8),
        groups=channels[1] if kind == "depthwise" else 1,
    )
    return OperatorUse(layer=f"{kind} {ins}-{outs}", shape=shape, in_parts=in_parts, out_parts=out_parts)


def _problem(
    *uses: OperatorUse,
    entry_ms: Callable[[OperatorShape], float] | None = None,
    losses: Mapping[str, float] | None = None,
) -> ShapeProblem:
    names = sorted({g for use in uses for g in use.groups})
    choices = {g: tuple(Choice(width=w, loss=(losses or {}).get(g, 1.0) * (FULL - w)) for w in WIDTHS) for g in names}
    entry = entry_ms or (lambda s: s.in_channels * s.out_channels / 1e4)
    return ShapeProblem(uses=uses, full=dict.fromkeys(names, FULL), choices=choices, entry_ms=entry)


def _configurations(problem: ShapeProblem) -> list[Configuration]:
    names = tuple(problem.full)
    return [Configuration(widths=dict(zip(names, w, strict=True))) for w in product(WIDTHS, repeat=len(names))]


def _noisy(seed: int) -> Callable[[OperatorShape], float]:
    """Entries that follow no law: each shape has its own, now and then none."""

    def entry(shape: OperatorShape) -> float:
        generator = np.random.default_rng([seed, shape.in_channels, shape.out_channels, len(shape.kind)])
        return max(0.0, float(generator.normal(1.0, 0.6)))

    return entry


SIDES = st.tuples(st.text("abc", max_size=3), st.text("cde", max_size=2)).filter(any)
USES = st.one_of(
    SIDES.map(lambda s: _conv(*s, fixed=(8, 8))),
    st.text("abc", min_size=1, max_size=3).map(lambda s: _conv(s, s, kind="depthwise")),
    st.text("abc", min_size=1, max_size=3).map(lambda s: _conv(s, s, kind="add")),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(USES, min_size=1, max_size=3), st.integers(0, 9))
def test_what_is_proposed_by_is_what_is_fitted(uses: list[OperatorUse], seed: int) -> None:
    """Whatever the table says: one law, and never a latency under 0."""
    problem = _problem(*uses, entry_ms=_noisy(seed))
    shapes = _configurations(problem)[:: 1 + len(problem.full) ** 2]
    measured = [(shape, 1.5 + seed + number % 3) for number, shape in enumerate((problem.whole(), *shapes[:6]))]
    cost = CostModel().updated(*(Observation(problem.terms(shape), ms) for shape, ms in measured))
    allocation = problem.allocation(cost)
    last, _ = measured[-1]
    for shape in shapes:
        latency_ms, terms = allocation.used(shape, LATENCY), problem.terms(shape)
        unlike_the_last_ms = cost.code_ms * (problem.terms(last).distinct - terms.distinct)
        assert latency_ms == pytest.approx(cost.predict_ms(terms) + unlike_the_last_ms, abs=1e-9)
        assert latency_ms >= -1e-12
        weights = sum(weight_count(use.at(shape.widths)) for use in uses)
        assert allocation.used(shape, WEIGHTS) == pytest.approx(weights)
    assert allocation.used(last, LATENCY) == pytest.approx(cost.predict_ms(problem.terms(last)), abs=1e-9)
    assert all(len(term.groups) <= 2 for term in allocation.terms)


@pytest.mark.parametrize("width", WIDTHS)
def test_a_concatenation_into_a_group_is_priced_as_it_is(width: int) -> None:
    """Four inputs and one output: time goes with the product of their channels."""
    use = _conv("abcd", "e")
    problem = _problem(use)
    shape = Configuration(widths=dict.fromkeys(problem.full, width))
    truth = (width / FULL) ** 2 * 128 * 32 / 1e4
    assert problem.allocation(CostModel()).used(shape, LATENCY) == pytest.approx(truth)
    assert CostModel().predict_ms(problem.terms(shape)) == pytest.approx(truth)


def test_a_part_of_a_concatenation_by_hand() -> None:
    """64 channels take 3 ms, both parts at 8 of 32 take 1.2: a part at 20 is a quarter of the way there."""
    use = _conv("ab", fixed=(0, 10))
    entries = {64: 3.0, 16: 1.2}
    price = latency_price(use, lambda s: entries[s.in_channels], {"a": 8, "b": 8})
    assert price.at({"a": 20, "b": 32}) == pytest.approx(3.0 - 1.8 / 4)
    assert price.at({"a": 8, "b": 8}) == pytest.approx(1.2)


def test_two_cuts_of_one_operator_multiply_what_they_save() -> None:
    """Where the narrowest inputs tell nothing else: a staircase in blocks of 16 channels out, of 8 in."""
    use = conv_use("middle", "a", "b", width=FULL)
    price = latency_price(
        use, lambda s: 0.002 * -(-s.in_channels // 8) * -(-s.out_channels // 16), dict.fromkeys("ab", 8)
    )
    assert price.at({"a": 16, "b": 16}) == pytest.approx(0.002 * 2 * 1)


def test_fewer_inputs_save_less_where_the_outputs_take_a_slow_kernel() -> None:
    """ONNX Runtime INT8, 3x3, in microseconds; 12 inputs are half of the way from 16 to 8."""
    entries = {(16, 16): 20.1, (8, 16): 15.7, (12, 16): 17.9, (16, 8): 32.8, (8, 8): 30.5}
    use = conv_use("c", "a", "b", width=16)
    price = latency_price(use, lambda s: entries[s.in_channels, s.out_channels], {"a": 8, "b": 8})
    for (into, out), entry in entries.items():
        assert price.at({"a": into, "b": out}) == pytest.approx(entry)
    between = 17.9 / 20.1 * (0.5 * 32.8 + 0.5 * 30.5 / (15.7 / 20.1))
    assert price.at({"a": 12, "b": 8}) == pytest.approx(between)


def test_only_what_a_trip_measures_is_asked_for() -> None:
    """One group at a time; outputs at each width beside the narrowest inputs; of concatenations the ends alone."""
    asked: set[OperatorShape] = set()

    def entry(shape: OperatorShape) -> float:
        asked.add(shape)
        return float(shape.in_channels * shape.out_channels)

    both, plain = _conv("c", "c", fixed=(3, 3)), _conv("d", "e", fixed=(1, 1))
    uses = (_conv("ab", "c"), _conv("ab", "a"), _conv("ab", "ab", kind="depthwise"), both, plain)
    problem = _problem(*uses, entry_ms=entry)
    problem.allocation(CostModel())
    for shape in _configurations(problem)[::7]:
        problem.terms(shape)
    alone = {use.at({g: w}) for use in uses for g in use.groups for w in WIDTHS}
    corners = set(corner_shapes(uses, dict.fromkeys("abcde", WIDTHS), dict.fromkeys("abcde", 8)))
    assert asked <= alone | corners
    shared = _conv("ab", "a").shape
    assert corners - alone == {
        *(replace(_conv("ab", "c").shape, in_channels=16, out_channels=w) for w in WIDTHS),
        # The group that is on both sides is cut on one of them, and on both.
        *(replace(shared, in_channels=i, out_channels=o) for i, o in ((16, 32), (16, 8))),
        _conv("ab", "ab", kind="depthwise").at({"a": 8, "b": 8}),
        *(replace(plain.shape, in_channels=9, out_channels=w + 1) for w in WIDTHS[:-1]),
    }


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 99))
def test_what_was_measured_comes_out_as_it_was(seed: int) -> None:
    """However slow: each group's own cuts, and the outputs beside the narrowest inputs."""
    use, entry = _conv("a", "b"), _noisy(seed)
    price = latency_price(use, lambda s: 0.1 + entry(s), {"a": 8, "b": 8})
    for into, out in product(WIDTHS, repeat=2):
        if FULL in {into, out} or into == WIDTHS[0]:
            assert price.at({"a": into, "b": out}) == pytest.approx(0.1 + entry(use.at({"a": into, "b": out})))


@settings(max_examples=15, deadline=None)
@given(st.lists(st.floats(0.1, 4.0), min_size=4, max_size=4), st.floats(0.15, 0.95), st.integers(0, 5))
def test_the_best_widths_of_a_concatenation_are_found(losses: list[float], share: float, seed: int) -> None:
    """Against every configuration."""
    uses = (_conv("abc", "d"), _conv("d", "a"), _conv("ab", "ab", kind="depthwise"))
    problem = _problem(*uses, entry_ms=_noisy(seed), losses=dict(zip("abcd", losses, strict=True)))
    allocation = problem.allocation(CostModel())
    limit = share * max(allocation.used(problem.whole(), LATENCY), 0.1)
    found = allocate(allocation, {LATENCY: limit})
    fitting = [allocation.loss(s) for s in _configurations(problem) if allocation.used(s, LATENCY) <= limit]
    if isinstance(found, Allocation):
        assert found.loss == pytest.approx(min(fitting), rel=1e-5, abs=1e-4)
    else:
        assert not fitting


def test_weights_of_an_operator_by_hand() -> None:
    assert weight_count(conv_use("c", None, None, width=32).shape) == 32 * (32 * 9 + 1)
    assert weight_count(OperatorShape(kind="add", in_channels=8, out_channels=8)) == 0
    assert weight_count(OperatorShape(kind="linear", in_channels=10, out_channels=3)) == 33
    depthwise = OperatorShape(kind="depthwise", in_channels=8, out_channels=8, kernel=(3, 3), groups=8)
    assert weight_count(depthwise) == 8 * 10


def test_weights_after_a_flatten_count_every_pixel() -> None:
    use = _conv("ab", "c", fixed=(5, 3), per_channel=4)
    widths = {"a": 8, "b": 16, "c": 24}
    assert weight_price(use).at(widths) == (5 + 4 * 24 + 1) * (3 + 4 * 24) == weight_count(use.at(widths))


def test_a_narrow_model_by_itself_asks_for_its_own_operators_only() -> None:
    asked: list[OperatorShape] = []

    def entry(shape: OperatorShape) -> float:
        asked.append(shape)
        return 0.5

    after = {"a": 8, "b": 16, "c": 24}
    uses = tuple(use.narrowed(after) for use in (_conv("ab", "c"), _conv("ab", "ab", kind="depthwise")))
    problem = ShapeProblem(uses=uses, full=after, choices={}, entry_ms=entry)
    assert dict(problem.terms(Configuration(widths=after)).by_kind) == {"conv1x1": 0.5, "depthwise1x1": 0.5}
    assert set(asked) == {_conv("ab", "c").at(after), _conv("ab", "ab", kind="depthwise").at(after)}
