"""A session of a device holds its lease while it measures, and keeps its cache within bounds."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from devices_for_tests import here_device

from edgeprune.errors import MeasurementError
from edgeprune.schema.device import DeviceSpec
from edgeprune.steps.session import DeviceSession, open_session


@pytest.fixture
def spec(tmp_path: Path) -> DeviceSpec:
    return here_device(tmp_path, lease_folder=str(tmp_path / "lease"), cache_mb=0.25)


def test_a_campaign_is_one_lease(spec: DeviceSpec) -> None:
    with open_session(spec) as session:
        with session.leased() as outer:
            assert f"(process {os.getpid()})" in session.lease_status().holder
            with session.leased() as inner:
                assert inner is outer
            assert session.lease_status().holder
        assert not session.lease_status().holder


def test_a_second_session_waits(spec: DeviceSpec) -> None:
    with open_session(spec) as one, open_session(spec) as two, one.leased():
        told: list[str] = []
        with pytest.raises(MeasurementError, match="is measuring"), two.leased(told.append, wait_s=0.5):
            pytest.fail("both held it")
        assert told


def test_the_cache_forgets_what_was_used_longest_ago(spec: DeviceSpec, tmp_path: Path) -> None:
    with open_session(spec) as session:
        first, second = (_place(session, spec, tmp_path, name) for name in ("first", "second"))
        os.utime(first, (1, 1))
        third = _place(session, spec, tmp_path, "third")
        assert [Path(p).exists() for p in (first, second, third)] == [False, True, True]


def test_what_a_live_lease_uses_is_not_forgotten(spec: DeviceSpec, tmp_path: Path) -> None:
    with open_session(spec) as session:
        first = _place(session, spec, tmp_path, "first")
        with session.leased(), open_session(spec) as other:
            os.utime(first, (1, 1))
            second = _place(other, spec, tmp_path, "second")
            os.utime(second, (2, 2))
            _place(other, spec, tmp_path, "third")
            assert Path(first).exists()
            assert not Path(second).exists()


def _place(session: DeviceSession, spec: DeviceSpec, tmp_path: Path, name: str) -> str:
    source = tmp_path / name
    source.write_bytes(os.urandom(100_000))
    return session._ensure([(source, hashlib.sha256(source.read_bytes()).hexdigest())])
