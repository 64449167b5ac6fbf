from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune import units


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (0.0732, "0.0732 ms"),
        (14.05, "14.1 ms"),
        (1240.0, "1240 ms"),
        (0.0, "0 ms"),
        (99.96, "100.0 ms"),
        (5.0, "5.00 ms"),
    ],
)
def test_three_digits_are_shown(ms: float, text: str) -> None:
    assert units.format_ms(ms) == text


@pytest.mark.parametrize(("seconds", "text"), [(4.25, "4.2 s"), (185.0, "3 min 05 s"), (59.9, "59.9 s")])
def test_durations(seconds: float, text: str) -> None:
    assert units.format_seconds(seconds) == text


@given(st.floats(min_value=1e-3, max_value=1e6))
def test_milliseconds_and_nanoseconds_are_inverse(ms: float) -> None:
    assert units.ms_from_ns(units.ns_from_ms(ms)) == pytest.approx(ms)


@given(st.integers(min_value=0, max_value=10**12))
def test_bytes_and_megabytes_are_inverse(size_bytes: int) -> None:
    assert abs(units.bytes_from_mb(units.mb_from_bytes(size_bytes)) - size_bytes) <= 1
