"""The same build on a real OpenSSH server: strict host key, a user that is not root."""

from __future__ import annotations

import json
import os
import pwd
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from sshd import SshServer
from targets_for_tests import MadeTarget, make_target, run_until_decided, until_quiet

import edgeprune
from edgeprune.cli import run
from edgeprune.deployment.host_keys import parse_host_key
from edgeprune.deployment.inventory import list_devices, load_device, remove_device, save_device
from edgeprune.errors import MeasurementError
from edgeprune.events import Event, StageProgress
from edgeprune.records.codec import from_json
from edgeprune.records.result import BuildResult
from edgeprune.records.verdict import Verdict


@pytest.fixture(scope="module")
def server() -> Iterator[SshServer]:
    with SshServer() as started:
        yield started


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> MadeTarget:
    return make_target(tmp_path_factory.mktemp("remote"))


@pytest.fixture(autouse=True)
def empty_inventory() -> Iterator[None]:
    yield
    for name in list_devices():
        if name != "local":
            remove_device(name)


def add_arguments(server: SshServer, made: MadeTarget, *more: str, name: str = "edge", **changes: str) -> list[str]:
    options = {
        "host": server.host,
        "port": str(server.port),
        "user": server.user,
        "identity": str(server.identity_file),
        "profile": str(made.profile),
        "python": server.python,
        **changes,
    }
    return ["device", "add", name, *(part for k, v in options.items() for part in (f"--{k}", v)), *more]


def fingerprint(server: SshServer) -> str:
    return parse_host_key(server.host_key, where="test").fingerprint


class KillsTheDevice:
    """A reporter that cuts the connections when the first block of a measurement is in."""

    def __init__(self, server: SshServer) -> None:
        self.server = server
        self.killed = False

    def emit(self, event: Event) -> None:
        if isinstance(event, StageProgress) and event.stage == "sample" and not self.killed:
            self.killed = True
            self.server.signal_sessions(signal.SIGKILL)


def test_enrol_check_build_die_resume_bench(
    server: SshServer, made: MadeTarget, capsys: pytest.CaptureFixture[str]
) -> None:
    if os.getuid() == 0:
        assert pwd.getpwnam(server.user).pw_uid != 0
    assert run(add_arguments(server, made, "--fingerprint", fingerprint(server))) == 0
    assert "its host key is pinned" in capsys.readouterr().out
    assert load_device("edge").host_key == server.host_key

    assert run(["device", "check", "edge", "--format", "json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert dict(report["facts"]["runtimes"])["onnxruntime"]
    assert report["differences"] == []
    assert run(["device", "list", "--format", "json"]) == 0
    devices = {d["name"]: d for d in json.loads(capsys.readouterr().out)["devices"]}
    assert set(devices) == {"edge", "local"}
    assert devices["edge"]["host_key"] == server.host_key

    killer = KillsTheDevice(server)
    with pytest.raises(MeasurementError) as caught:
        until_quiet(lambda: edgeprune.build(made.folder, device="edge", output=made.runs, reporter=killer))
    assert killer.killed
    assert "edge" in caught.value.message
    run_folder = made.runs / "tiny-bench-box-edge"
    assert not (run_folder / "summary.json").exists()
    kept = {p: p.stat().st_mtime_ns for p in run_folder.rglob("step.json")}
    assert kept

    arguments = made.arguments("build", "--device", "edge", "--format", "json", "--quiet")
    assert run_until_decided(arguments) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (result["verdict"], result["device"], result["exit_code"]) == ("PASS", "edge", 0)
    assert {p: p.stat().st_mtime_ns for p in kept} == kept

    assert run_until_decided(["bench", str(run_folder / "artifact"), "--device", "edge", "--runs", "300", "-q"]) == 0
    assert "onnxruntime, float32, 1 thread(s)" in capsys.readouterr().out
    # What is on the device belongs to the user who logged in.
    work = server.home / ".cache" / "edgeprune"
    assert {p.stat().st_uid for p in work.rglob("*")} == {pwd.getpwnam(server.user).pw_uid}


def test_device_that_dies_while_a_candidate_is_judged_is_no_failed_candidate(
    server: SshServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = make_target(tmp_path)
    save_device(server.device("edge", profile=str(made.profile)))

    class KillsInMidCandidate(KillsTheDevice):
        def emit(self, event: Event) -> None:
            # The dense baseline is a campaign of three processes of its own; the candidate's has both in turn.
            if isinstance(event, StageProgress) and event.stage == "sample" and self._baseline_is_there():
                super().emit(event)

        def _baseline_is_there(self) -> bool:
            return any((made.runs / "tiny-bench-box-edge").rglob("baseline/step.json"))

    killer = KillsInMidCandidate(server)
    with pytest.raises(MeasurementError, match="the connection broke") as caught:
        until_quiet(lambda: edgeprune.build(made.folder, device="edge", output=made.runs, reporter=killer))
    assert killer.killed
    assert caught.value.exit_code == 6
    assert not (made.runs / "tiny-bench-box-edge" / "summary.json").exists()
    assert run_until_decided(made.arguments("build", "--device", "edge", "--quiet")) == 0
    summary = (made.runs / "tiny-bench-box-edge" / "summary.json").read_bytes()
    assert from_json(BuildResult, summary).verdict is Verdict.PASS


def test_wrong_fingerprint_enrols_nothing(
    server: SshServer, made: MadeTarget, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(add_arguments(server, made, "--fingerprint", "SHA256:nothing")) == 5
    err = capsys.readouterr().err
    assert "SHA256:nothing" in err
    assert fingerprint(server) in err
    assert list_devices() == ("local",)


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("n\n", 5), ("", 130)])
def test_fingerprint_is_shown_and_asked_about(
    server: SshServer,
    made: MadeTarget,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    answer: str,
    code: int,
) -> None:
    read, write = os.pipe()
    os.write(write, answer.encode())
    os.close(write)
    with os.fdopen(read) as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        assert run(add_arguments(server, made)) == code
    assert fingerprint(server) in capsys.readouterr().err
    assert ("edge" in list_devices()) == (code == 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "Bad Name"}, "device 'Bad Name': name: "),
        ({"name": "local"}, "--replace"),
        ({"identity": "/nowhere/key"}, "--identity: no such file: /nowhere/key"),
        ({"profile": "locl"}, "did you mean 'local'?"),
    ],
)
def test_enrolment_with_bad_input(
    server: SshServer, made: MadeTarget, capsys: pytest.CaptureFixture[str], change: dict[str, str], message: str
) -> None:
    assert run(add_arguments(server, made, "--fingerprint", fingerprint(server), **change)) == 2
    assert message in capsys.readouterr().err
    assert list_devices() == ("local",)


def test_enrolled_name_needs_replace(server: SshServer, made: MadeTarget, capsys: pytest.CaptureFixture[str]) -> None:
    save_device(server.device("edge", profile=str(made.profile), user="somebody"))
    arguments = add_arguments(server, made, "--fingerprint", fingerprint(server))
    assert run(arguments) == 2
    assert load_device("edge").user == "somebody"
    assert run([*arguments, "--replace"]) == 0
    assert load_device("edge").user == server.user
    assert run(["device", "remove", "edge"]) == 0
    assert list_devices() == ("local",)
    assert run(["device", "check", "edg"]) == 2
    assert "unknown device 'edg'" in capsys.readouterr().err


def test_changed_host_key_stops_the_build(
    server: SshServer, made: MadeTarget, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "old")], check=True)
    old = " ".join((tmp_path / "old.pub").read_text().split()[:2])
    save_device(server.device("edge", host_key=old, profile=str(made.profile)))
    assert run(made.arguments("build", "--device", "edge", "--output", str(tmp_path), "--format", "json")) == 5
    out, err = capsys.readouterr()
    assert parse_host_key(old, where="test").fingerprint in err
    assert fingerprint(server) in err
    assert json.loads(out)["error"]["kind"] == "HostKeyError"


def test_unreachable_device(made: MadeTarget, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with SshServer() as gone:
        # Its identity file goes with it.
        identity = tmp_path / "identity"
        identity.write_bytes(gone.identity_file.read_bytes())
        save_device(gone.device("edge", identity_file=str(identity)))
    assert run(made.arguments("plan", "--device", "edge", "--output", str(tmp_path))) == 5
    assert f"127.0.0.1:{gone.port}" in capsys.readouterr().err


def test_no_python_on_the_device(
    server: SshServer, made: MadeTarget, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_device(server.device("edge", python="python-nowhere"))
    assert run(made.arguments("plan", "--device", "edge", "--output", str(tmp_path))) == 5
    assert "no python-nowhere on" in capsys.readouterr().err
    assert run(["device", "check", "edge"]) == 5


def test_device_without_any_runtime(
    server: SshServer, made: MadeTarget, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_device(server.device("edge", python=_python_with(server, "numpy"), profile=str(made.profile)))
    # Before a check and after it: nothing is built for it.
    for state in ("cannot be used", "failed its check"):
        assert run(made.arguments("plan", "--device", "edge", "--output", str(tmp_path), "--quiet")) == 5
        assert f"device edge {state}" in capsys.readouterr().err
        assert run(["device", "check", "edge"]) == 5
        assert "not installed on the device: onnxruntime" in capsys.readouterr().out


def test_rungs_of_a_missing_runtime_are_refused_and_the_others_go_on(
    server: SshServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = make_target(tmp_path, profile={"runtimes.tflite.int8": False})
    python = _python_with(server, "numpy", "onnxruntime")
    save_device(server.device("edge", python=python, profile=str(made.profile)))
    assert run_until_decided(made.arguments("plan", "--device", "edge", "--format", "json")) == 0
    out, err = capsys.readouterr()
    assert "no rung with tflite" in err
    plan = json.loads(out.splitlines()[-1])
    assert {r["rung"]["runtime"] for r in plan["rungs"]} == {"onnxruntime"}
    assert any("tflite" in note and "not installed" in note for note in plan["notes"])


def test_full_disk_on_the_device(
    server: SshServer, made: MadeTarget, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # The account of the test device may be shared with other tests of this run.
    folder = server.home / f"small-{tmp_path.name}"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k,mode=0777", "tmpfs", str(folder)]
    if os.getuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("needs the right to mount a small file system")
    try:
        save_device(server.device("edge", work_folder=str(folder / "work")))
        assert run(made.arguments("plan", "--device", "edge", "--output", str(tmp_path))) == 5
    finally:
        subprocess.run(["umount", str(folder)], check=True)
    assert "disk full on edge" in capsys.readouterr().err


def _python_with(server: SshServer, *packages: str) -> str:
    """A Python on the device that has these packages of ours and no others."""
    folder = server.home / ("python-with-" + "-".join(packages))
    folder.mkdir(mode=0o755)
    ours = Path(np.__file__).parents[1]
    for path in ours.iterdir():
        # `numpy`, `numpy.libs`, `numpy-2.1.dist-info`, but no `onnxruntime_extensions`.
        if any(path.name == p or path.name.startswith((f"{p}.", f"{p}-")) for p in packages):
            (folder / path.name).symlink_to(path)
    base = sys.base_prefix + "/bin/python3" if server.python == sys.executable else server.python
    script = folder / "python"
    script.write_text(f'#!/bin/sh\nPYTHONPATH="{folder}" exec {base} "$@"\n')
    script.chmod(0o755)
    return str(script)
