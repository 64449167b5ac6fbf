from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune.errors import BuildError
from edgeprune.runtimes._sparse_storage import decode, encode, from_parameters, parameters


@st.composite
def weights(draw: st.DrawFn) -> tuple[np.ndarray, tuple[int, int]]:
    block = (draw(st.sampled_from([1, 2, 4])), draw(st.sampled_from([1, 4])))
    middle = draw(st.sampled_from([(), (1, 1), (3, 3), (3,)]))
    shape = (block[0] * draw(st.integers(1, 5)), *middle, block[1] * draw(st.integers(1, 90)))
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    values = generator.standard_normal(shape).astype(draw(st.sampled_from([np.float32, np.float16])))
    if draw(st.booleans()):
        values = (100 * values).clip(-127, 127).astype(np.int8)
    values[generator.random(shape) < draw(st.floats(0, 1))] = 0
    return values, block


@settings(max_examples=60, deadline=None)
@given(weights())
def test_what_is_stored_comes_back_through_the_files_own_description(case: tuple[np.ndarray, tuple[int, int]]) -> None:
    dense, block = case
    stored = encode(dense, block)
    np.testing.assert_array_equal(decode(stored), dense)
    read = from_parameters(stored.shape, parameters(stored), stored.values.ravel())
    np.testing.assert_array_equal(decode(read), dense)
    assert read.block == block
    assert decode(read).dtype == dense.dtype


@settings(max_examples=30, deadline=None)
@given(weights())
def test_no_stored_block_is_empty_and_rows_are_in_order(case: tuple[np.ndarray, tuple[int, int]]) -> None:
    stored = encode(*case)
    assert (stored.values != 0).any(axis=(1, 2)).all()
    for first, last in zip(stored.segments[:-1], stored.segments[1:], strict=True):
        assert (np.diff(stored.indices[first:last]) > 0).all()


def test_by_hand() -> None:
    stored = encode(np.array([[0, 5, 0, 7], [0, 0, 0, 0], [1, 0, 0, 0]], np.float32))
    assert stored.segments.tolist() == [0, 2, 2, 3]
    assert stored.indices.tolist() == [1, 3, 0]
    assert stored.values.ravel().tolist() == [5, 7, 1]
    assert stored.size_bytes == 3 * 4 + 4 + 3
    blocks = encode(np.array([[0, 5], [0, 0], [0, 0], [0, 0]], np.float32), (2, 1))
    assert blocks.indices.tolist() == [1]
    assert blocks.values.tolist() == [[[5], [0]]]


def test_the_librarys_own_converter_reads_it() -> None:
    converter = pytest.importorskip("ai_edge_litert.format_converter_wrapper_pybind11")
    dense = np.random.default_rng(0).standard_normal((8, 12)).astype(np.float32)
    dense[np.abs(dense) < 1] = 0
    csr = [converter.TfLiteDimensionType.TF_LITE_DIM_DENSE, converter.TfLiteDimensionType.TF_LITE_DIM_SPARSE_CSR]
    theirs = converter.FormatConverterFp32([8, 12], [0, 1], csr, [], [])
    theirs.DenseToSparse(dense.ravel())
    ours = encode(dense)
    np.testing.assert_array_equal(np.asarray(theirs.GetData(), np.float32), ours.values.ravel())
    assert [list(part) for part in theirs.GetDimMetadata()][2:] == [ours.segments.tolist(), ours.indices.tolist()]


def test_blocks_that_do_not_divide_are_refused() -> None:
    with pytest.raises(BuildError, match=r"blocks of \(4, 1\) do not divide weights of shape \[6, 4\]"):
        encode(np.ones((6, 4), np.float32), (4, 1))


def test_another_order_of_axes_is_refused() -> None:
    stored = encode(np.eye(4, dtype=np.float32))
    described = parameters(stored)
    described.traversalOrder = [1, 0]
    with pytest.raises(BuildError, match=r"found order \[1, 0\]"):
        from_parameters(stored.shape, described, stored.values)
