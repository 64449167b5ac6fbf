from __future__ import annotations

from pathlib import Path

import pytest

from edgeprune.errors import InputError
from edgeprune.store.readings import READINGS, ReadingLog


def test_one_build_reads_once_however_many_models_it_reads_for(tmp_path: Path) -> None:
    log = ReadingLog(tmp_path, "data-1")
    assert log.readings == ()
    log.note("dense", "d1")
    log.note("int8", "d2")
    assert [(r.number, r.models) for r in log.readings] == [(1, (("dense", "d1"), ("int8", "d2")))]
    assert ReadingLog(tmp_path, "data-1").readings == log.readings


def test_another_build_reads_again_and_other_data_count_for_themselves(tmp_path: Path) -> None:
    ReadingLog(tmp_path, "data-1").note("dense", "d1")
    second = ReadingLog(tmp_path, "data-1")
    second.note("int8", "d3")
    assert [r.number for r in second.readings] == [1, 2]
    other = ReadingLog(tmp_path, "data-2")
    other.note("dense", "d1")
    assert [(r.number, r.data) for r in other.readings] == [(1, "data-2")]
    assert len(ReadingLog(tmp_path, "data-1").readings) == 2


def test_a_damaged_count_is_refused_before_anything_is_built(tmp_path: Path) -> None:
    ReadingLog(tmp_path, "data-1").note("dense", "d1")
    path = tmp_path / READINGS
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"test_readings\.json: damaged; it counts how often the test split was read"):
        ReadingLog(tmp_path, "data-1")
