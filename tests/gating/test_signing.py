"""With the real ssh-keygen and throw-away keys."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from evidence_for_tests import allow, make_key

from edgeprune.errors import InputError
from edgeprune.gating.signing import check_signature, sign

CONTENT = b"evidence\x00\xff"


def fingerprint(key: Path) -> str:
    shown = subprocess.run(["ssh-keygen", "-l", "-f", str(key)], check=True, capture_output=True, text=True).stdout
    return shown.split()[1]


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return make_key(tmp_path)


@pytest.fixture
def signature(tmp_path: Path, key: Path) -> Path:
    path = tmp_path / "evidence.zip.sig"
    path.write_bytes(sign(CONTENT, key))
    return path


def test_an_allowed_signer_is_named_with_the_key(tmp_path: Path, key: Path, signature: Path) -> None:
    signer = check_signature(CONTENT, signature, allow(tmp_path, alice=key))
    assert (signer.name, signer.key_type, signer.fingerprint) == ("alice@example.com", "ED25519", fingerprint(key))


def test_without_allowed_signers_there_is_a_key_and_no_name(key: Path, signature: Path) -> None:
    signer = check_signature(CONTENT, signature, None)
    assert (signer.name, signer.fingerprint) == (None, fingerprint(key))


def test_other_kinds_of_key_sign(tmp_path: Path) -> None:
    path = tmp_path / "s.sig"
    for kind in (("-t", "rsa", "-b", "2048"), ("-t", "ecdsa")):
        path.write_bytes(sign(CONTENT, make_key(tmp_path, kind[1], *kind)))
        assert check_signature(CONTENT, path, None).key_type == kind[1].upper()


def test_other_content_is_refused(tmp_path: Path, key: Path, signature: Path) -> None:
    for allowed in (None, allow(tmp_path, alice=key)):
        with pytest.raises(InputError, match=r"evidence\.zip\.sig: the signature is not good: .*incorrect signature"):
            check_signature(CONTENT + b".", signature, allowed)


def test_a_key_that_is_not_allowed_is_refused(tmp_path: Path, signature: Path) -> None:
    other = make_key(tmp_path, "other")
    with pytest.raises(InputError, match="signed by no key of"):
        check_signature(CONTENT, signature, allow(tmp_path, bob=other))


def test_a_signature_for_another_purpose_does_not_count(tmp_path: Path, key: Path) -> None:
    (tmp_path / "file").write_bytes(CONTENT)
    command = ["ssh-keygen", "-Y", "sign", "-n", "git", "-f", str(key), str(tmp_path / "file")]
    subprocess.run(command, check=True, capture_output=True)
    for allowed in (None, allow(tmp_path, alice=key)):
        with pytest.raises(InputError, match="the signature is not good"):
            check_signature(CONTENT, tmp_path / "file.sig", allowed)


@pytest.mark.parametrize("text", [b"", b"hello", b"-----BEGIN SSH SIGNATURE-----\nAAAA\n-----END SSH SIGNATURE-----\n"])
def test_what_is_no_signature_is_refused(tmp_path: Path, key: Path, text: bytes) -> None:
    (tmp_path / "s.sig").write_bytes(text)
    for allowed in (None, allow(tmp_path, alice=key)):
        with pytest.raises(InputError, match=r"s\.sig"):
            check_signature(CONTENT, tmp_path / "s.sig", allowed)


def test_missing_files_are_named(tmp_path: Path, signature: Path) -> None:
    with pytest.raises(InputError, match="no such file; expected an SSH key"):
        sign(CONTENT, tmp_path / "no-key")
    with pytest.raises(InputError, match=r"none\.sig: no such file, and an allowed signer was asked for"):
        check_signature(CONTENT, tmp_path / "none.sig", tmp_path / "x")
    with pytest.raises(InputError, match="no such file; expected allowed signers"):
        check_signature(CONTENT, signature, tmp_path / "none")


def test_a_file_that_is_no_key_cannot_sign(tmp_path: Path) -> None:
    (tmp_path / "nokey").write_text("hello")
    with pytest.raises(InputError, match="nokey: cannot sign"):
        sign(CONTENT, tmp_path / "nokey")


def test_a_host_without_ssh_keygen_says_so(
    tmp_path: Path, key: Path, signature: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for call in (lambda: sign(CONTENT, key), lambda: check_signature(CONTENT, signature, None)):
        with pytest.raises(InputError, match="signatures need ssh-keygen, which is not installed"):
            call()
