"""Reading a command's two streams with a deadline, and folders over SFTP, whichever library speaks SSH."""

from __future__ import annotations

import threading
import time
from pathlib import PurePosixPath
from typing import Protocol

from edgeprune.deployment.remote_shell import Preamble
from edgeprune.deployment.streams import Stream

_READ_BYTES = 1 << 16


class Channel(Protocol):
    """What is needed of paramiko's channel; `recv` raises TimeoutError, and returns nothing at the end."""

    closed: bool
    status_event: threading.Event

    def settimeout(self, timeout: float | None) -> None:
        """For the reads that follow."""

    def recv(self, nbytes: int) -> bytes:
        """What has come on stdout, at least one byte."""

    def recv_stderr(self, nbytes: int) -> bytes:
        """What has come on stderr, at least one byte."""

    def recv_stderr_ready(self) -> bool:
        """Whether something has."""


class Folders(Protocol):
    """What is needed of paramiko's SFTP client."""

    def stat(self, path: str) -> object:
        """FileNotFoundError where there is nothing."""

    def mkdir(self, path: str) -> None:
        """OSError where it is there already, too."""


def pump_stdout(channel: Channel, stdout: Stream, preamble: Preamble, deadline: float) -> None:
    """Read to the end.

    Raises:
        TimeoutError: the deadline, of `time.monotonic`, passed.
    """
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        channel.settimeout(left)
        data = channel.recv(_READ_BYTES)
        if not data:
            return
        stdout.feed(preamble.strip(data))


def pump_stderr(channel: Channel, stderr: Stream) -> None:
    """Both streams must be read: they share the channel's window. Ends with the channel."""
    while not channel.closed or channel.recv_stderr_ready():
        try:
            data = channel.recv_stderr(_READ_BYTES)
        except TimeoutError:
            # The deadline is the other pump's to keep.
            continue
        if not data:
            return
        stderr.feed(data)


def wait_for_status(channel: Channel, deadline: float) -> None:
    """`recv_exit_status` itself knows no deadline.

    Raises:
        TimeoutError: the deadline, of `time.monotonic`, passed.
    """
    if not channel.status_event.wait(max(0.0, deadline - time.monotonic())):
        raise TimeoutError


def make_folders(sftp: Folders, folder: PurePosixPath) -> None:
    """Make a folder and those above it; OSError where that is not allowed."""
    missing = []
    for path in (folder, *folder.parents):
        try:
            sftp.stat(str(path))
            break
        except FileNotFoundError:
            missing.append(path)
    for path in reversed(missing):
        try:
            sftp.mkdir(str(path))
        except OSError:
            # Somebody else's mkdir may have come first.
            sftp.stat(str(path))
