"""Commands and files over one authenticated transport."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath

import paramiko

from edgeprune.deployment import remote_shell
from edgeprune.deployment.channels import make_folders, pump_stderr, pump_stdout, wait_for_status
from edgeprune.deployment.connections.ssh.translation import FOREIGN, translated
from edgeprune.deployment.connections.ssh.upload import upload
from edgeprune.deployment.connections.ssh.way import Way
from edgeprune.deployment.ssh_errors import Place, disk_full, not_started
from edgeprune.deployment.streams import Stream
from edgeprune.deployment.watchdog import Watchdog
from edgeprune.errors import DeployError, DeviceTimeoutError, EdgepruneError
from edgeprune.files import appearing
from edgeprune.protocols import CommandResult
from edgeprune.units import format_seconds

_log = logging.getLogger(__name__)

# After the deadline of a command: for killing it before the socket is cut.
_GRACE_S = 5.0
# A session that has just ended may still count in a server that allows few.
_SLOT_WAIT_S = 0.05


class SshConnection:
    """One transport; each command and each transfer has a channel of its own.

    Args:
        transport: authenticated.
        way: what it goes through, which is closed with it.
        place: for messages.
        silence_s: a transfer that has not moved for so long has failed.
    """

    def __init__(self, transport: paramiko.Transport, way: Way, place: Place, silence_s: float) -> None:
        self._logged_in = transport
        self._way = way
        self._sock = way.sock
        self._place = place
        self._silence_s = silence_s

    def run(
        self, argv: Sequence[str], *, timeout_s: float, on_line: Callable[[str], None] | None = None
    ) -> CommandResult:
        """See `protocols.Connection.run`."""
        deadline = time.monotonic() + timeout_s
        doing = f"run {argv[0]}"
        with translated(self._place, doing, Watchdog(self._sock, timeout_s + _GRACE_S)):
            channel = self._open_channel(timeout_s)
            try:
                return self._converse(channel, argv, deadline, Stream(on_line))
            except TimeoutError as error:
                raise DeviceTimeoutError(
                    f"{self._place}: {argv[0]} did not end within {format_seconds(timeout_s)}"
                ) from error
            finally:
                channel.close()

    def put(self, source: Path, destination: str, *, offset: int = 0) -> None:
        """See `protocols.Connection.put`."""
        if not source.is_file():
            raise DeployError(f"cannot copy {source} to {self._place}: no such file")
        with self._sftp(f"write {destination}") as (sftp, watchdog):
            make_folders(sftp, PurePosixPath(destination).parent)
            try:
                upload(sftp, source, destination, offset, watchdog)
            except OSError as error:
                if error.errno is not None or isinstance(error, TimeoutError):
                    raise
                refusal = error
                with contextlib.suppress(OSError):
                    # What came of it takes the space that is asked for below.
                    sftp.remove(destination)
            else:
                return
        raise self._explain(refusal, source, destination) from refusal

    def get(self, source: str, destination: Path) -> None:
        """See `protocols.Connection.get`."""
        with self._sftp(f"read {source}") as (sftp, watchdog), appearing(destination) as partial:
            sftp.get(source, str(partial), callback=lambda *_: watchdog.touch())

    def close(self) -> None:
        """See `protocols.Connection.close`."""
        self._way.stack.close()

    def _transport(self) -> paramiko.Transport:
        if not self._logged_in.is_active():
            raise EOFError("the connection is closed")
        return self._logged_in

    def _open_channel(self, timeout_s: float) -> paramiko.Channel:
        """A new session; where the server allows no more of them (`MaxSessions`), wait for one to end."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                return self._transport().open_session(timeout=timeout_s)
            except paramiko.ChannelException:
                if time.monotonic() > deadline:
                    raise
            time.sleep(_SLOT_WAIT_S)

    def _converse(
        self, channel: paramiko.Channel, argv: Sequence[str], deadline: float, stdout: Stream
    ) -> CommandResult:
        """Start the command and follow it to its end; TimeoutError at the deadline, with the command killed."""
        preamble, stderr = remote_shell.Preamble(), Stream()
        channel.settimeout(max(0.01, deadline - time.monotonic()))
        channel.exec_command(remote_shell.wrap(argv, deadline - time.monotonic()))
        pump = threading.Thread(target=pump_stderr, args=(channel, stderr), daemon=True)
        pump.start()
        try:
            pump_stdout(channel, stdout, preamble, deadline)
            pump.join(max(0.0, deadline - time.monotonic()))
            wait_for_status(channel, deadline)
        except BaseException:
            # Deadline, Ctrl-C, or the caller's on_line: the command must not go on alone.
            self._kill(channel)
            raise
        returncode = channel.recv_exit_status()
        if returncode == -1 and not self._alive():
            raise EOFError("the connection was lost")
        if preamble.missing:
            raise DeployError(f"{self._place}: no program {argv[0]} there", program=argv[0])
        if preamble.group is None:
            raise not_started(self._place, argv[0], preamble.noise.decode("utf-8", "replace"))
        return CommandResult(returncode=returncode, stdout=stdout.finish(), stderr=stderr.finish())

    def _kill(self, channel: paramiko.Channel) -> None:
        """End the command's stdin: that kills its process group. The watchdog of `run` bounds it."""
        try:
            channel.shutdown_write()
            channel.status_event.wait(_GRACE_S)
        except FOREIGN as error:
            _log.warning("%s: could not end a command there: %s", self._place, error)

    def _alive(self) -> bool:
        """Whether the other side still answers: exit status -1 is a kill there, or the end of the connection."""
        try:
            self._transport().open_session(timeout=_GRACE_S).close()
        except paramiko.ChannelException:
            # A refusal is an answer.
            return True
        except FOREIGN:
            return False
        return True

    @contextlib.contextmanager
    def _sftp(self, doing: str) -> Iterator[tuple[paramiko.SFTPClient, Watchdog]]:
        watchdog = Watchdog(self._sock, self._silence_s)
        with translated(self._place, doing, watchdog):
            channel = self._open_channel(self._silence_s)
            channel.settimeout(self._silence_s)
            try:
                yield self._start_sftp(channel), watchdog
            finally:
                channel.close()

    def _start_sftp(self, channel: paramiko.Channel) -> paramiko.SFTPClient:
        try:
            channel.invoke_subsystem("sftp")
            return paramiko.SFTPClient(channel)
        except (paramiko.SSHException, EOFError, ValueError) as error:
            if not self._alive():
                raise
            raise DeployError(
                f"{self._place}: its SSH server has no SFTP; add `Subsystem sftp internal-sftp` to its sshd_config "
                "(on Debian, package openssh-sftp-server)"
            ) from error

    def _explain(self, refusal: OSError, source: Path, destination: str) -> EdgepruneError:
        """SFTP says `Failure` for a full disk and for much else: ask the device which it was."""
        needed_bytes = source.stat().st_size
        folder = str(PurePosixPath(destination).parent)
        answer = self.run(["df", "-Pk", folder], timeout_s=self._silence_s)
        lines = answer.stdout.splitlines()
        if answer.returncode == 0 and lines:
            free_bytes = int(lines[-1].split()[3]) * 1024
            if free_bytes < needed_bytes:
                return disk_full(self._place, destination, needed_bytes, free_bytes)
        return DeployError(f"{self._place}: cannot write {destination}: the device says: {refusal}")
