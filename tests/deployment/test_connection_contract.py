"""What every way to reach a device must do. A new connection is added to `make_device` and passes all of it."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from devices_for_tests import gone
from sshd import SshServer

from edgeprune.deployment.connections import CONNECTIONS, connect
from edgeprune.errors import DeployError, DeviceTimeoutError, InputError
from edgeprune.protocols import Connection
from edgeprune.schema.device import DeviceSpec

BIG = 3 * 1024 * 1024 + 17


def make_device(name: str, server: SshServer) -> DeviceSpec:
    if name == "ssh":
        return server.device()
    return DeviceSpec(schema=1, name="here", connection=name, profile="local", python=sys.executable)


@pytest.fixture(params=CONNECTIONS.names())
def connection(request: pytest.FixtureRequest, server: SshServer) -> Iterator[Connection]:
    opened = connect(make_device(request.param, server))
    yield opened
    opened.close()


@pytest.fixture
def there(connection: Connection) -> Iterator[str]:
    """A new folder on the device, which is this machine."""
    made = connection.run(["mktemp", "-d", "/tmp/edgeprune-there-XXXXXX"], timeout_s=10).stdout.strip()
    yield made
    shutil.rmtree(made)


def test_run_returns_code_and_both_streams(connection: Connection) -> None:
    result = connection.run(["sh", "-c", "echo out; echo err >&2; exit 3"], timeout_s=10)
    assert (result.returncode, result.stdout, result.stderr) == (3, "out\n", "err\n")


@pytest.mark.parametrize("argument", ["", "a b", "'", '"', "$HOME", "a\nb", "*", "`id`", "é", "--", "\\"])
def test_arguments_arrive_as_they_are(connection: Connection, argument: str) -> None:
    result = connection.run(["printf", "%s|", argument, "end"], timeout_s=10)
    assert result.stdout == f"{argument}|end|"


def test_more_than_three_mebibytes_on_both_streams(connection: Connection) -> None:
    script = f"head -c {BIG} /dev/zero | tr '\\0' o & head -c {BIG} /dev/zero | tr '\\0' e >&2; wait"
    result = connection.run(["sh", "-c", script], timeout_s=30)
    assert result.returncode == 0
    assert result.stdout == "o" * BIG
    assert result.stderr == "e" * BIG


def test_lines_come_as_they_are_printed(connection: Connection) -> None:
    arrivals: list[tuple[str, float]] = []
    start = time.monotonic()
    connection.run(
        ["sh", "-c", "echo one; sleep 0.5; echo two; printf three"],
        timeout_s=10,
        on_line=lambda line: arrivals.append((line, time.monotonic() - start)),
    )
    assert [line for line, _ in arrivals] == ["one", "two", "three"]
    assert arrivals[1][1] - arrivals[0][1] > 0.4


def test_a_program_that_reads_its_input_gets_an_end_of_file(connection: Connection) -> None:
    assert connection.run(["cat"], timeout_s=10).stdout == ""


def test_what_is_not_utf8_is_replaced(connection: Connection) -> None:
    assert connection.run(["printf", "\\377x"], timeout_s=10).stdout == "\ufffdx"


def test_a_killed_command_has_a_negative_code(connection: Connection) -> None:
    assert connection.run(["sh", "-c", "kill -9 $$"], timeout_s=10).returncode in (-9, -1)


def test_missing_program_is_named(connection: Connection) -> None:
    with pytest.raises(DeployError, match="no-such-program") as caught:
        connection.run(["no-such-program"], timeout_s=10)
    assert caught.value.facts["program"] == "no-such-program"


def test_exit_code_127_of_the_program_itself_is_its_own(connection: Connection) -> None:
    assert connection.run(["sh", "-c", "exit 127"], timeout_s=10).returncode == 127


def test_timeout_kills_the_command_and_its_children(connection: Connection) -> None:
    pids: list[str] = []
    start = time.monotonic()
    with pytest.raises(DeviceTimeoutError, match=r"within 1\.0 s"):
        connection.run(["sh", "-c", "sleep 60 & echo $!; echo $$; sleep 60"], timeout_s=1, on_line=pids.append)
    assert time.monotonic() - start < 4
    assert len(pids) == 2
    assert gone(pids)
    assert connection.run(["echo", "still"], timeout_s=10).stdout == "still\n"


def test_an_error_in_on_line_kills_the_command(connection: Connection) -> None:
    pids: list[str] = []

    def interrupt(line: str) -> None:
        pids.append(line)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        connection.run(["sh", "-c", "echo $$; sleep 60"], timeout_s=10, on_line=interrupt)
    assert gone(pids)


def test_put_and_get_round_trip(connection: Connection, there: str, tmp_path: Path) -> None:
    source = tmp_path / "model.bin"
    source.write_bytes(os.urandom(1_500_000))
    connection.put(source, f"{there}/new/folders/model.bin")
    connection.get(f"{there}/new/folders/model.bin", tmp_path / "below" / "back.bin")
    assert (tmp_path / "below" / "back.bin").read_bytes() == source.read_bytes()
    assert [p.name for p in (tmp_path / "below").iterdir()] == ["back.bin"]


def test_put_replaces(connection: Connection, there: str, tmp_path: Path) -> None:
    source = tmp_path / "x"
    for text in ("longer than the next", "short", ""):
        source.write_text(text)
        connection.put(source, f"{there}/x")
        assert connection.run(["cat", f"{there}/x"], timeout_s=10).stdout == text


def test_put_goes_on_where_an_earlier_one_stopped(connection: Connection, there: str, tmp_path: Path) -> None:
    source = tmp_path / "x"
    source.write_bytes(os.urandom(500_000))
    (tmp_path / "begun").write_bytes(b"!" * 200_000)
    connection.put(tmp_path / "begun", f"{there}/x")
    connection.put(source, f"{there}/x", offset=200_000)
    connection.get(f"{there}/x", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == b"!" * 200_000 + source.read_bytes()[200_000:]


def test_relative_paths_and_commands_begin_at_home(connection: Connection) -> None:
    home = connection.run(["sh", "-c", "echo ~"], timeout_s=10).stdout
    assert connection.run(["pwd"], timeout_s=10).stdout == home


def test_put_of_a_missing_file(connection: Connection, there: str, tmp_path: Path) -> None:
    with pytest.raises(DeployError, match="no such file"):
        connection.put(tmp_path / "nothing", f"{there}/x")


def test_get_of_a_missing_file_leaves_nothing(connection: Connection, there: str, tmp_path: Path) -> None:
    with pytest.raises(DeployError, match=r"(?i)no such file"):
        connection.get(f"{there}/nothing", tmp_path / "x")
    assert not list(tmp_path.iterdir())


def test_put_where_a_file_stands_for_a_folder(connection: Connection, there: str, tmp_path: Path) -> None:
    source = tmp_path / "x"
    source.write_text("x")
    connection.put(source, f"{there}/file")
    with pytest.raises(DeployError, match=f"{there}/file/x"):
        connection.put(source, f"{there}/file/x")


def test_close_twice(connection: Connection) -> None:
    connection.close()
    connection.close()


def test_unknown_connection(server: SshServer) -> None:
    with pytest.raises(InputError, match="did you mean 'ssh'"):
        connect(server.device(connection="ssj"))
