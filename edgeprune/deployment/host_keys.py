"""Host keys as OpenSSH writes them, and their fingerprints as OpenSSH shows them."""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass

from edgeprune.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class HostKey:
    """A public host key: its type, such as `ssh-ed25519`, and its base64 text."""

    type: str
    base64: str

    @property
    def line(self) -> str:
        """As it stands in a device's file: `ssh-ed25519 AAAA...`."""
        return f"{self.type} {self.base64}"

    @property
    def blob(self) -> bytes:
        """The decoded key."""
        return base64.b64decode(self.base64)

    @property
    def fingerprint(self) -> str:
        """As `ssh-keygen -l` shows it: `SHA256:...`."""
        digest = hashlib.sha256(self.blob).digest()
        return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def parse_host_key(line: str, *, where: str) -> HostKey:
    """Read `type base64 [comment]`.

    Raises:
        InputError: it is no such line.
    """
    kind, _, rest = line.strip().partition(" ")
    text = rest.split(" ")[0]
    try:
        decoded = base64.b64decode(text, validate=True)
    except binascii.Error:
        decoded = b""
    if not decoded:
        raise InputError(f"{where}: host_key: expected a type and base64, such as `ssh-ed25519 AAAA...`, got {line!r}")
    return HostKey(type=kind, base64=text)
