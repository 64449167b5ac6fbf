"""Patterns of zeros by name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.zero_patterns import ZeroPattern, parse_pattern

SIDES = st.integers(1, 999)


@given(SIDES, SIDES)
def test_blocks_of_any_shape(rows: int, columns: int) -> None:
    assert parse_pattern(f"block{rows}x{columns}") == ZeroPattern(block=(rows, columns))


@given(SIDES, SIDES)
def test_n_of_m_leaves_some_out(n: int, m: int) -> None:
    if n < m:
        assert parse_pattern(f"{n}:{m}") == ZeroPattern(n_m=(n, m))
    else:
        with pytest.raises(ValueError, match=f"fewer than {m} must stay"):
            parse_pattern(f"{n}:{m}")


def test_unstructured_has_no_pattern() -> None:
    assert parse_pattern("unstructured") == ZeroPattern()


@pytest.mark.parametrize(
    "name", ["", "block", "block4", "4x1", "block0x4", "0:4", "2:4:8", "2 : 4", "Unstructured", "2:4\n"]
)
def test_anything_else_is_refused_with_what_is_expected(name: str) -> None:
    with pytest.raises(ValueError, match="expected unstructured, N:M"):
        parse_pattern(name)
