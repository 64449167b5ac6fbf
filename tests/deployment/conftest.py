"""One SSH server for the whole room: starting it makes keys and, for root, an account."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sshd import SshServer


@pytest.fixture(scope="session")
def server() -> Iterator[SshServer]:
    with SshServer() as started:
        yield started
