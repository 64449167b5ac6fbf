from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from operators_for_tests import conv_use

from edgeprune.errors import InputError
from edgeprune.planning.cost import CostModel, Observation, Terms, cost_terms, operator_kind
from edgeprune.planning.operator_price import weight_count
from edgeprune.records.operators import OperatorShape, OperatorUse

latencies = st.floats(0.01, 100.0)
observations = st.lists(
    st.builds(
        lambda conv, linear, padded, weights, distinct, total: Observation(
            Terms((("conv3x3", conv), ("linear", linear)), (("pad", padded),), weights, distinct), total
        ),
        latencies,
        latencies,
        st.integers(0, 10**6).map(float),
        st.integers(0, 10**6).map(float),
        st.integers(1, 50),
        latencies,
    ),
    min_size=1,
    max_size=6,
)


def test_terms_by_hand() -> None:
    uses = [conv_use("first", None, "g"), conv_use("second", "g", None)]
    odd = OperatorUse(layer="odd", shape=uses[0].shape, unsupported="a transposed convolution")
    terms = cost_terms([*uses, odd], {"g": 4}, lambda s: s.in_channels + s.out_channels / 100)
    first, second = (use.at({"g": 4}) for use in uses)
    weights = weight_count(first) + weight_count(second)
    assert terms == Terms((("conv3x3", 16.04 + 4.16),), weights=weights, distinct=2)
    assert cost_terms([uses[0], uses[0]], {}, lambda _: 1.0).distinct == 1
    assert operator_kind(OperatorShape(kind="linear", in_channels=1, out_channels=1)) == "linear"


def test_without_measurements_it_is_the_plain_sum() -> None:
    assert CostModel().predict_ms(Terms((("add", 1.0), ("conv3x3", 2.0)))) == 3.0
    assert CostModel().intercept_ms == 0.0


def test_the_law_behind_the_measurements_is_found() -> None:
    terms = [Terms((("conv1x1", a), ("depthwise3x3", b))) for a, b in ((1, 1), (2, 1), (4, 3), (3, 1), (1, 4), (5, 5))]

    def law(t: Terms) -> float:
        conv, depthwise = (ms for _, ms in t.by_kind)
        return 0.5 + 1.2 * conv + 0.8 * depthwise

    model = CostModel().updated(*(Observation(t, law(t)) for t in terms))
    assert model.intercept_ms == pytest.approx(0.5, abs=0.05)
    assert model.scale("conv1x1") == pytest.approx(1.2, abs=0.03)
    assert model.scale("depthwise3x3") == pytest.approx(0.8, abs=0.03)
    assert model.scale("linear") == 1.0
    held = Terms((("conv1x1", 2.5), ("depthwise3x3", 2.0)))
    assert model.predict_ms(held) == pytest.approx(law(held), rel=0.005)


def test_what_a_call_takes_is_found_from_whole_models() -> None:
    # As TFLite pads in INT8: a fifth of the whole, by a group that has little to do with the convolutions.
    sizes = ((1.0, 8e4), (0.4, 2e4), (0.6, 8e4), (0.8, 2e4), (0.5, 5e4), (0.9, 5e4), (0.7, 3e4))
    terms = [Terms((("conv3x3", conv),), (("pad", padded),)) for conv, padded in sizes]

    def law(t: Terms) -> float:
        return 0.05 + t.by_kind[0][1] + 3e-6 * t.by_call[0][1]

    model = CostModel().updated(*(Observation(t, law(t)) for t in terms))
    assert model.rate_ms("pad") == pytest.approx(3e-6, rel=0.05)
    assert model.rate_ms("softmax") == 0.0
    held = Terms((("conv3x3", 0.5),), (("pad", 8e4),))
    assert model.predict_ms(held) == pytest.approx(law(held), rel=0.01)
    without = CostModel().updated(*(Observation(Terms(t.by_kind), law(t)) for t in terms))
    assert without.predict_ms(Terms(held.by_kind)) < 0.85 * law(held)


def test_what_code_of_its_own_takes_is_found_from_whole_models() -> None:
    # As OpenVINO does in INT8: the two ends have layers that are alike, what lies between has not.
    sizes = ((1.0, 6), (0.3, 5), (0.6, 14), (0.5, 12), (0.8, 16), (0.7, 13), (0.4, 14))
    terms = [Terms((("linear", linear),), distinct=distinct) for linear, distinct in sizes]

    def law(t: Terms) -> float:
        return 0.1 + t.by_kind[0][1] + 4e-3 * t.distinct

    model = CostModel().updated(*(Observation(t, law(t)) for t in terms))
    assert model.code_ms == pytest.approx(4e-3, rel=0.15)
    held = Terms((("linear", 0.65),), distinct=15)
    assert model.predict_ms(held) == pytest.approx(law(held), rel=0.01)
    ends = CostModel().updated(*(Observation(t, law(t)) for t in terms[:2]))
    assert ends.code_ms < 1e-3


def test_one_measurement_sets_the_intercept_and_leaves_the_scales() -> None:
    model = CostModel().updated(Observation(Terms((("linear", 2.0),)), 3.0))
    assert model.intercept_ms == pytest.approx(1.0, abs=0.01)
    assert model.scale("linear") == pytest.approx(1.0, abs=0.01)


def test_what_fetching_weights_takes_is_found_from_whole_models() -> None:
    # As OpenVINO does in INT8: the tables' micro-models have their weights at hand, whole models a tenth less so.
    sizes = ((1.0, 3e5), (0.5, 5e4), (0.9, 1e5), (0.6, 2.5e5), (0.8, 6e4), (0.7, 2e5), (0.55, 2e5))
    terms = [Terms((("conv3x3", conv),), weights=weights) for conv, weights in sizes]

    def law(t: Terms) -> float:
        return 0.05 + t.by_kind[0][1] + 5e-7 * t.weights

    model = CostModel().updated(*(Observation(t, law(t)) for t in terms))
    assert model.weight_ms == pytest.approx(5e-7, rel=0.1)
    assert model.scale("conv3x3") == pytest.approx(1.0, abs=0.03)
    held = Terms((("conv3x3", 0.6),), weights=3e5)
    assert model.predict_ms(held) == pytest.approx(law(held), rel=0.01)
    without = CostModel().updated(*(Observation(replace(t, weights=0.0), law(t)) for t in terms))
    assert without.weight_ms == 0.0
    assert without.predict_ms(replace(held, weights=0.0)) < 0.95 * law(held)


@settings(max_examples=40, deadline=None)
@given(observations)
def test_nothing_is_negative_and_more_work_never_costs_less(found: list[Observation]) -> None:
    model = CostModel().updated(*found)
    assert model.intercept_ms >= 0.0
    small, large = (Terms((("conv3x3", x), ("linear", 1.0)), (("pad", 10 * x),), 1e4 * x, 5) for x in (1.0, 2.0))
    assert 0.0 <= model.predict_ms(small) <= model.predict_ms(large)


@settings(max_examples=40, deadline=None)
@given(observations, st.sampled_from([0.001, 0.5, 1000.0]))
def test_a_device_that_is_slower_by_a_factor_is_fitted_as_well(found: list[Observation], factor: float) -> None:
    slower = [
        Observation(
            replace(o.terms, by_kind=tuple((k, ms * factor) for k, ms in o.terms.by_kind)), o.latency_ms * factor
        )
        for o in found
    ]
    for o, s in zip(found, slower, strict=True):
        expected = CostModel().updated(*found).predict_ms(o.terms) * factor
        assert CostModel().updated(*slower).predict_ms(s.terms) == pytest.approx(expected, rel=1e-5)


@settings(max_examples=40, deadline=None)
@given(observations)
def test_the_order_of_measurements_does_not_matter(found: list[Observation]) -> None:
    forth, back = CostModel().updated(*found), CostModel()
    for observation in reversed(found):
        back = back.updated(observation)
    for o in found:
        assert back.predict_ms(o.terms) == pytest.approx(forth.predict_ms(o.terms), rel=1e-6)


@pytest.mark.parametrize("latency_ms", [0.0, -1.0, math.nan, math.inf])
def test_a_latency_that_is_none(latency_ms: float) -> None:
    with pytest.raises(InputError, match="expected a number > 0"):
        CostModel().updated(Observation(Terms(()), latency_ms))
