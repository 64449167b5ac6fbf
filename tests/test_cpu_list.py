from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeprune.cpu_list import format_cpus, on_cores, parse_cpus


@given(st.sets(st.integers(0, 4095), min_size=1, max_size=40))
def test_what_is_written_is_read_again(cpus: set[int]) -> None:
    assert parse_cpus(format_cpus(cpus)) == tuple(sorted(cpus))


def test_as_linux_writes_them() -> None:
    assert format_cpus((8, 1, 0, 2, 3)) == "0-3,8"
    assert format_cpus(()) == ""
    assert parse_cpus("4, 0-1,1") == (0, 1, 4)


@pytest.mark.parametrize("text", ["", "a", "3-1", "0-", "-1", "0--2", "1;2", "4096", "0-99999999", "1,,2", "٣"])
def test_what_is_no_list(text: str) -> None:
    with pytest.raises(ValueError, match="is no list of cores: expected numbers and ranges"):
        parse_cpus(text)


def test_for_people() -> None:
    assert on_cores(2, (4, 5)) == "2 thread(s) on core(s) 4-5"
    assert on_cores(1, ()) == "1 thread(s)"
