"""Signatures by `ssh-keygen -Y`, with the SSH keys that people already have.

`evidence.zip.sig` beside `evidence.zip` is what `ssh-keygen -Y sign -n edgeprune` writes, so that anyone can check it
without edgeprune. Source: PROTOCOL.sshsig of OpenSSH; ssh-keygen(1), section ALLOWED SIGNERS.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from edgeprune.errors import InputError

NAMESPACE = "edgeprune"
"""A signature for another purpose, such as one under a git commit, does not count here."""
SUFFIX = ".sig"

# Somebody types a passphrase, or touches a hardware key.
_TIMEOUT_S = 180.0
_GOOD = re.compile(r"with (?P<key_type>\S+) key (?P<fingerprint>SHA256:\S+)\s*$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Signer:
    """Who signed.

    Attributes:
        name: the principal that the allowed-signers file gives this key; None where no such file was given, and so
            nobody says whose key it is.
        key_type: such as `ED25519`.
        fingerprint: of the key, as `ssh-keygen -l` shows it.
    """

    name: str | None
    key_type: str
    fingerprint: str


def sign(content: bytes, key: Path) -> bytes:
    """The signature of some content.

    Args:
        content: of the file.
        key: private key file; or a public one whose private half the SSH agent has.

    Raises:
        InputError: no such key, no passphrase, or ssh-keygen is not installed.
    """
    if not key.is_file():
        raise InputError(f"{key}: no such file; expected an SSH key, such as ~/.ssh/id_ed25519", path=str(key))
    done = _ssh_keygen("sign", "-n", NAMESPACE, "-f", str(key), content=content)
    if done.returncode != 0:
        raise InputError(f"{key}: cannot sign: {_said(done)}", path=str(key))
    return done.stdout


def check_signature(content: bytes, signature: Path, allowed_signers: Path | None) -> Signer:
    """Who signed this content.

    Args:
        content: of the file, as it was signed.
        signature: the file that `sign` made.
        allowed_signers: whose keys count, see ssh-keygen(1); None takes any key, and vouches for none.

    Raises:
        InputError: the signature is not of this content, of another namespace, by a key that is not allowed, or
            ssh-keygen is not installed.
    """
    if not signature.is_file():
        raise InputError(f"{signature}: no such file, and an allowed signer was asked for", path=str(signature))
    if allowed_signers is None:
        done = _ssh_keygen("check-novalidate", "-n", NAMESPACE, "-s", str(signature), content=content)
        return _signer(done, signature, None)
    if not allowed_signers.is_file():
        raise InputError(f"{allowed_signers}: no such file; expected allowed signers", path=str(allowed_signers))
    who = ("-f", str(allowed_signers), "-s", str(signature))
    found = _ssh_keygen("find-principals", *who, content=b"")
    names = found.stdout.decode(errors="replace").splitlines()
    if found.returncode != 0 or not names:
        raise InputError(f"{signature}: signed by no key of {allowed_signers}: {_said(found)}", path=str(signature))
    done = _ssh_keygen("verify", "-n", NAMESPACE, "-I", names[0], *who, content=content)
    return _signer(done, signature, names[0])


def _signer(done: subprocess.CompletedProcess[bytes], signature: Path, name: str | None) -> Signer:
    good = _GOOD.search(done.stdout.decode(errors="replace"))
    if done.returncode != 0 or good is None:
        raise InputError(f"{signature}: the signature is not good: {_said(done)}", path=str(signature))
    return Signer(name=name, key_type=good["key_type"], fingerprint=good["fingerprint"])


def _ssh_keygen(action: str, *arguments: str, content: bytes) -> subprocess.CompletedProcess[bytes]:
    command = ["ssh-keygen", "-Y", action, *arguments]
    try:
        return subprocess.run(command, input=content, capture_output=True, timeout=_TIMEOUT_S, check=False)
    except FileNotFoundError as error:
        raise InputError(
            "signatures need ssh-keygen, which is not installed on this host (Debian: apt install openssh-client)"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise InputError(f"ssh-keygen -Y {action}: no answer in {_TIMEOUT_S:.0f} s") from error


def _said(done: subprocess.CompletedProcess[bytes]) -> str:
    text = (done.stderr or done.stdout).decode(errors="replace")
    return " ".join(text.split()) or f"exit status {done.returncode}"
