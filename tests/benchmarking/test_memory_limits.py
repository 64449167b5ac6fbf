from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgeprune.benchmarking.agent.device import limits, memory
from edgeprune.benchmarking.agent.device.reply import AgentError

V2 = "0::/user.slice/app.scope\n"
V1 = "4:memory:/jobs/one\n3:cpuset:/\n0::/\n"


def test_the_peak_of_running_does_not_hide_behind_that_of_loading() -> None:
    if not memory.reset_peak():
        pytest.skip("this kernel does not let the mark be set back")
    watch = memory.MemoryWatch()
    watch.runtime_ready()
    loading = bytearray(80_000_000)
    watch.loaded()
    del loading
    memory.reset_peak()
    running = bytearray(20_000_000)
    fields = watch.fields()
    assert running
    assert fields["peak_run_by"] == "high-water mark"
    assert fields["peak_load_bytes"] - fields["peak_run_bytes"] > 40_000_000
    assert fields["peak_bytes"] == fields["peak_load_bytes"]
    assert fields["peak_load_bytes"] - fields["base_bytes"] >= 0
    assert fields["pss_bytes"] is None or 0 < fields["pss_bytes"] <= fields["peak_run_bytes"]


def test_where_the_mark_cannot_be_set_back_running_is_what_is_resident(tmp_path: Path) -> None:
    watch = memory.MemoryWatch(str(tmp_path / "nothing" / "clear_refs"))
    watch.runtime_ready()
    block = bytearray(60_000_000)
    watch.loaded()
    del block
    fields = watch.fields()
    assert fields["peak_run_by"] == "resident at the end"
    assert fields["peak_load_bytes"] - fields["peak_run_bytes"] > 30_000_000


def test_where_a_cgroup_could_be_made() -> None:
    assert limits.candidates("/c", V2) == [(2, "/c/user.slice/app.scope"), (2, "/c/user.slice")]
    assert limits.candidates("/c", V1) == [(1, "/c/memory/jobs/one")]
    assert limits.candidates("/c", "0::/\n") == []


@pytest.mark.skipif(os.geteuid() != 0, reason="the rule for root")
def test_root_makes_no_cgroup_that_was_not_delegated(tmp_path: Path) -> None:
    (tmp_path / "memory" / "jobs" / "one").mkdir(parents=True)
    assert not limits.delegated(str(tmp_path / "memory" / "jobs" / "one"))
    assert limits.make_cgroup(limits.Limit(1, "process"), str(tmp_path), V1) is None


def test_a_folder_of_ones_own_is_delegated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid or 1)
    assert limits.delegated(str(tmp_path)) is (tmp_path.stat().st_uid != 0)
    assert not limits.delegated(str(tmp_path / "missing"))


@pytest.mark.parametrize(
    ("version", "of", "expected"),
    [
        (1, "process", {"memory.limit_in_bytes": "50", "memory.memsw.limit_in_bytes": "50"}),
        (2, "process", {"memory.max": "50", "memory.swap.max": "0"}),
        (1, "model", {"memory.limit_in_bytes": "57", "memory.memsw.limit_in_bytes": "57"}),
        (2, "model", {"memory.max": "57", "memory.swap.max": "0"}),
    ],
)
def test_what_is_written_into_a_cgroup(tmp_path: Path, version: int, of: str, expected: dict[str, str]) -> None:
    for name in ("memory.usage_in_bytes", "memory.current"):
        (tmp_path / name).write_text("7\n")
    for name in expected:
        (tmp_path / name).write_text("max")
    group = limits.Cgroup(str(tmp_path), version, 50, of)
    group.join()
    group.runtime_ready()
    assert (tmp_path / "cgroup.procs").read_text() == str(os.getpid())
    assert {name: (tmp_path / name).read_text() for name in expected} == expected


def test_a_runtime_over_the_limit_is_refused_before_loading() -> None:
    with pytest.raises(AgentError, match="the runtime alone has") as caught:
        limits.Rlimit(1000, "process").runtime_ready()
    assert caught.value.kind == "memory"
