"""A device is checked, its health is kept, and one that failed is not used; with the real agent on this host."""

from __future__ import annotations

import socket
import sys
import time
from pathlib import Path

import pytest
from devices_for_tests import here_device

from edgeprune import api
from edgeprune.deployment.inventory import config_folder, save_device
from edgeprune.errors import UnfitDeviceError
from edgeprune.records.health import Grade
from edgeprune.schema.device import DeviceSpec
from edgeprune.steps.health import TRUSTED_S, check_device, ready_session, refuse_failing
from edgeprune.steps.health_files import forget_health, load_health
from edgeprune.steps.session import open_session


class Box:
    """A device whose Python can lose its libraries and get them back."""

    def __init__(self, folder: Path) -> None:
        self.script = folder / "python"
        self.mend()
        self.spec = here_device(folder, name="box", python=str(self.script), lease_folder=str(folder / "lease"))

    def mend(self) -> None:
        self._write("")

    def break_(self) -> None:
        # Without `site`, nothing that was installed is found.
        self._write("-S")

    def _write(self, option: str) -> None:
        self.script.write_text(f'#!/bin/sh\nexec {sys.executable} {option} "$@"\n')
        self.script.chmod(0o755)


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Box:
    monkeypatch.setenv("EDGEPRUNE_HOME", str(tmp_path / "home"))
    return Box(tmp_path)


def _grades(found: object) -> dict[str, Grade]:
    return {c.name: c.grade for c in found.checks}  # type: ignore[attr-defined]


def test_a_sound_device(box: Box) -> None:
    report = check_device(box.spec)
    assert report.health.grade in {Grade.OK, Grade.WARNING}
    assert set(_grades(report.health)) == {
        "reachable", "python", "numpy", "runtimes", "disk", "profile's runtimes", "machine", "cores", "memory",
        "clock", "memory limits", "fingerprint",
    }  # fmt: skip
    assert report.health.facts is not None
    assert report.health.facts.cpu_flags
    assert report.health.fingerprint == report.health.facts.fingerprint
    assert load_health(box.spec) == report.health
    assert report.lease is not None
    with ready_session(box.spec) as session:
        assert session.facts.fingerprint == report.health.fingerprint


def test_a_device_that_fails_is_not_used_until_it_is_checked_again(box: Box) -> None:
    box.break_()
    health = check_device(box.spec).health
    assert [c.name for c in health.graded(Grade.PROBLEM)] == ["numpy", "runtimes"]
    box.mend()
    with pytest.raises(UnfitDeviceError, match=r"device box failed its check .* ago: numpy: not installed") as caught:
        refuse_failing(box.spec)
    assert "edgeprune device provision box --runtime" in caught.value.message
    assert caught.value.message.endswith("edgeprune device check box")
    assert caught.value.facts == {"problems": ["numpy", "runtimes"]}
    assert check_device(box.spec).health.grade is not Grade.PROBLEM
    refuse_failing(box.spec)


def test_a_device_that_was_never_checked_is_not_used_either(box: Box) -> None:
    box.break_()
    with open_session(box.spec) as session:
        assert not session.facts.numpy
    with pytest.raises(UnfitDeviceError, match="device box cannot be used: numpy"), ready_session(box.spec):
        pytest.fail("it was used")
    assert load_health(box.spec) is None


def test_a_stale_failure_is_looked_at_again(box: Box) -> None:
    box.break_()
    checked_s = check_device(box.spec).health.checked_unix_s
    box.mend()
    for later_s in (TRUSTED_S - 1, 1.0):
        with pytest.raises(UnfitDeviceError):
            refuse_failing(box.spec, now=lambda later_s=later_s: checked_s + later_s)
    refuse_failing(box.spec, now=lambda: checked_s + TRUSTED_S)
    mended = load_health(box.spec)
    assert mended is not None
    assert mended.grade is not Grade.PROBLEM
    box.break_()
    check_device(box.spec)
    with pytest.raises(UnfitDeviceError, match="failed its check just now"):
        refuse_failing(box.spec, now=lambda: time.time() + 2 * TRUSTED_S)


def test_a_failure_from_the_future_is_looked_at_again(box: Box) -> None:
    """This host's clock was set back."""
    box.break_()
    check_device(box.spec, now=lambda: time.time() + 1e6)
    box.mend()
    refuse_failing(box.spec)


def test_nobody_connects_to_a_device_that_is_known_to_fail(box: Box) -> None:
    """Not even `calibrate`, which would compile a model next."""
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        spec = DeviceSpec(
            schema=1,
            name="edge",
            profile="local",
            host="127.0.0.1",
            port=stranger.getsockname()[1],
            host_key="ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f",
            ssh_config="none",
            connect_timeout_s=0.3,
        )
        save_device(spec)
        health = check_device(spec).health
        stranger.accept()[0].close()
        assert _grades(health) == {"reachable": Grade.PROBLEM}
        stranger.settimeout(0.05)
        with pytest.raises(UnfitDeviceError, match=r"failed its check .* reachable: device edge .*no answer"):
            api.calibrate("edge")
        with pytest.raises(TimeoutError):
            stranger.accept()


def test_what_the_device_s_file_said_before_counts_no_more(box: Box) -> None:
    box.break_()
    check_device(box.spec)
    edited = box.spec.model_copy(update={"python": sys.executable})
    assert load_health(edited) is None
    refuse_failing(edited)


def test_a_device_without_its_python(box: Box) -> None:
    box.script.unlink()
    health = check_device(box.spec).health
    assert _grades(health) == {"reachable": Grade.OK, "python": Grade.PROBLEM}
    assert health.fingerprint == ""


def test_a_work_folder_that_cannot_be_written(box: Box, tmp_path: Path) -> None:
    (tmp_path / "work").write_text("a file")
    health = check_device(box.spec).health
    assert _grades(health) == {"reachable": Grade.OK, "agent": Grade.PROBLEM}


def test_a_change_since_the_last_check_is_told(box: Box) -> None:
    check_device(box.spec)
    assert _grades(check_device(box.spec).health)["fingerprint"] is Grade.OK
    box.break_()
    changed = {c.name: c for c in check_device(box.spec).health.checks}["fingerprint"]
    assert changed.grade is Grade.WARNING
    assert "changed in: runtimes" in changed.found


def test_a_clock_that_is_off(box: Box) -> None:
    health = check_device(box.spec, now=lambda: time.time() - 3600).health
    clock = {c.name: c for c in health.checks}["clock"]
    assert clock.grade is Grade.WARNING
    assert "ahead of this host's" in clock.found


def test_a_damaged_health_counts_as_none(box: Box) -> None:
    check_device(box.spec)
    path = config_folder() / "health" / "box.json"
    for content in (b"", b"{}", b"{", b"\xff\xff"):
        path.write_bytes(content)
        assert load_health(box.spec) is None
        refuse_failing(box.spec)
    assert check_device(box.spec).health.grade is not Grade.PROBLEM
    forget_health("box")
    assert not path.exists()
    forget_health("box")
