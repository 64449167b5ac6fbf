"""A build whose model is trained by two processes, from the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
from targets_for_tests import DISTURBED, StartCommand, make_target


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_processes_train_when_the_command_line_asks_for_them(tmp_path: Path, start_command: StartCommand) -> None:
    process = start_command(make_target(tmp_path).arguments("build", "--workers", "2"))
    _, stderr = process.communicate(timeout=800)
    # What is measured afterwards may be disturbed: that is not what is asked here.
    assert process.returncode in {0, *DISTURBED}, stderr
    assert "dense: 2 processes train together" in stderr
    assert "train dense: done" in stderr
    # What libraries say of processes they start is not the person's business.
    assert "Warning" not in stderr
    assert "distributed" not in stderr
