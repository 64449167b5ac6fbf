"""Devices over SSH. The only file that imports paramiko; every exception of paramiko's ends here."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any, Final

import paramiko
from paramiko.agent import AgentSSH
from paramiko.ber import BERException
from paramiko.hostkeys import InvalidHostKey
from paramiko.packet import NeedRekeyException
from paramiko.pkey import UnknownKeyType
from paramiko.sftp import CMD_STATUS, CMD_WRITE, int64

from edgeprune.deployment import remote_shell
from edgeprune.deployment.channels import make_folders, pump_stderr, pump_stdout, wait_for_status
from edgeprune.deployment.host_keys import HostKey, parse_host_key
from edgeprune.deployment.known_hosts import KnownKeys, known_keys
from edgeprune.deployment.pipelining import send_ahead
from edgeprune.deployment.ssh_config import Hop, route
from edgeprune.deployment.ssh_endpoint import jump_place_of, open_socket, place_of, public_blob, start_proxy
from edgeprune.deployment.ssh_errors import (
    Place,
    changed_host_key,
    disk_full,
    not_started,
    revoked_host_key,
    system_reason,
    unknown_host_key,
)
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
_AGENT_TIMEOUT_S = 10.0
# RFC 4254, section 5.1: "administratively prohibited".
_PROHIBITED = 1
# What a server signs with a key of this type.
_SIGNED_AS: Final = {"ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256")}
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
        transport: authenticated.
        way: what it goes through, which is closed with it.
        place: for messages.
        silence_s: a transfer that has not moved for so long has failed.
    """

    def __init__(self, transport: paramiko.Transport, way: _Way, place: Place, silence_s: float) -> None:
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Way:
    """What is open towards a device; the stack closes all of it.

    Attributes:
        sock: what leaves this host: cut, it ends all transports that go through it.
        lane: what a transport to the device's own SSH server runs over.
    """

    stack: contextlib.ExitStack
    sock: socket.socket
    lane: socket.socket | paramiko.Channel
    timeout_s: float

    def greet(self, keys: Sequence[HostKey]) -> paramiko.Transport:
        """Begin to speak SSH; a key of one of these types is asked for. It is the caller who looks at it."""
        transport = _transport(self.lane)
        self.stack.callback(transport.close)
        transport.banner_timeout = transport.auth_timeout = transport.channel_timeout = self.timeout_s
        security = transport.get_security_options()
        ours = {kind for key in keys for kind in _SIGNED_AS.get(key.type, (key.type,))}
        wanted = [kind for kind in security.key_types if kind in ours]
        security.key_types = (*wanted, *(kind for kind in security.key_types if kind not in ours))
        transport.start_client(timeout=self.timeout_s)
        return transport

    def through(self, device: DeviceSpec, jump: Hop, beyond: Hop) -> _Way:
        """Log in to the jump host that this way leads to, and have it connect further."""
        known = known_keys(jump.known_as, jump.known_hosts)
        place = jump_place_of(device, jump, known)
        with _translated(place, "connect", Watchdog(self.sock, self.timeout_s)):
            transport = self.greet(known.keys)
            _check_jump(place, known, _host_key(transport.get_remote_server_key()))
            _log_in(transport, jump, place)
            transport.set_keepalive(_KEEPALIVE_S)
        to = (beyond.host, beyond.port)
        with _translated(place, f"go on to {beyond.host}:{beyond.port}", Watchdog(self.sock, self.timeout_s)):
            try:
                lane = transport.open_channel("direct-tcpip", to, ("127.0.0.1", 0), timeout=self.timeout_s)
            except paramiko.ChannelException as error:
                forbidden = " (AllowTcpForwarding?)" if error.code == _PROHIBITED else ""
                raise DeployError(
                    f"{place}: it does not connect to {beyond.host}:{beyond.port}: {error.text}{forbidden}"
                ) from error
        return replace(self, lane=lane)


def _set_out(device: DeviceSpec, hops: Sequence[Hop], stack: contextlib.ExitStack) -> _Way:
    """Go to the device's own SSH server, through all jump hosts."""
    first, timeout_s = hops[0], device.connect_timeout_s
    place = place_of(device, first) if len(hops) == 1 else jump_place_of(device, first, KnownKeys())
    with _translated(place, f"start {first.proxy_command[0]}" if first.proxy_command else "connect"):
        if first.proxy_command:
            sock = start_proxy(first.proxy_command, stack)
        else:
            sock = open_socket(first.host, first.port, timeout_s)
            stack.callback(sock.close)
    way = _Way(stack=stack, sock=sock, lane=sock, timeout_s=timeout_s)
    for jump, beyond in itertools.pairwise(hops):
        way = way.through(device, jump, beyond)
    return way


def _check_jump(place: Place, known: KnownKeys, found: HostKey) -> None:
    if found in known.revoked:
        raise revoked_host_key(place, found)
    if found in known.keys:
        return
    if not known.keys:
        raise unknown_host_key(place, found)
    raise changed_host_key(place, next((k for k in known.keys if k.type == found.type), known.keys[0]), found)


def _log_in(transport: paramiko.Transport, hop: Hop, place: Place) -> None:
    """Offer one key after the other.

    Raises:
        DeployError: none was taken; it names each with the reason.
    """
    refusals: list[str] = []
    with contextlib.closing(_Agent(hop.agent)) as agent:
        for shown, load in _identities(hop, agent):
            try:
                more = transport.auth_publickey(hop.user, load())
            except TypeError:
                # The cryptography library's word for it.
                refusals.append(f"{shown}: it has a passphrase; `ssh-add` it")
            except (paramiko.AuthenticationException, UnknownKeyType, ValueError, OSError) as error:
                if not transport.is_active() or "timeout" in str(error).lower():
                    raise
                refusals.append(f"{shown}: {error}")
            else:
                if not more:
                    return
                refusals.append(f"{shown}: it is not enough, the server also asks for {', '.join(more)}")
    offered = "; ".join(refusals) or "no key: there is no identity file, and ssh-agent has none"
    raise DeployError(f"{place}: cannot connect: {hop.user} was refused with {offered}")


def _identities(hop: Hop, agent: _Agent) -> Iterator[tuple[str, Callable[[], paramiko.PKey]]]:
    """Each key's name in messages, and what loads it: the agent's where it has it, else the file's."""
    agents_own = {key.asbytes(): key for key in agent.get_keys()}
    for path in hop.identity_files:
        held = agents_own.pop(public_blob(path), None)
        if held is not None:
            yield f"{path} (from ssh-agent)", partial(_same, held)
        elif Path(path).is_file() and not path.endswith(".pub"):
            yield path, partial(paramiko.PKey.from_path, path)
    if not hop.identities_only:
        for key in agents_own.values():
            yield f"ssh-agent's {key.comment or key.get_name()}", partial(_same, key)


def _same(key: paramiko.PKey) -> paramiko.PKey:
    return key


class _Agent(AgentSSH):
    """ssh-agent at a socket of our choice; without keys where nobody listens there."""

    def __init__(self, path: str) -> None:
        super().__init__()
        if not path:
            return
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.settimeout(_AGENT_TIMEOUT_S)
            sock.connect(path)
            self._connect(sock)  # type: ignore[attr-defined]  # the stubs lack it
        except (OSError, paramiko.SSHException) as error:
            _log.warning("ssh-agent at %s does not answer: %s", path, error)
            sock.close()

    def close(self) -> None:
        """Once the log-in is over."""
        self._close()  # type: ignore[attr-defined]  # the stubs lack it


class SshConnector:
    """Opens SSH connections to enrolled devices."""

    def connect(self, device: DeviceSpec) -> Connection:
        """See `protocols.Connector.connect`."""
        hops = route(device)
        place = place_of(device, hops[-1])
        if not device.host_key:
            raise HostKeyError(f"{place}: no host key is pinned; enrol it: edgeprune device add {device.name} ...")
        pinned = parse_host_key(device.host_key, where=f"device {device.name}")
        with contextlib.ExitStack() as stack:
            way = _set_out(device, hops, stack)
            with _translated(place, "connect", Watchdog(way.sock, way.timeout_s)):
                transport = way.greet([pinned])
                found = _host_key(transport.get_remote_server_key())
                if found != pinned:
                    raise changed_host_key(place, pinned, found)
                _log_in(transport, hops[-1], place)
                transport.set_keepalive(_KEEPALIVE_S)
            kept = replace(way, stack=stack.pop_all())
        return SshConnection(transport, kept, place, way.timeout_s)


def scan_host_key(device: DeviceSpec) -> HostKey:
    """The host key that a device shows, for a person to compare its fingerprint at enrolment.

    Raises:
        InputError: the OpenSSH configuration cannot be used.
        DeployError: unreachable, or no SSH server; a jump host on the way is unknown or refuses us.
    """
    hops = route(device)
    with contextlib.ExitStack() as stack:
        way = _set_out(device, hops, stack)
        with _translated(place_of(device, hops[-1]), "connect", Watchdog(way.sock, way.timeout_s)):
            return _host_key(way.greet([]).get_remote_server_key())


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
        return DeployError(f"{what}: {place.user} was refused: {error}")
    if isinstance(error, OSError):
        return DeployError(f"{what}: {system_reason(error, place.user)}")
    if isinstance(error, EOFError):
        return DeployError(f"{what}: connection lost")
    refused = "its SSH server opens no further session (MaxSessions?): "
    return DeployError(
        f"{what}: {refused if isinstance(error, paramiko.ChannelException) else ''}{error or type(error).__name__}"
    )


CONNECTOR: Final[Connector] = SshConnector()
