"""What an OpenSSH configuration means for the way to a device; `ssh -G` itself reads it."""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from edgeprune.deployment.host_keys import HostKey
from edgeprune.deployment.known_hosts import known_keys
from edgeprune.deployment.ssh_config import route
from edgeprune.errors import InputError
from edgeprune.schema.device import DeviceSpec


class Config:
    """A configuration file; `device` is one that it is asked about."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "config"

    def device(self, text: str, **changes: object) -> DeviceSpec:
        self.path.write_text(text)
        values = {"schema": 1, "name": "pi", "profile": "local", "host": "pi", "ssh_config": str(self.path)}
        return DeviceSpec.model_validate({**values, **changes})


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return Config(tmp_path)


def test_an_alias_is_looked_up(config: Config) -> None:
    text = "Host pi\n HostName 10.0.0.7\n User ann\n Port 2222\n IdentityFile /keys/%h-%r\n IdentitiesOnly yes\n"
    (hop,) = route(config.device(text))
    assert (hop.alias, hop.host, hop.port, hop.user) == ("pi", "10.0.0.7", 2222, "ann")
    assert hop.identity_files == ("/keys/10.0.0.7-ann",)
    assert hop.identities_only
    assert hop.known_as == "[10.0.0.7]:2222"


def test_the_devices_own_file_wins(config: Config, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("key")
    text = "Host pi\n HostName 10.0.0.7\n User ann\n Port 2222\n IdentityFile /keys/other\n"
    (hop,) = route(config.device(text, user="bob", port=22, identity_file=str(tmp_path / "mine")))
    assert (hop.host, hop.port, hop.user) == ("10.0.0.7", 22, "bob")
    assert (hop.identity_files, hop.identities_only) == ((str(tmp_path / "mine"),), True)


def test_patterns_match_and_include_are_openssh_s_own(config: Config, tmp_path: Path) -> None:
    (tmp_path / "more").write_text("Host pi\n Port 2201\n")
    text = f"Include {tmp_path}/more\nHost !pi *\n User nobody\nMatch host pi\n User ann\n"
    (hop,) = route(config.device(text))
    assert (hop.port, hop.user) == (2201, "ann")


def test_no_configuration_is_asked_for_none(config: Config) -> None:
    (hop,) = route(config.device("Host pi\n HostName 10.0.0.7\n", ssh_config="none"))
    assert (hop.host, hop.port, hop.user) == ("pi", 22, getpass.getuser())
    assert (hop.identity_files, hop.proxy_command) == ((), ())


def test_a_chain_of_jump_hosts_goes_first_to_last(config: Config) -> None:
    text = "Host pi\n ProxyJump ann@one:2200,two\nHost two\n User bob\n HostName 10.0.0.2\n"
    hops = route(config.device(text))
    assert [(h.alias, h.host, h.port) for h in hops] == [
        ("one", "one", 2200),
        ("two", "10.0.0.2", 22),
        ("pi", "pi", 22),
    ]
    assert [h.user for h in hops[:2]] == ["ann", "bob"]


def test_the_first_jump_host_may_have_its_own(config: Config) -> None:
    """As in OpenSSH: `one` is reached as its own entry says, `two` through `one` whatever its entry says."""
    text = "Host pi\n ProxyJump one,two\nHost one\n ProxyJump zero\nHost two\n ProxyJump elsewhere\n"
    assert [h.alias for h in route(config.device(text))] == ["zero", "one", "two", "pi"]


@pytest.mark.parametrize(
    ("jump", "host"),
    [
        ("ann@one:2200", "one"),
        ("ssh://ann@one:2200", "one"),
        ("ann@10.0.0.1:2200", "10.0.0.1"),
        ("ann@[fe80::1]:2200", "fe80::1"),
    ],
)
def test_forms_of_a_jump_host(config: Config, jump: str, host: str) -> None:
    first, _ = route(config.device(f"Host pi\n ProxyJump {jump}\n"))
    assert (first.host, first.port, first.user) == (host, 2200, "ann")


def test_a_circle_of_jump_hosts_is_refused(config: Config) -> None:
    with pytest.raises(InputError, match="ProxyJump goes in a circle"):
        route(config.device("Host pi\n ProxyJump one\nHost one\n ProxyJump pi\n"))


def test_a_proxy_command_is_arguments(config: Config) -> None:
    (hop,) = route(
        config.device("Host pi\n HostName 10.0.0.7\n ProxyCommand exec nc -X '5 x' [%h]:%p %r%%\n User ann\n")
    )
    assert hop.proxy_command == ("nc", "-X", "5 x", "[10.0.0.7]:22", "ann%")


@pytest.mark.parametrize("command", ["nc %h %p | tee log", "nc $HOST 22", "a && b", "echo `id`", "sh -c 'a;b'"])
def test_a_proxy_command_for_a_shell_is_refused(config: Config, command: str) -> None:
    with pytest.raises(InputError, match=r"needs a shell .* use ProxyJump"):
        route(config.device(f"Host pi\n ProxyCommand {command}\n"))


def test_the_agent_s_socket(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", "/run/usual")
    monkeypatch.setenv("MINE", "/run/mine")
    for line, expected in [
        ("", "/run/usual"), ("IdentityAgent none", ""), ("IdentityAgent /run/%r", "/run/ann"),
        ("IdentityAgent SSH_AUTH_SOCK", "/run/usual"), ("IdentityAgent $MINE", "/run/mine"),
    ]:  # fmt: skip
        assert route(config.device(f"Host pi\n User ann\n {line}\n"))[0].agent == expected


def test_known_hosts_files_and_alias(config: Config) -> None:
    (hop,) = route(config.device("Host pi\n HostKeyAlias lab\n UserKnownHostsFile /a/%r /b\n User ann\n"))
    assert hop.known_as == "lab"
    assert hop.known_hosts[:2] == ("/a/ann", "/b")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Hots pi\n", "(?i)bad configuration option: hots"),
        ("Host pi\n IdentityFile /k/%C\n", "cannot expand %C"),
        ("Host pi\n IdentityFile ${EDGEPRUNE_NO_SUCH}/k\n", "(?i)EDGEPRUNE_NO_SUCH"),
    ],
)
def test_a_configuration_that_cannot_be_used(config: Config, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        route(config.device(text))


def test_a_missing_configuration_and_a_strange_host(config: Config) -> None:
    with pytest.raises(InputError, match=r"ssh_config: no such file: /nowhere"):
        route(config.device("", ssh_config="/nowhere"))
    with pytest.raises(InputError, match=r"host -oProxyCommand=id: .*invalid"):
        route(config.device("", host="-oProxyCommand=id"))
    with pytest.raises(InputError, match="null byte"):
        route(config.device("", host="a\0b"))


def test_without_the_ssh_program(config: Config, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    device = config.device("")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="the program `ssh` is missing"):
        route(device)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert route(device.model_copy(update={"ssh_config": ""}))[0].port == 22


def _key(folder: Path, name: str) -> str:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    return " ".join((folder / f"{name}.pub").read_text().split()[:2])


def _host_key(line: str) -> HostKey:
    kind, _, text = line.partition(" ")
    return HostKey(type=kind, base64=text)


def test_known_keys_of_plain_hashed_and_pattern_lines(tmp_path: Path) -> None:
    one, two, three = (_key(tmp_path, n) for n in ("one", "two", "three"))
    file = tmp_path / "known"
    file.write_text(f"[10.0.0.7]:2222 {one}\nother {three}\n*.lab {two} a comment\n@cert-authority *.lab {three}\n")
    hashed = tmp_path / "hashed"
    shutil.copy(file, hashed)
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(hashed)], check=True, capture_output=True)
    for path in (file, hashed):
        found = known_keys("[10.0.0.7]:2222", ("/nowhere", str(path)))
        assert (found.keys, found.file) == ((_host_key(one),), str(path))
    assert known_keys("pi.lab", (str(file),)).keys == (_host_key(two),)
    assert known_keys("10.0.0.7", (str(file),)).keys == ()


def test_a_revoked_key_is_not_a_known_one(tmp_path: Path) -> None:
    one, two = (_key(tmp_path, n) for n in ("one", "two"))
    (tmp_path / "known").write_text(f"pi {one}\npi {two}\n@revoked * {one}\n")
    found = known_keys("pi", (str(tmp_path / "known"),))
    assert found.keys == (_host_key(two),)
    assert found.revoked == (_host_key(one),)


def test_nothing_of_it_touches_the_process_environment(config: Config) -> None:
    before = dict(os.environ)
    route(config.device("Host pi\n IdentityAgent /run/mine\n"))
    assert dict(os.environ) == before
