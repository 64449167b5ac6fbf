from __future__ import annotations

import stat
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeprune.deployment.inventory import config_folder, list_devices, load_device, remove_device, save_device
from edgeprune.errors import InputError
from edgeprune.schema.device import DeviceSpec


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEPRUNE_HOME", str(tmp_path / "config"))


def _spec(name: str = "pi4", **changes: object) -> DeviceSpec:
    values = {"schema": 1, "name": name, "profile": "rpi4", "host": "10.0.0.4", "host_key": "ssh-ed25519 AAAA"}
    return DeviceSpec.model_validate({**values, **changes})


def test_saved_device_comes_back_and_is_private() -> None:
    path = save_device(_spec())
    assert load_device("pi4") == _spec()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [p.name for p in path.parent.iterdir()] == ["pi4.toml"]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=40))
def test_any_text_survives_the_file(text: str) -> None:
    spec = _spec(identity_file=text, work_folder=text)
    save_device(spec)
    assert load_device("pi4") == spec


def test_saving_again_replaces() -> None:
    save_device(_spec())
    save_device(_spec(port=2222))
    assert load_device("pi4").port == 2222


def test_local_is_always_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/cache/me")
    assert list_devices() == ("local",)
    local = load_device("local")
    assert (local.connection, local.python, local.work_folder) == ("local", sys.executable, "/var/cache/me/edgeprune")


def test_local_work_folder_is_absolute_without_xdg(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert load_device("local").work_folder == str(Path.home() / ".cache" / "edgeprune")


def test_local_cannot_be_replaced_or_removed() -> None:
    with pytest.raises(InputError, match="another name"):
        save_device(_spec("local"))
    with pytest.raises(InputError, match="cannot be removed"):
        remove_device("local")


@pytest.mark.parametrize("use", [load_device, remove_device])
def test_unknown_name_has_the_closest(use: object) -> None:
    save_device(_spec("pi4"))
    assert callable(use)
    with pytest.raises(InputError, match=r"unknown device 'pi5'; did you mean 'pi4'\? known: local, pi4"):
        use("pi5")


def test_a_name_cannot_leave_the_folder(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "x.toml").write_text("schema = 1\n")
    with pytest.raises(InputError, match="unknown device"):
        load_device("../x")


def test_removed_device_is_unknown() -> None:
    save_device(_spec())
    remove_device("pi4")
    assert list_devices() == ("local",)


def test_file_under_another_name() -> None:
    path = save_device(_spec())
    path.rename(path.with_name("pi5.toml"))
    with pytest.raises(InputError, match=r"pi5\.toml: name: expected 'pi5'"):
        load_device("pi5")


def test_file_that_is_wrong_names_the_key() -> None:
    path = save_device(_spec())
    path.write_text(path.read_text().replace("port = 0", 'prot = "x"'))
    with pytest.raises(InputError, match="prot: unknown key; did you mean 'port'"):
        load_device("pi4")


def test_config_folder_falls_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDGEPRUNE_HOME")
    monkeypatch.setenv("XDG_CONFIG_HOME", "/etc/xdg-mine")
    assert config_folder() == Path("/etc/xdg-mine/edgeprune")
    monkeypatch.delenv("XDG_CONFIG_HOME")
    assert config_folder() == Path.home() / ".config" / "edgeprune"
