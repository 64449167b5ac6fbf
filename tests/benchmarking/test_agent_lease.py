"""The device's side of the lease and of tidying, in this process."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeprune.benchmarking.agent.device import files, lease
from edgeprune.benchmarking.agent.device.reply import AgentError, Replies


class Heard(Replies):
    """Replies that can be read."""

    def __init__(self) -> None:
        self._text = io.StringIO()
        super().__init__(self._text)

    @property
    def last(self) -> dict[str, Any]:
        reply: dict[str, Any] = json.loads(self._text.getvalue().splitlines()[-1])
        return reply


@pytest.fixture(autouse=True)
def awake(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process keeps its priority and its cores."""
    monkeypatch.setattr(lease, "_stand_aside", lambda: None)


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(tmp_path / "lease")


@pytest.fixture
def stray() -> Iterator[subprocess.Popen[bytes]]:
    """What a dead client left running, in a process group of its own."""
    process = subprocess.Popen(["sleep", "60"], start_new_session=True)
    yield process
    process.kill()
    process.wait()


def test_a_block_is_refused_under_a_lease_that_another_holds(folder: str) -> None:
    old = _acquire(folder, ttl_s=0.05)
    time.sleep(0.1)
    new = _acquire(folder, holder="ada@lab")
    assert int(new.split("-")[0]) == int(old.split("-")[0]) + 1
    with pytest.raises(AgentError, match="ada@lab holds it now") as caught, lease.block(folder, old, 60, []):
        pytest.fail("an old token measured")
    assert caught.value.kind == "lease_lost"
    with lease.block(folder, new, 60, []):
        pass


def test_a_released_token_measures_no_more(folder: str) -> None:
    token = _acquire(folder)
    lease.release(Heard(), folder, token)
    with pytest.raises(AgentError, match="nobody holds it"), lease.block(folder, token, 60, []):
        pytest.fail("a released token measured")


def test_releasing_what_is_anothers_does_nothing(folder: str) -> None:
    _acquire(folder)
    heard = Heard()
    lease.release(heard, folder, "1-00000000")
    assert heard.last["held"] is False
    assert _holder(folder) == "me"


def test_a_block_that_runs_keeps_the_lease_alive(folder: str) -> None:
    token = _acquire(folder, ttl_s=0.05)
    with lease.block(folder, token, 60, []):
        time.sleep(0.15)
        assert _holder(folder) == "me"
    time.sleep(0.1)
    assert _holder(folder) == ""


def test_a_sign_keeps_the_lease_alive(folder: str) -> None:
    token = _acquire(folder, ttl_s=0.3)
    for _ in range(4):
        time.sleep(0.1)
        lease.renew(Heard(), folder, token)
    assert _holder(folder) == "me"


def test_what_a_dead_client_left_running_is_killed(folder: str, stray: subprocess.Popen[bytes]) -> None:
    _left_over(folder, stray)
    assert _holder(folder) == ""
    assert stray.wait(5) == -signal.SIGKILL


def test_what_may_not_be_killed_keeps_the_device_busy(
    folder: str, stray: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_group: int, _number: int) -> None:
        raise PermissionError

    _left_over(folder, stray)
    monkeypatch.setattr(os, "killpg", refuse)
    for _ in range(2):
        assert _holder(folder) == f"process {stray.pid}, left over by me"
    monkeypatch.undo()
    stray.kill()
    stray.wait()
    assert _holder(folder) == ""


def test_another_process_under_an_old_id_is_left_alone(folder: str, stray: subprocess.Popen[bytes]) -> None:
    _left_over(folder, stray, start="1")
    assert _holder(folder) == ""
    assert stray.poll() is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"boot": "before", "queue": [], "number": 3}', "null"])
def test_a_state_that_is_none_is_no_lease(folder: str, text: str) -> None:
    lease.shared_folder(folder)
    Path(folder, "lease.json").write_text(text)
    assert _holder(folder) == ""
    _acquire(folder)


def test_a_restart_voids_the_lease(folder: str) -> None:
    _acquire(folder)
    path = Path(folder, "lease.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "boot": "another"}))
    assert _holder(folder) == ""


def test_a_link_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(AgentError, match="is no folder"):
        lease.shared_folder(str(tmp_path / "link"))


def test_everybody_may_take_the_lease(folder: str) -> None:
    _acquire(folder)
    assert Path(folder).stat().st_mode & 0o777 == 0o777
    assert {p.name: p.stat().st_mode & 0o777 for p in Path(folder).iterdir()} == {
        "lease.json": 0o666,
        "lease.lock": 0o666,
    }


def test_artifacts_that_were_not_used_for_longest_go_first(tmp_path: Path, folder: str) -> None:
    made = [_artifact(tmp_path, name, age_s) for name, age_s in (("old", 300), ("leased", 200), ("new", 100))]
    token = _acquire(folder)
    with lease.block(folder, token, 60, [str(made[1])]):
        pass
    heard = Heard()
    files.tidy(heard, str(tmp_path), 2500, lease.in_use(folder))
    assert (heard.last["removed"], heard.last["artifact_bytes"]) == (["old"], 2000)
    files.tidy(heard, str(tmp_path), 0, lease.in_use(folder))
    assert heard.last["removed"] == ["new"]
    assert made[1].exists()
    lease.release(Heard(), folder, token)
    files.tidy(heard, str(tmp_path), 0, lease.in_use(folder))
    assert heard.last["removed"] == ["leased"]


def test_what_is_asked_for_counts_as_used(tmp_path: Path) -> None:
    one, two = _artifact(tmp_path, "one", 300), _artifact(tmp_path, "two", 200)
    files.have(Heard(), str(one / "model"), files.digest(str(one / "model")))
    heard = Heard()
    files.tidy(heard, str(tmp_path), 1500, set())
    assert heard.last["removed"] == [two.name]


def test_only_parts_that_nobody_goes_on_with_are_removed(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    for name, age_s in (("young", 60), ("stale", files.STALE_PART_S + 60)):
        (tmp_path / "parts" / name).write_text("x")
        os.utime(tmp_path / "parts" / name, (time.time() - age_s,) * 2)
    files.tidy(Heard(), str(tmp_path), 0, set())
    assert [p.name for p in (tmp_path / "parts").iterdir()] == ["young"]


def _acquire(folder: str, *, holder: str = "me", ttl_s: float = 30.0) -> str:
    heard = Heard()
    lease.acquire(heard, folder, holder, ttl_s, 0.0, [])
    return str(heard.last["token"])


def _holder(folder: str) -> str:
    heard = Heard()
    lease.status(heard, folder)
    return str(heard.last["holder"])


def _left_over(folder: str, process: subprocess.Popen[bytes], start: str | None = None) -> None:
    """A lease whose client is long gone and whose block is past its deadline."""
    _acquire(folder, ttl_s=0.0)
    path = Path(folder, "lease.json")
    state = json.loads(path.read_text())
    state["lease"]["work"] = {"pid": process.pid, "start": start or lease._start_of(process.pid), "until": 0.0}
    path.write_text(json.dumps(state))


def _artifact(work: Path, name: str, age_s: float) -> Path:
    folder = work / "artifacts" / name
    folder.mkdir(parents=True)
    (folder / "model").write_bytes(bytes(1000))
    os.utime(folder, (time.time() - age_s,) * 2)
    return folder
