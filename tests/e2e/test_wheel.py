"""The built package, installed where nothing of this checkout is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_installed_wheel_scaffolds_a_target_and_knows_its_profiles(tmp_path: Path) -> None:
    # From a copy: building must leave nothing in the checkout.
    source, venv, elsewhere = tmp_path / "source", tmp_path / "venv", tmp_path / "elsewhere"
    tracked = _run(["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"], ROOT).split("\0")
    for name in filter(None, tracked):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    _run([sys.executable, "-m", "build", "--wheel", "--outdir", str(tmp_path / "dist")], source)
    (wheel,) = (tmp_path / "dist").glob("edgeprune-*.whl")
    _run([sys.executable, "-m", "venv", str(venv)], tmp_path)
    python, program = str(venv / "bin" / "python"), str(venv / "bin" / "edgeprune")
    _run([python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps", str(wheel)], tmp_path)
    # The dependencies are those of this environment; added after the venv's own folder, so that the wheel wins.
    (packages,) = (venv / "lib").glob("python*/site-packages")
    (packages / "dependencies.pth").write_text(str(Path(np.__file__).parents[1]) + "\n")
    elsewhere.mkdir()

    where = "import edgeprune.cli; print(edgeprune.cli.__file__)"
    assert _run([python, "-P", "-c", where], elsewhere).startswith(str(venv))
    assert "made demo/target.toml" in _run([program, "init", "demo"], elsewhere)
    listed = _run([program, "profile", "list"], elsewhere)
    for name in ("local", "intel-nuc", "smart-camera", "raspberry-pi-4", "raspberry-pi-5", "jetson-orin-nano"):
        assert name in listed
    assert "target.toml: ok" in _run([program, "target", "check", "demo"], elsewhere)
    assert "onnxruntime" in _run([program, "device", "check", "local"], elsewhere)
    assert not (ROOT / "edgeprune" / "_shipped").exists()


def _run(command: list[str], folder: Path) -> str:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout
