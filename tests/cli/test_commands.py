from __future__ import annotations

import json
import resource
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from targets_for_tests import make_target

from edgeprune import __version__
from edgeprune.cli import cli, run
from edgeprune.errors import EXIT_CODES
from edgeprune.schema.profile import DeviceProfile

HEAVY = (
    "torch", "torch_pruning", "openvino", "onnx", "onnxscript", "onnxruntime", "tflite_runtime", "ai_edge_litert",
    "litert_torch", "lightning_fabric", "ai_edge_quantizer", "nncf", "paramiko", "matplotlib", "jinja2", "scipy",
    "sklearn", "numpy",
)  # fmt: skip


def test_help_takes_less_than_a_third_of_a_second() -> None:
    best_s = float("inf")
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "edgeprune", "--help"], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        best_s = min(best_s, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert best_s < 0.3


@pytest.mark.parametrize(
    "code",
    [
        "from edgeprune.cli import run; run(['--help'])",
        "from edgeprune.cli import run; run(['build', '--help'])",
        "from edgeprune.cli import run; run(['profile', 'list'])",
        "from edgeprune.cli import run; run(['device', 'list'])",
        "import edgeprune",
        "import edgeprune.api",
    ],
)
def test_light_commands_load_no_heavy_library(code: str) -> None:
    check = f"import sys; {code}; print('heavy:', sorted(set({HEAVY!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "heavy: []"


def test_help_lists_commands_and_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for name in ("bench", "build", "device", "gate", "init", "plan", "profile", "target"):
        assert f" {name} " in text
    for code, meaning in EXIT_CODES.items():
        assert f"{code} {meaning}" in text
    assert run(["--version"]) == 0
    assert __version__ in capsys.readouterr().out


def test_every_command_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    context = cli.make_context("edgeprune", ["--help"], resilient_parsing=True)
    for name in cli.list_commands(context):
        assert run([name, "--help"]) == 0
        assert "Usage: edgeprune" in capsys.readouterr().out


def test_api_names_stay_callable_when_every_module_is_imported() -> None:
    code = """
import importlib, pkgutil, edgeprune
for module in pkgutil.walk_packages(edgeprune.__path__, "edgeprune."):
    if ".agent.device" not in module.name and not module.name.endswith("__main__"):
        importlib.import_module(module.name)
for name in ("build", "plan", "bench", "gate", "load_profile", "load_target"):
    assert callable(getattr(edgeprune, name)), name
print("callable")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1:] == ["callable"], done.stderr


def test_init_makes_a_target_that_its_own_check_accepts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "new" / "door"
    assert run(["init", str(folder), "--profile", "raspberry-pi-4"]) == 0
    assert f"edgeprune build {folder} --profile raspberry-pi-4" in capsys.readouterr().out
    written = tomllib.loads((folder / "target.toml").read_text())
    assert (written["name"], written["profiles"]) == ("door", ["raspberry-pi-4"])
    assert {p.name for p in folder.iterdir()} == {"target.toml", "model.py"}
    assert run(["target", "check", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "target.toml: ok" in out
    assert "10 classes" in out
    assert "groups that can be cut: " in out
    assert run(["target", "check", str(folder), "--quick"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_init_in_an_empty_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "door").mkdir()
    monkeypatch.chdir(tmp_path / "door")
    assert run(["init", "."]) == 0
    assert {p.name for p in Path.cwd().iterdir()} == {"target.toml", "model.py"}
    assert {p.name for p in tmp_path.iterdir()} == {"door"}


def test_init_takes_a_profile_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_target(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert run(["init", "elsewhere/door", "--profile", "bench-box.toml"]) == 0
    assert tomllib.loads(Path("elsewhere/door/target.toml").read_text())["profiles"] == [str(made.profile)]
    assert run(["target", "check", "elsewhere/door", "--quick"]) == 0


def test_init_leaves_a_folder_with_files_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "door"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    assert run(["init", str(folder)]) == 2
    assert "expected a new or empty folder" in capsys.readouterr().err
    assert {p.name for p in folder.iterdir()} == {"notes.txt"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["Front Door"], "name: expected"),
        (['we"ird\\1'], "name: expected"),
        (["door", "--profile", "locl"], "did you mean 'local'?"),
    ],
)
def test_init_with_a_bad_name_makes_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["init", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_profiles_are_listed_shown_and_described(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "profiles").mkdir()
    mine = make_target(tmp_path).profile.rename(tmp_path / "profiles" / "bench-box.toml")
    monkeypatch.chdir(tmp_path)
    assert run(["profile", "list", "--format", "json"]) == 0
    listed = {p["name"]: p for p in json.loads(capsys.readouterr().out)["profiles"]}
    shipped = {"local", "intel-nuc", "smart-camera", "raspberry-pi-4", "raspberry-pi-5", "jetson-orin-nano"}
    assert shipped | {"bench-box"} <= set(listed)
    assert run(["profile", "list"]) == 0
    assert "bench-box" in capsys.readouterr().out
    assert run(["profile", "show", "bench-box", "--format", "json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert DeviceProfile.model_validate_json(json.dumps(shown)).budget.p50_ms == 500.0
    assert shown == listed["bench-box"]
    assert run(["profile", "show", "bench-box"]) == 0
    text = capsys.readouterr().out
    assert "budget.p50_ms" in text
    assert '"any"' in text
    assert "[50.0, 90.0, 99.0, 99.9]" in text
    assert "false" in text
    assert "measurement.confidence" in text
    assert run(["profile", "check", "bench-box", str(mine), "local"]) == 0
    capsys.readouterr()
    assert run(["profile", "schema"]) == 0
    assert "budget" in json.loads(capsys.readouterr().out)["properties"]
    assert run(["target", "schema"]) == 0
    assert "recovery" in json.loads(capsys.readouterr().out)["properties"]


def test_local_device_is_checked_and_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["device", "list"]) == 0
    assert "this machine" in capsys.readouterr().out
    assert run(["device", "check", "local"]) == 0
    out = capsys.readouterr().out
    assert "onnxruntime" in out
    assert "differs" not in out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--rounds", "5"], "--rounds needs --compare"),
        (["--memory-of", "model"], "--memory-of needs --memory-mb"),
        (["--compare", "b.onnx", "--rate", "5"], "exclude one another"),
        (["--compare", "b.onnx", "--sustain", "6s"], "exclude one another"),
    ],
)
def test_bench_refuses_an_option_that_would_do_nothing(
    capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert run(["bench", "a.onnx", *options]) == 2
    assert message in capsys.readouterr().err
