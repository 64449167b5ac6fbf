"""Cores as kernels tell of them: trees of /sys and /proc like those of real boards."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from edgeprune.benchmarking.agent.device import cores
from edgeprune.benchmarking.agent.device.cores import cores_here
from edgeprune.records.codec import from_json
from edgeprune.records.cores import Core, core_kinds, describe_kinds


def board(root: Path, cpu: int, *, siblings: str = "", part: str = "", **files: str) -> None:
    """Add one hardware thread; `files` are those of its cpufreq folder, and `cpu_capacity`."""
    system = root / f"sys/devices/system/cpu/cpu{cpu}"
    (system / "topology").mkdir(parents=True)
    (system / "cpufreq").mkdir()
    (system / "topology/thread_siblings_list").write_text(f"{siblings or cpu}\n")
    for name, value in files.items():
        (system / name if name == "cpu_capacity" else system / "cpufreq" / name).write_text(f"{value}\n")
    (root / "proc").mkdir(exist_ok=True)
    with (root / "proc/cpuinfo").open("a") as cpuinfo:
        cpuinfo.write(f"processor\t: {cpu}\nBogoMIPS\t: 48.00\n" + (f"CPU part\t: {part}\n\n" if part else "\n"))


def told(root: Path, given: list[int], apart: tuple[int, ...] = ()) -> tuple[Core, ...]:
    """As it comes to the host."""
    return tuple(from_json(Core, json.dumps(core)) for core in cores_here(given, apart, str(root)))


def test_a_board_with_fast_and_slow_cores(tmp_path: Path) -> None:
    """An RK3399: four Cortex-A53 and two A72."""
    for cpu in range(6):
        fast = cpu >= 4
        files = {"cpu_capacity": "1024" if fast else "485", "cpuinfo_max_freq": "1800000" if fast else "1416000"}
        board(tmp_path, cpu, part="0xd08" if fast else "0xd03", **files)
    found = told(tmp_path, list(range(6)))
    assert found[0] == Core(cpus=(0,), capacity=485, max_mhz=1416.0, part="0xd03")
    assert [[c.cpus[0] for c in kind] for kind in core_kinds(found)] == [[4, 5], [0, 1, 2, 3]]
    kinds = "4-5 (part 0xd08, capacity 1024, 1800 MHz), 0-3 (part 0xd03, capacity 485, 1416 MHz)"
    assert describe_kinds(found) == f"2 kinds: {kinds}"
    assert {c.cpus for c in told(tmp_path, [1, 2])} == {(1,), (2,)}


def test_two_threads_of_a_core_are_one_core(tmp_path: Path) -> None:
    for cpu in range(4):
        board(tmp_path, cpu, siblings="0,2" if cpu % 2 == 0 else "1,3", cpuinfo_max_freq="3500000")
    found = told(tmp_path, [0, 1, 2, 3])
    assert [c.cpus for c in found] == [(0, 2), (1, 3)]
    assert describe_kinds(found) == "1 kind: 0-3 (3500 MHz)"


def test_favoured_cores_of_equal_ones_are_no_other_kind(tmp_path: Path) -> None:
    for cpu, max_khz in enumerate((5500000, 5800000, 5500000, 4300000)):
        board(tmp_path, cpu, cpuinfo_max_freq=str(max_khz))
    assert [[c.cpus[0] for c in kind] for kind in core_kinds(told(tmp_path, [0, 1, 2, 3]))] == [[0, 1, 2], [3]]


def test_a_kernel_that_tells_nothing_has_one_kind(tmp_path: Path) -> None:
    found = told(tmp_path, [2, 3])
    assert [c.cpus for c in found] == [(2,), (3,)]
    assert describe_kinds(found) == "1 kind: 2-3"


def test_speeds_that_are_told_of_some_cores_only_tell_no_kinds_apart(tmp_path: Path) -> None:
    board(tmp_path, 0, cpuinfo_max_freq="4000000")
    board(tmp_path, 1)
    assert len(core_kinds(told(tmp_path, [0, 1]))) == 1


def test_clocks_tell_kinds_apart_where_capacities_do_not(tmp_path: Path) -> None:
    """A device tree without capacities: the kernel shows 1024 for all."""
    for cpu, max_khz in enumerate((1400000, 1400000, 2400000, 2400000)):
        board(tmp_path, cpu, cpu_capacity="1024", cpuinfo_max_freq=str(max_khz))
    assert [[c.cpus[0] for c in kind] for kind in core_kinds(told(tmp_path, [0, 1, 2, 3]))] == [[2, 3], [0, 1]]


def test_cores_that_are_kept_apart_are_told_and_are_of_no_kind(tmp_path: Path) -> None:
    for cpu in range(3):
        board(tmp_path, cpu)
    found = told(tmp_path, [0, 1], (2,))
    assert found[2] == Core(cpus=(), apart=(2,))
    assert core_kinds(found) == (found[:2],)


def test_what_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    before = os.sched_getaffinity(0)
    given, apart = cores.usable()
    assert set(given) == before == os.sched_getaffinity(0)
    assert not before & set(apart)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert cores.usable() == ([min(before)], sorted({*before, *apart} - {min(before)}))
    finally:
        os.sched_setaffinity(0, before)

    def forbidden(_: int, __: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "sched_setaffinity", forbidden)
    assert cores.usable() == ([], [])
