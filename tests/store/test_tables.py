from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import edgeprune
from edgeprune.records.operators import TableEntry
from edgeprune.store import tables
from edgeprune.store.tables import TableFile


def _entry(operator: str, latency_ms: float = 1.0, at_s: float = 0.0) -> TableEntry:
    return TableEntry(operator=operator, latency_ms=latency_ms, alone_ms=0.5, measured_unix_s=at_s)


def test_what_is_added_is_read_and_the_newest_counts(tmp_path: Path) -> None:
    file = TableFile(tmp_path / "place" / "table.json")
    assert file.read() == {}
    file.add([_entry("a", 1.0), _entry("b", 2.0)])
    file.add([_entry("b", 3.0, 1.0), _entry("c", 4.0)])
    assert {n: e.latency_ms for n, e in TableFile(file.path).read().items()} == {"a": 1.0, "b": 3.0, "c": 4.0}


@pytest.mark.parametrize("content", [b"", b'{"entries": [{"operator": "a"', b"\x00\xff", b'{"entries": 3}'])
def test_a_damaged_file_is_measured_again(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "table.json").write_bytes(content)
    file = TableFile(tmp_path / "table.json")
    assert file.read() == {}
    file.add([_entry("a")])
    assert set(file.read()) == {"a"}


def test_a_file_keeps_no_more_than_it_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MOST_ENTRIES", 3)
    file = TableFile(tmp_path / "table.json")
    file.add(_entry(str(n), at_s=-n) for n in range(5))
    assert set(file.read()) == {"0", "1", "2"}


def test_two_builds_at_once_lose_nothing(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from edgeprune.records.operators import TableEntry
from edgeprune.store.tables import TableFile
for n in range(20):
    entry = TableEntry(operator=f"{sys.argv[2]}{n}", latency_ms=1.0, alone_ms=1.0, measured_unix_s=0.0)
    TableFile(Path(sys.argv[1])).add([entry])
"""
    root = str(Path(edgeprune.__file__).parents[1])
    writers = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "table.json"), name], cwd=root) for name in "ab"
    ]
    assert [w.wait() for w in writers] == [0, 0]
    assert len(TableFile(tmp_path / "table.json").read()) == 40
