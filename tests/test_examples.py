"""The examples are run, so that they do not rot."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from evidence_for_tests import make_run

from edgeprune.cli import cli, run

WORKFLOW = Path(__file__).parent.parent / "examples" / "github-actions.yml"


@pytest.fixture(scope="module")
def jobs() -> dict[str, Any]:
    return yaml.safe_load(WORKFLOW.read_text())["jobs"]


@pytest.fixture
def host(tmp_path: Path) -> dict[str, str]:
    """A runner's environment, with `edgeprune` on the path."""
    program = tmp_path / "bin" / "edgeprune"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m edgeprune "$@"\n')
    program.chmod(0o755)
    return {
        **os.environ,
        "PATH": f"{program.parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(WORKFLOW.parent.parent),
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"),
        "RUN": str(tmp_path / "run"),
        "RELEASES": str(tmp_path / "releases"),
    }


def script(jobs: dict[str, Any], job: str, name: str) -> str:
    return str(next(s["run"] for s in jobs[job]["steps"] if s.get("name") == name))


def bash(text: str, host: dict[str, str], folder: Path) -> int:
    """As a runner calls it: bash that stops at the first error."""
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", text]
    return subprocess.run(command, env=host, cwd=folder, check=False, capture_output=True).returncode


def test_every_step_is_an_action_at_a_version_or_a_script(jobs: dict[str, Any]) -> None:
    for job in jobs.values():
        for step in job["steps"]:
            assert ("run" in step) != ("uses" in step)
            assert "@v" in step.get("uses", "@v")
    assert any("upload-artifact" in s.get("uses", "") and s["if"] == "always()" for s in jobs["gate"]["steps"])


def test_the_commands_exist_with_these_options(jobs: dict[str, Any]) -> None:
    lines = [line for j in jobs.values() for s in j["steps"] for line in s.get("run", "").splitlines()]
    called = [shlex.split(line.split("||")[0]) for line in lines if line.strip().startswith("edgeprune ")]
    assert {words[1] for words in called} == {"build", "gate"}
    for words in called:
        arguments = ["x" if w.startswith("$") else w for w in words[1:] if w != "${against[@]}"]
        command: click.Command | None = cli
        context = click.Context(cli)
        while isinstance(command, click.Group):
            context = command.make_context(command.name, arguments, parent=context)
            _, command, arguments = command.resolve_command(context, [*context._protected_args, *context.args])
        assert command is not None
        command.make_context(command.name, arguments, parent=context)


def test_a_pass_is_shown_in_the_summary_and_held_against_the_release(
    jobs: dict[str, Any], host: dict[str, str], tmp_path: Path
) -> None:
    make_run(tmp_path / "run")
    gate = script(jobs, "gate", "Gate")
    assert bash(gate, host, tmp_path) == 0
    assert "regression" not in (tmp_path / "summary.md").read_text()
    old = make_run(tmp_path / "old", p50_ms=1.8, seed=5)
    assert run(["release", "promote", str(old), "--name", "1.0", "--releases", host["RELEASES"]]) == 0
    assert bash(gate, host, tmp_path) == 7
    summary = (tmp_path / "summary.md").read_text()
    assert "### ✅ PASS" in summary
    assert "### ❌ FAIL" in summary
    assert "- **regression FAIL**: p50 1.1" in summary
    assert "<failure" in (tmp_path / "gate.xml").read_text()


def test_a_run_without_evidence_fails_the_job(jobs: dict[str, Any], host: dict[str, str], tmp_path: Path) -> None:
    assert bash(script(jobs, "gate", "Gate"), host, tmp_path) == 2
    assert not (tmp_path / "summary.md").exists()


def test_the_second_job_verifies_what_the_first_one_left(
    jobs: dict[str, Any], host: dict[str, str], tmp_path: Path
) -> None:
    text = script(jobs, "verify", "Verify the evidence").replace("python -m pip install edgeprune\n", "")
    path = make_run(tmp_path / "runs" / "door") / "evidence.zip"
    assert bash(text, host, tmp_path) == 0
    path.write_bytes(path.read_bytes().replace(b"samples_ns", b"samples_nt", 1))
    assert bash(text, host, tmp_path) == 2


@pytest.mark.parametrize(("code", "job"), [(0, 0), (3, 0), (8, 0), (9, 0), (4, 4), (5, 5), (1, 1)])
def test_only_a_build_that_judged_nothing_stops_before_the_gate(
    jobs: dict[str, Any], host: dict[str, str], tmp_path: Path, code: int, job: int
) -> None:
    (tmp_path / "bin" / "edgeprune").write_text(f"#!/bin/sh\nexit {code}\n")
    assert bash(script(jobs, "gate", "Build and measure"), host, tmp_path) == job
