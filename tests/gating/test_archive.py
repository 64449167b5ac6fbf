from __future__ import annotations

import hashlib
import io
import random
import re
import struct
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeprune.errors import InputError
from edgeprune.gating import archive
from edgeprune.gating.archive import SUMS, pack, read_bytes, unpack

MEMBERS = {"a.json": b'{"samples": [1, 2, 3]}', "b.json": b"", "c": bytes(range(256))}


def packed(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    """Any zip, with the sums of its members where it has none."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as made:
        for name, content in members.items():
            made.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), content, method)
    return stream.getvalue()


def sums_of(members: dict[str, bytes]) -> bytes:
    return "".join(f"{hashlib.sha256(c).hexdigest()}  {n}\n" for n, c in sorted(members.items())).encode()


@settings(max_examples=30)
@given(st.dictionaries(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True), st.binary(max_size=300)))
def test_what_is_packed_comes_back_and_the_bytes_are_the_same_in_any_order(members: dict[str, bytes]) -> None:
    members.pop(SUMS, None)
    content = pack(members)
    assert unpack(content, where="x.zip") == members
    assert pack(dict(reversed(members.items()))) == content


def test_sha256sum_checks_it_without_us(tmp_path: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(pack(MEMBERS))) as made:
        made.extractall(tmp_path)
        assert {i.date_time for i in made.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert {i.external_attr >> 16 for i in made.infolist()} == {0o644}
    subprocess.run(["sha256sum", "--strict", "-c", SUMS], cwd=tmp_path, check=True, capture_output=True)


def test_every_flip_of_every_bit_is_found() -> None:
    content = pack(MEMBERS)
    for at in range(len(content)):
        for bit in range(8):
            changed = bytearray(content)
            changed[at] ^= 1 << bit
            with pytest.raises(InputError, match=r"^x\.zip: damaged or changed"):
                unpack(bytes(changed), where="x.zip")


def test_random_damage_is_found() -> None:
    content, rng = pack(MEMBERS), random.Random(3)
    for _ in range(2000):
        changed = bytearray(content)
        for _ in range(rng.randint(1, 8)):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
        if bytes(changed) != content:
            with pytest.raises(InputError):
                unpack(bytes(changed), where="x.zip")


@pytest.mark.parametrize("kept", [0, 1, 21, 22, 100, -22, -1])
def test_a_cut_file_is_found(kept: int) -> None:
    with pytest.raises(InputError, match="damaged"):
        unpack(pack(MEMBERS)[:kept], where="x.zip")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: b"#!/bin/sh\n" + c, "bytes around them"),
        (lambda c: c + b"x", "bytes around them|not a zip file"),
        (lambda c: c[:-2] + struct.pack("<H", 3) + b"abc", "bytes around them"),
        (lambda c: packed({**MEMBERS, SUMS: sums_of(MEMBERS)}), "bytes around them"),
        (lambda c: packed({SUMS: sums_of(MEMBERS), **MEMBERS, "d": b"1"}), "d was added"),
        (lambda c: packed({SUMS: sums_of(MEMBERS), "c": MEMBERS["c"]}), r"a\.json is missing, b\.json is missing"),
        (lambda c: packed({SUMS: sums_of(MEMBERS), **MEMBERS, "c": b"1"}), "c is not the one that SHA256SUMS names"),
        (lambda c: packed(MEMBERS), "SHA256SUMS is missing"),
        (lambda c: packed({**MEMBERS, SUMS: b"no sums\n"}), "SHA256SUMS is damaged"),
        (lambda c: packed({SUMS: sums_of({"../x": b"1"}), "../x": b"1"}), "SHA256SUMS is damaged"),
        (lambda c: packed({f"m{k}": b"" for k in range(65)}), "65 members, at most 64"),
    ],
    ids=["front", "behind", "comment", "order", "added", "missing", "other", "no sums", "sums", "path", "many"],
)
def test_other_archives_are_refused_by_what_is_wrong(change: Callable[[bytes], bytes], message: str) -> None:
    with pytest.raises(InputError, match=message):
        unpack(change(pack(MEMBERS)), where="x.zip")


def test_a_doubled_member_is_refused_whichever_is_the_right_one() -> None:
    for members in ((("c", MEMBERS["c"]), ("c", b"1")), (("c", b"1"), ("c", MEMBERS["c"]))):
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as made:
            made.writestr(SUMS, sums_of({"c": MEMBERS["c"]}))
            made.writestr(*members[0])
            with pytest.warns(UserWarning, match="Duplicate name"):
                made.writestr(*members[1])
        with pytest.raises(InputError, match="c is there more than once"):
            unpack(stream.getvalue(), where="x.zip")


def test_a_bomb_is_refused_before_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = packed({SUMS: b"", "a": bytes(50_000_000)}, zipfile.ZIP_DEFLATED)
    assert len(bomb) < 100_000

    def opened(*arguments: object, **options: object) -> None:
        raise AssertionError("a member was read")

    monkeypatch.setattr(zipfile.ZipFile, "open", opened)
    with pytest.raises(InputError, match="is compressed, and evidence never is"):
        unpack(bomb, where="x.zip")


def test_members_that_claim_or_share_more_than_the_file_are_refused() -> None:
    content = bytearray(packed({"a": bytes(1000), "b": b"1"}))
    # Both sizes of `b` in the central directory: a megabyte that is not there.
    entry = content.rindex(b"PK\x01\x02")
    content[entry + 20 : entry + 28] = struct.pack("<II", 1_000_000, 1_000_000)
    with pytest.raises(InputError, match="claim to be larger than the file"):
        unpack(bytes(content), where="x.zip")


def test_a_file_over_the_limit_is_not_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MOST_BYTES", 100)
    path = tmp_path / "evidence.zip"
    with path.open("wb") as file:
        file.truncate(10_000_000_000)  # sparse: reading it all would take the memory
    with pytest.raises(InputError, match=f"^{re.escape(str(path))}: expected at most 100 bytes"):
        read_bytes(path)
    with pytest.raises(InputError, match="expected at most 100 bytes"):
        unpack(bytes(101), where="x.zip")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.zip: no such file"):
        read_bytes(tmp_path / "nowhere.zip")
