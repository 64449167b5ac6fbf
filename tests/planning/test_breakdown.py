from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune.planning.allocation_problem import Block, Configuration
from edgeprune.planning.breakdown import break_down
from edgeprune.planning.cost import CostModel, Observation, operator_kind
from edgeprune.planning.operator_price import weight_count
from edgeprune.planning.shape_problem import ShapeProblem
from edgeprune.records.breakdown import Breakdown, OperatorCost
from edgeprune.records.memory import OpenCall
from edgeprune.records.operators import ChannelPart, OperatorShape, OperatorUse

FULL = 32


def conv(layer: str, into: str | None, out: str | None) -> OperatorUse:
    shape = OperatorShape(
        kind="conv", in_channels=FULL, out_channels=FULL, kernel=(3, 3), stride=(1, 1), padding=(1, 1),
        dilation=(1, 1), extent=(16, 16),
    )  # fmt: skip
    parts = [(ChannelPart(group=g, width=FULL),) if g else () for g in (into, out)]
    return OperatorUse(layer=layer, shape=shape, in_parts=parts[0], out_parts=parts[1])


def addition(layer: str, group: str) -> OperatorUse:
    part = (ChannelPart(group=group, width=FULL),)
    shape = OperatorShape(kind="add", in_channels=FULL, out_channels=FULL, extent=(16, 16))
    return OperatorUse(layer=layer, shape=shape, in_parts=part, out_parts=part)


def entry_ms(shape: OperatorShape) -> float:
    return (0.0005 if shape.kind == "add" else 0.001 * shape.in_channels / 8) * shape.out_channels / 8


USES = (
    conv("stem", None, None),
    conv("block.conv1", None, "a"),
    conv("block.conv2", "a", "b"),
    addition("block.conv2", "b"),
    replace(conv("up", "b", None), unsupported="a transposed convolution"),
    conv("head", "b", None),
)
CALLS = (
    OpenCall(name="softmax", layer="block", fixed=10.0, by_group=(("b", 64.0),)),
    OpenCall(name="constant_pad_nd", layer="", fixed=10.0, by_group=(("a", 1.0), ("b", 64.0))),
    OpenCall(name="mean", layer="head", fixed=100.0),
)
PROBLEM = ShapeProblem(uses=USES, full={"a": FULL, "b": FULL}, choices={}, entry_ms=entry_ms, calls=CALLS)
PROBLEM_WITHOUT_CALLS = replace(PROBLEM, calls=())

some_widths = st.fixed_dictionaries({"a": st.sampled_from([8, 16, 32]), "b": st.sampled_from([8, 24, 32])})


@settings(max_examples=30, deadline=None)
@given(some_widths, st.lists(st.tuples(some_widths, st.floats(0.01, 1.0)), max_size=4))
def test_the_parts_add_up_to_what_the_model_predicts(
    widths: Mapping[str, int], measured: list[tuple[Mapping[str, int], float]]
) -> None:
    shape = Configuration(widths=widths)
    cost = CostModel().updated(*(Observation(PROBLEM.terms(Configuration(widths=w)), ms) for w, ms in measured))
    found = break_down(PROBLEM, cost, shape, measured_ms=0.3)
    assert found.predicted_ms == pytest.approx(cost.predict_ms(PROBLEM.terms(shape)), rel=1e-9, abs=1e-12)
    assert found.observations == len(measured)
    assert found.measured_ms == 0.3
    named = ["softmax in block", "constant_pad_nd"]
    assert [o.title for o in found.operators if o.call] == named
    assert [o.layer for o in found.operators if not o.call] == [u.layer for u in USES if not u.unsupported]


def test_by_hand() -> None:
    # 0.016 + 0.016 + 0.016 + 0.002 + 0.016 at full widths, and one whole model that took 0.1 ms more.
    problem = PROBLEM_WITHOUT_CALLS
    cost = CostModel().updated(Observation(problem.terms(problem.whole()), 0.166))
    found = break_down(problem, cost, Configuration(widths={"a": 16}), runtime_ms=0.01)
    assert [o.latency_ms for o in found.operators] == pytest.approx([0.016, 0.008, 0.008, 0.002, 0.016], rel=0.05)
    assert found.rest_ms == pytest.approx(0.1, rel=0.05)
    assert found.unpriced == ("up",)
    assert [o.layer for o in found.operators if o.fixed] == ["stem"]
    assert found.fixed_ms == found.operators[0].latency_ms
    assert [o.title for o in found.operators][3] == "add to block.conv2"
    assert [o.layer for o in found.largest(2)] == ["stem", "head"]


def test_operators_of_a_block_that_is_gone_take_no_time() -> None:
    problem = replace(PROBLEM_WITHOUT_CALLS, blocks=(Block(name="block", loss=1.0),))
    cost = CostModel()
    shape = Configuration(widths={"b": FULL}, removed_blocks=frozenset({"block"}))
    found = break_down(problem, cost, shape)
    assert [o.latency_ms for o in found.operators] == pytest.approx([0.016, 0, 0, 0, 0.016])
    assert found.predicted_ms == pytest.approx(cost.predict_ms(problem.terms(shape)))


def test_a_breakdown_says_what_limits() -> None:
    operators = (
        OperatorCost(layer="stem", kind="conv3x3", latency_ms=0.2, fixed=True),
        OperatorCost(layer="body", kind="conv1x1", latency_ms=0.5),
        OperatorCost(layer="gone", kind="conv1x1", latency_ms=0.0),
    )
    found = Breakdown(operators=operators, rest_ms=0.3, observations=1, runtime_ms=0.05)
    assert found.summary == (
        "most goes to body (conv1x1) 50%, stem (conv3x3) 20%, 20% to layers that no group can narrow, "
        "30% to what no layer explains, the runtime's own time is at most 0.0500 ms, "
        "which a model of a layer or two took there"
    )
    nothing = Breakdown(operators=(), rest_ms=0.0, observations=0)
    assert nothing.share(0.0) == 0.0
    assert "most of it" not in nothing.summary


def test_weights_and_code_are_put_down_to_the_operators_that_have_them() -> None:
    problem = replace(PROBLEM_WITHOUT_CALLS, blocks=(Block(name="block", loss=1.0),))
    terms = problem.terms(problem.whole())
    shapes = [
        replace(terms, weights=terms.weights * w, distinct=d) for w, d in ((1, 4), (2, 4), (1, 12), (2, 12), (3, 6))
    ]
    table_ms = sum(ms for _, ms in terms.by_kind)
    law = [Observation(t, 0.05 + table_ms + 1e-6 * t.weights + 2e-3 * t.distinct) for t in shapes]
    cost = CostModel().updated(*law)
    assert min(cost.weight_ms, cost.code_ms) > 0.0
    found = break_down(problem, cost, problem.whole())
    plain = break_down(problem, CostModel(), problem.whole())
    priced = [use for use in problem.uses if not use.unsupported]
    for use, with_both, alone in zip(priced, found.operators, plain.operators, strict=True):
        alike = sum(other.shape == use.shape for other in priced)
        own_ms = cost.weight_ms * weight_count(use.shape) + cost.code_ms / alike
        assert with_both.latency_ms == pytest.approx(cost.scale(operator_kind(use.shape)) * alone.latency_ms + own_ms)
    assert found.rest_ms == cost.intercept_ms
    gone = Configuration(widths={"b": FULL}, removed_blocks=frozenset({"block"}))
    assert [o.latency_ms for o in break_down(problem, cost, gone).operators][1:4] == [0.0, 0.0, 0.0]
    assert break_down(problem, cost, gone).predicted_ms == pytest.approx(cost.predict_ms(problem.terms(gone)))
