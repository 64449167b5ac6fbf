"""Devices over SSH. The only file that imports paramiko; every exception of paramiko's ends here."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, Any, Final

import paramiko
from paramiko.ber import BERException
from paramiko.hostkeys import InvalidHostKey
from paramiko.packet import NeedRekeyException
from paramiko.pkey import UnknownKeyType
from paramiko.sftp import CMD_STATUS, CMD_WRITE, int64

from edgeprune.deployment import remote_shell
from edgeprune.deployment.channels import make_folders, pump_stderr, pump_stdout, wait_for_status
from edgeprune.deployment.host_keys import HostKey, parse_host_key
from edgeprune.deployment.pipelining import send_ahead
from edgeprune.deployment.ssh_endpoint import identity_file, open_socket, place_of
from edgeprune.deployment.ssh_errors import Place, changed_host_key, disk_full, not_started
from edgeprune.deployment.streams import Stream
from edgeprune.deployment.watchdog import Watchdog
from edgeprune.errors import DeployError, DeviceTimeoutError, EdgepruneError, HostKeyError
from edgeprune.protocols import CommandResult, Connection, Connector
from edgeprune.schema.device import DeviceSpec
from edgeprune.units import format_seconds

_log = logging.getLogger(__name__)
# Its thread logs tracebacks of errors that are raised to us as well; without a handler they would go to stderr.
logging.getLogger("paramiko").addHandler(logging.NullHandler())

_KEEPALIVE_S = 10
# After the deadline of a command: for killing it before the socket is cut.
_GRACE_S = 5.0
# A session that has just ended may still count in a server that allows few.
_SLOT_WAIT_S = 0.05
# One pass over the data in the processor's own instructions, where CTR with an HMAC takes two: 1.5 times the speed.
_QUICK_CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com")
# SFTP's own messages for "no such file" and "permission denied" become errno; what remains is a bare "Failure".
_FOREIGN: Final = (
    paramiko.SSHException,
    UnknownKeyType,
    paramiko.SFTPError,
    BERException,
    InvalidHostKey,
    NeedRekeyException,
    EOFError,
    OSError,
    # Malformed keys and packets, from paramiko and from the cryptography library under it.
    ValueError,
)


class SshConnection:
    """One transport; each command and each transfer has a channel of its own.

    Args:
        client: connected and authenticated.
        sock: the client's socket, for the watchdog.
        place: for messages.
        silence_s: a transfer that has not moved for so long has failed.
    """

    def __init__(self, client: paramiko.SSHClient, sock: socket.socket, place: Place, silence_s: float) -> None:
        self._client = client
        self._sock = sock
        self._place = place
        self._silence_s = silence_s

    def run(
        self, argv: Sequence[str], *, timeout_s: float, on_line: Callable[[str], None] | None = None
    ) -> CommandResult:
        """See `protocols.Connection.run`."""
        deadline = time.monotonic() + timeout_s
        doing = f"run {argv[0]}"
        with _translated(self._place, doing, Watchdog(self._sock, timeout_s + _GRACE_S)):
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
                _upload(sftp, source, destination, offset, watchdog)
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
        partial = destination.with_name(f".{destination.name}.{os.getpid()}.part")
        try:
            with self._sftp(f"read {source}") as (sftp, watchdog):
                destination.parent.mkdir(parents=True, exist_ok=True)
                sftp.get(source, str(partial), callback=lambda *_: watchdog.touch())
            partial.replace(destination)
        finally:
            partial.unlink(missing_ok=True)

    def close(self) -> None:
        """See `protocols.Connection.close`."""
        self._client.close()
        self._sock.close()

    def _transport(self) -> paramiko.Transport:
        transport = self._client.get_transport()
        if transport is None or not transport.is_active():
            raise EOFError("the connection is closed")
        return transport

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
        except _FOREIGN as error:
            _log.warning("%s: could not end a command there: %s", self._place, error)

    def _alive(self) -> bool:
        """Whether the other side still answers: exit status -1 is a kill there, or the end of the connection."""
        try:
            self._transport().open_session(timeout=_GRACE_S).close()
        except paramiko.ChannelException:
            # A refusal is an answer.
            return True
        except _FOREIGN:
            return False
        return True

    @contextlib.contextmanager
    def _sftp(self, doing: str) -> Iterator[tuple[paramiko.SFTPClient, Watchdog]]:
        watchdog = Watchdog(self._sock, self._silence_s)
        with _translated(self._place, doing, watchdog):
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


class SshConnector:
    """Opens SSH connections to enrolled devices."""

    def connect(self, device: DeviceSpec) -> Connection:
        """See `protocols.Connector.connect`."""
        place = place_of(device)
        if not device.host_key:
            raise HostKeyError(f"{place}: no host key is pinned; enrol it: edgeprune device add {device.name} ...")
        pinned = parse_host_key(device.host_key, where=f"device {device.name}")
        identity = identity_file(device)
        timeout_s = device.connect_timeout_s
        client = paramiko.SSHClient()
        client.set_missing_host_key_policy(paramiko.RejectPolicy())
        with _translated(place, "connect"):
            sock = open_socket(device.host, device.port, timeout_s)
        try:
            with _translated(place, "connect", Watchdog(sock, timeout_s)):
                key = paramiko.PKey.from_type_string(pinned.type, pinned.blob)
                known_as = device.host if device.port == paramiko.config.SSH_PORT else f"[{device.host}]:{device.port}"
                client.get_host_keys().add(known_as, key.get_name(), key)
                client.connect(
                    device.host,
                    port=device.port,
                    username=place.user,
                    sock=sock,
                    key_filename=identity,
                    allow_agent=identity is None,
                    look_for_keys=False,
                    timeout=timeout_s,
                    banner_timeout=timeout_s,
                    auth_timeout=timeout_s,
                    channel_timeout=timeout_s,
                    transport_factory=_transport,
                )
                transport = client.get_transport()
                if transport is not None:
                    transport.set_keepalive(_KEEPALIVE_S)
        except BaseException:
            client.close()
            sock.close()
            raise
        return SshConnection(client, sock, place, timeout_s)


def scan_host_key(host: str, port: int, timeout_s: float) -> HostKey:
    """The host key that a server shows, for a person to compare its fingerprint at enrolment.

    Raises:
        DeployError: unreachable, or no SSH server.
    """
    place = Place(name=host, host=host, port=port)
    with _translated(place, "connect"):
        sock = open_socket(host, port, timeout_s)
    try:
        with _translated(place, "connect", Watchdog(sock, timeout_s)):
            transport = paramiko.Transport(sock)
            transport.banner_timeout = timeout_s
            try:
                transport.start_client(timeout=timeout_s)
                key = transport.get_remote_server_key()
            finally:
                transport.close()
    finally:
        sock.close()
    return _host_key(key)


def _transport(sock: Any, **options: Any) -> paramiko.Transport:  # noqa: ANN401 - paramiko's own
    transport = paramiko.Transport(sock, **options)
    security = transport.get_security_options()
    quick = [c for c in _QUICK_CIPHERS if c in security.ciphers]
    security.ciphers = (*quick, *(c for c in security.ciphers if c not in quick))
    return transport


def _host_key(key: paramiko.PKey) -> HostKey:
    return HostKey(type=key.get_name(), base64=key.get_base64())


def _upload(sftp: paramiko.SFTPClient, source: Path, destination: str, offset: int, watchdog: Watchdog) -> None:
    """Write the rest of a file; OSError without a number where the server says `Failure`."""
    with source.open("rb") as reader, sftp.open(destination, "r+b" if offset else "wb") as writer:
        reader.seek(offset)
        _Upload(sftp, writer.handle, watchdog).write(reader, offset)
    size_bytes = sftp.stat(destination).st_size
    if size_bytes != source.stat().st_size:
        raise OSError(f"{size_bytes} of {source.stat().st_size} bytes arrived")


class _Upload:
    """Pipelined writes. paramiko's own keep 100 requests back, then wait for all of them before the next."""

    def __init__(self, sftp: Any, handle: object, watchdog: Watchdog) -> None:  # noqa: ANN401 - private parts are used
        self._sftp = sftp
        self._handle = handle
        self._watchdog = watchdog
        self._refusal: OSError | None = None

    def write(self, reader: IO[bytes], offset: int) -> None:
        channel = self._sftp.get_channel()
        send_ahead(reader, offset, send=self._send, settle=self._settle, answered=channel.recv_ready)

    def _send(self, offset: int, piece: bytes) -> int:
        number: int = self._sftp._async_request(self, CMD_WRITE, self._handle, int64(offset), piece)  # noqa: SLF001
        self._watchdog.touch()
        return number

    def _settle(self, _number: int) -> None:
        """Take one answer, of whichever request; there are as many as requests."""
        self._sftp._read_response()  # noqa: SLF001
        self._watchdog.touch()
        if self._refusal is not None:
            raise self._refusal

    def _async_response(self, kind: int, message: paramiko.Message, _number: int) -> None:
        """Called by paramiko with each answer."""
        if kind != CMD_STATUS:
            self._refusal = OSError(f"unexpected answer {kind}")
            return
        try:
            self._sftp._convert_status(message)  # noqa: SLF001
        except OSError as error:
            self._refusal = self._refusal or error


@contextlib.contextmanager
def _translated(place: Place, doing: str, watchdog: Watchdog | None = None) -> Iterator[None]:
    """The one place where paramiko's, the socket's and the system's errors become ours."""
    with watchdog or contextlib.nullcontext():
        try:
            yield
        except _FOREIGN as error:
            if watchdog is not None and watchdog.fired:
                silence = format_seconds(watchdog.timeout_s)
                raise DeviceTimeoutError(f"{place}: cannot {doing}: no answer for {silence}") from error
            raise _ours(error, place, doing) from error


def _ours(error: Exception, place: Place, doing: str) -> EdgepruneError:
    if isinstance(error, paramiko.BadHostKeyException):
        return changed_host_key(place, _host_key(error.expected_key), _host_key(error.key))
    what = f"{place}: cannot {doing}"
    if isinstance(error, TimeoutError) or "timeout" in str(error).lower():
        # paramiko has no class of its own for most of its timeouts.
        return DeviceTimeoutError(f"{what}: no answer in time")
    if isinstance(error, paramiko.AuthenticationException):
        return DeployError(f"{what}: {_refusal(error, place.user)}")
    if isinstance(error, OSError):
        return DeployError(f"{what}: {_system_reason(error, place.user)}")
    if isinstance(error, EOFError):
        return DeployError(f"{what}: connection lost")
    refused = "its SSH server opens no further session (MaxSessions?): "
    return DeployError(
        f"{what}: {refused if isinstance(error, paramiko.ChannelException) else ''}{error or type(error).__name__}"
    )


def _refusal(error: paramiko.AuthenticationException, user: str) -> str:
    if isinstance(error, paramiko.PasswordRequiredException):
        return "the identity file has a passphrase; `ssh-add` it and leave identity_file empty"
    return f"{user} was refused with that key: {error}"


def _system_reason(error: OSError, user: str) -> str:
    if isinstance(error, PermissionError):
        return f"permission denied for {user}"
    if isinstance(error, FileNotFoundError):
        return "no such file or folder there"
    return error.strerror or str(error) or type(error).__name__


CONNECTOR: Final[Connector] = SshConnector()
