"""`edgeprune device`: enrol by an OpenSSH alias behind a jump host, check, list, be refused."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from sshd import SshServer

from edgeprune.cli import run
from edgeprune.deployment.host_keys import parse_host_key
from edgeprune.deployment.inventory import load_device, save_device
from edgeprune.steps.health_files import load_health


@pytest.fixture(scope="module")
def server() -> Iterator[SshServer]:
    with SshServer() as started:
        yield started


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEPRUNE_HOME", str(tmp_path / "home"))


def _host(alias: str, server: SshServer, *more: str) -> str:
    own = (
        f"HostName {server.host}", f"Port {server.port}", f"User {server.user}", f"IdentityFile {server.identity_file}"
    )  # fmt: skip
    return "\n ".join((f"Host {alias}", *more, *own)) + "\n"


def _fingerprint(line: str) -> str:
    return parse_host_key(line, where="test").fingerprint


def test_enrol_by_alias_check_list_and_forget(
    server: SshServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with SshServer() as jump:
        known = tmp_path / "known"
        known.write_text(f"[{jump.host}]:{jump.port} {jump.host_key}\n")
        config = tmp_path / "config"
        config.write_text(_host("gate", jump, f"UserKnownHostsFile {known}") + _host("pi", server, "ProxyJump gate"))
        add = ["device", "add", "edge", "--host", "pi", "--ssh-config", str(config), "--profile", "local"]
        add += ["--python", server.python, "--fingerprint", _fingerprint(server.host_key)]
        assert run(add) == 0
        out = capsys.readouterr().out
        assert re.search(r"ok +host key +the pinned one: ssh-ed25519 SHA256:", out)
        spec = load_device("edge")
        assert (spec.host, spec.port, spec.user, spec.identity_file) == ("pi", 0, "", "")
        assert spec.ssh_config == str(config)

        assert run(["device", "check", "edge", "--format", "json"]) == 0
        report = json.loads(capsys.readouterr().out)
        assert (report["name"], report["exit_code"]) == ("edge", 0)
        assert report["grade"] in {"ok", "warning"}
        assert {c["name"] for c in report["checks"]} >= {"reachable", "host key", "python", "numpy", "clock"}
        assert len(report["fingerprint"]) == 64
        assert report["facts"]["cpu_flags"]

        assert run(["device", "list", "--format", "json"]) == 0
        listed = {d["name"]: d for d in json.loads(capsys.readouterr().out)["devices"]}
        assert listed["local"]["health"] is None
        assert listed["edge"]["health"]["fingerprint"] == report["fingerprint"]
        assert run(["device", "list"]) == 0
        text = capsys.readouterr().out
        assert report["fingerprint"][:16] in text
        assert "not checked" in text

    assert run(["device", "remove", "edge"]) == 0
    assert load_health(spec) is None


def test_a_device_that_is_gone(server: SshServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    identity = tmp_path / "identity"
    with SshServer() as gone:
        identity.write_bytes(gone.identity_file.read_bytes())
        save_device(gone.device("edge", identity_file=str(identity)))
    assert run(["device", "check", "edge"]) == 5
    assert re.search(r"problem +reachable +device edge .*Connection refused", capsys.readouterr().out)
    assert run(["device", "check", "edge", "--format", "json"]) == 5
    report = json.loads(capsys.readouterr().out)
    assert (report["grade"], report["exit_code"], report["facts"], report["lease"]) == ("problem", 5, None, None)
    assert run(["device", "list"]) == 0
    assert "problem (reachable)" in capsys.readouterr().out
    for command in (["device", "calibrate", "edge"], ["bench", str(_model(tmp_path)), "--device", "edge"]):
        assert run([*command, "--format", "json"]) == 5
        error = json.loads(capsys.readouterr().out)["error"]
        assert error["kind"] == "UnfitDeviceError"
        assert error["message"].endswith("edgeprune device check edge")
        assert error["facts"] == {"problems": ["reachable"]}


def test_a_changed_host_key_is_told_with_the_command_that_enrols_again(
    server: SshServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "old")], check=True)
    old = " ".join((tmp_path / "old.pub").read_text().split()[:2])
    save_device(server.device("edge", host_key=old, cache_mb=12.5))
    assert run(["device", "check", "edge", "--format", "json"]) == 5
    (check,) = json.loads(capsys.readouterr().out)["checks"]
    assert (check["name"], check["grade"]) == ("host key", "problem")
    assert _fingerprint(old) in check["found"]
    assert _fingerprint(server.host_key) in check["found"]
    command = check["found"].split("enrol it again: edgeprune ")[1].split()
    assert run([*command, "--fingerprint", _fingerprint(server.host_key)]) == 0
    assert load_device("edge") == server.device("edge", cache_mb=12.5)
    assert run(["device", "check", "edge"]) == 0


def test_an_unknown_jump_host_enrols_nothing(
    server: SshServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "known").write_text("")
    config = tmp_path / "config"
    gate = _host("gate", server, f"UserKnownHostsFile {tmp_path}/known", "GlobalKnownHostsFile /dev/null")
    config.write_text(gate + _host("pi", server, "ProxyJump gate"))
    add = ["device", "add", "edge", "--host", "pi", "--ssh-config", str(config), "--profile", "local"]
    assert run(add) == 5
    assert "jump host gate" in capsys.readouterr().err
    assert not (tmp_path / "home" / "devices").exists()


def _model(folder: Path) -> Path:
    """Never opened: the device is refused first."""
    path = folder / "model.tflite"
    path.write_bytes(b"no model")
    return path
