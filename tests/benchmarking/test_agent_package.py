from __future__ import annotations

import ast
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from edgeprune.benchmarking.agent import package

DEVICE = Path(package.__file__).parent / "device"
SOURCES = sorted(DEVICE.glob("*.py"))


@pytest.fixture
def agent(tmp_path: Path) -> Path:
    path = tmp_path / "agent.pyz"
    path.write_bytes(package.agent_bytes())
    return path


def _run(agent: Path, *arguments: str) -> tuple[int, list[dict[str, object]], str]:
    # -I keeps this checkout off the path: the agent must not lean on it.
    result = subprocess.run(
        [sys.executable, "-I", str(agent), *arguments], capture_output=True, text=True, check=False, cwd="/"
    )
    return result.returncode, [json.loads(line) for line in result.stdout.splitlines()], result.stderr


def test_the_same_sources_give_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / "copied" / "device"
    shutil.copytree(DEVICE, copy)
    os.utime(copy / "bench.py", (0, 0))
    before = package.agent_bytes()
    monkeypatch.setattr(package, "files", lambda _: copy.parent)
    assert package.agent_bytes.__wrapped__() == before
    assert package.agent_digest() == hashlib.sha256(before).hexdigest()


def test_every_source_is_in_the_zip() -> None:
    with zipfile.ZipFile(io.BytesIO(package.agent_bytes())) as archive:
        names = archive.namelist()
    assert names == sorted(["__main__.py", *(f"edgeprune_agent/{s.name}" for s in SOURCES)])


@pytest.mark.parametrize("source", SOURCES, ids=lambda p: p.name)
def test_sources_are_old_fashioned(source: Path) -> None:
    tree = ast.parse(source.read_text(), feature_version=(3, 8))
    for node in ast.walk(tree):
        modules = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            modules = [node.module or ""]
        for module in modules:
            assert module.split(".")[0] in {*sys.stdlib_module_names, "numpy"}


def test_python_38_is_enough() -> None:
    vermin = [str(Path(sys.executable).with_name("vermin")), "--target=3.8-", "--no-tips", "--violations", str(DEVICE)]
    result = subprocess.run(vermin, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


def test_probe_tells_this_machine(agent: Path, tmp_path: Path) -> None:
    code, (facts,), _ = _run(agent, "probe", "--work", str(tmp_path / "not" / "there"))
    assert code == 0
    assert (facts["schema"], facts["event"]) == (1, "facts")
    assert facts["cores"] == len(os.sched_getaffinity(0))
    assert {cpu for core in facts["topology"] for cpu in core["cpus"]} == os.sched_getaffinity(0)
    assert facts["python"] == ".".join(map(str, sys.version_info[:3]))
    assert not (tmp_path / "not").exists()


def test_bad_usage_is_exit_code_2(agent: Path) -> None:
    code, replies, stderr = _run(agent, "bench")
    assert (code, replies) == (2, [])
    assert "--runtime" in stderr


def test_receive_moves_what_is_right(agent: Path, tmp_path: Path) -> None:
    part, final = tmp_path / "x.part", tmp_path / "x"
    part.write_bytes(b"content")
    final.write_bytes(b"older")
    sha256 = hashlib.sha256(b"content").hexdigest()
    receive = ["receive", "--part", str(part), "--sha256", sha256, "--size", "7", "--to", str(final)]
    assert _run(agent, *receive)[0] == 0
    assert final.read_bytes() == b"content"
    assert not part.exists()
    code, (reply,), _ = _run(agent, "have", "--path", str(final), "--sha256", sha256)
    assert (code, reply["there"]) == (0, True)


@pytest.mark.parametrize(("size", "sha256"), [("6", hashlib.sha256(b"content").hexdigest()), ("7", "00")])
def test_receive_removes_what_is_wrong(agent: Path, tmp_path: Path, size: str, sha256: str) -> None:
    part, final = tmp_path / "x.part", tmp_path / "x"
    part.write_bytes(b"content")
    final.write_bytes(b"older")
    receive = ["receive", "--part", str(part), "--sha256", sha256, "--size", size, "--to", str(final)]
    code, replies, _ = _run(agent, *receive)
    assert (code, replies[-1]["event"], replies[-1]["kind"]) == (1, "error", "io")
    assert final.read_bytes() == b"older"
    assert not part.exists()


def test_have_of_a_missing_file(agent: Path, tmp_path: Path) -> None:
    code, (reply,), _ = _run(agent, "have", "--path", str(tmp_path / "x"), "--sha256", "00")
    assert (code, reply["there"]) == (0, False)


def test_file_errors_are_of_kind_io(agent: Path, tmp_path: Path) -> None:
    receive = ["receive", "--part", str(tmp_path / "x"), "--sha256", "00", "--size", "1", "--to", str(tmp_path / "y")]
    code, replies, _ = _run(agent, *receive)
    assert (code, replies[-1]["kind"]) == (1, "io")
