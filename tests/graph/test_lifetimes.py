from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune.graph.lifetimes import Operation, lifetimes


def test_a_residual_branch_keeps_its_input_until_the_addition() -> None:
    operations = [
        Operation("conv1", ("x", "w1"), ("a",)),
        Operation("conv2", ("a", "w2"), ("b",)),
        Operation("add", ("b", "a"), ("c",)),
        Operation("head", ("c", "w3"), ("y",)),
    ]
    found = lifetimes(operations, ("x",), ("y",))
    assert found.steps == ("conv1", "conv2", "add", "head")
    # The caller holds the input; weights are none of ours.
    assert found.spans == {"x": (0, 3), "a": (0, 2), "b": (1, 2), "c": (2, 3), "y": (3, 3)}


def test_what_computes_in_place_takes_the_place_of_an_input_that_nobody_reads_again() -> None:
    operations = [
        Operation("conv", ("x",), ("a",)),
        Operation("relu", ("a",), ("b",), in_place=True),
        Operation("relu", ("b",), ("c",), in_place=True),
        Operation("add", ("c", "b"), ("y",)),
    ]
    found = lifetimes(operations, ("x",), ("y",))
    assert found.steps == ("conv", "relu", "add")
    assert found.spans == {"x": (0, 2), "a": (0, 2), "c": (1, 2), "y": (2, 2)}


def test_neither_the_callers_input_nor_an_output_is_overwritten() -> None:
    operations = [
        Operation("relu", ("x",), ("y",), in_place=True),
        Operation("relu", ("y",), ("z",), in_place=True),
    ]
    assert set(lifetimes(operations, ("x",), ("y", "z")).spans) == {"x", "y", "z"}


def test_a_view_is_no_tensor_of_its_own_and_keeps_what_it_looks_at() -> None:
    operations = [
        Operation("conv", ("x",), ("a",)),
        Operation("reshape", ("a", "shape"), ("flat",), view=True),
        Operation("relu", ("a",), ("b",), in_place=True),
        Operation("head", ("flat",), ("c",)),
        Operation("add", ("b", "c"), ("y",)),
    ]
    found = lifetimes(operations, ("x",), ("y",))
    assert found.steps == ("conv", "relu", "head", "add")
    # The reshape reads on: the relu must not write over it.
    assert found.spans == {"x": (0, 3), "a": (0, 2), "b": (1, 3), "c": (2, 3), "y": (3, 3)}


def test_what_is_made_of_constants_alone_is_a_constant() -> None:
    operations = [
        Operation("dequantize", ("stored",), ("weight",)),
        Operation("conv", ("x", "weight"), ("y",)),
    ]
    found = lifetimes(operations, ("x",), ("y",))
    assert (found.steps, found.spans) == (("conv",), {"x": (0, 0), "y": (0, 0)})


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_every_read_falls_within_the_span_of_what_is_read(data: st.DataObject) -> None:
    """Law, of random graphs without anything in place: what is read lives from its step to its reader's."""
    count = data.draw(st.integers(1, 8))
    operations = []
    for number in range(1, count + 1):
        reads = data.draw(st.lists(st.integers(0, number - 1), min_size=1, max_size=3))
        operations.append(Operation(str(number), tuple(reads), (number,)))
    found = lifetimes(operations, (0,), (count,))
    assert len(found.steps) == count
    for step, operation in enumerate(operations):
        assert found.spans[operation.makes[0]][0] == step
        assert all(found.spans[key][0] <= step <= found.spans[key][1] for key in operation.reads)
