"""Whatever a person gives that cannot be used: one clear message, the documented exit code, and nothing half done."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from targets_for_tests import MODEL_CODE, make_target, run_until_decided

from edgeprune.cli import run


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"training.epoch": 3}, "target.toml: training.epoch: unknown key; did you mean 'epochs'?"),
        ({"training.epochs": "three"}, 'target.toml: training.epochs: expected a valid integer, got "three"'),
        ({"pruning.sparsities": [1.5]}, "target.toml: pruning.sparsities.0: expected less than 1, got 1.5"),
        (
            {"pruning.criterion": "tailor"},
            "expected a criterion that scores channels, got 'tailor'; did you mean 'taylor'?",
        ),
        ({"pruning.criterion": "lamp"}, "pruning.criterion: expected a criterion that scores channels, got 'lamp'"),
        (
            {"pruning.weight_criterion": "geometric_median"},
            "pruning.weight_criterion: expected a criterion that scores single weights, got 'geometric_median'",
        ),
        ({"model.factory": None}, "target.toml: model: missing; it is required"),
        ({"name": "tny"}, "target.toml: name: expected the folder's name 'tiny', got 'tny'"),
        ({"profiles": ["locl"]}, "unknown profile 'locl'; did you mean 'local'?"),
        ({"profiles": ["../bench.toml"]}, "did you mean"),
        ({"model.factory": "modl.py:build_model"}, "model.factory: no such file: "),
        ({"model.factory": "model.py:biuld_model"}, "did you mean 'build_model'?"),
        ({"data.files": ["images.npz"]}, "data.files: no such file: "),
        (
            {"data.files": ["$NO_SUCH_VARIABLE/x"], "data.help": "ask Ann"},
            "VARIABLE, which is not set\nask Ann",
        ),
        ({"model.weights": "weights.safetensors"}, "model.weights: no such file: "),
        (
            {"pruning.layer_sparsities.conv22": 0.5},
            "target.toml: pruning.layer_sparsities: no layer is named 'conv22'; did you mean 'conv2'?",
        ),
        (
            {"pruning.ignored": None, "pruning.selection": "told", "pruning.group_ratios.conv22": 0.5},
            "pruning.group_ratios: no group is named 'conv22'; did you mean 'conv2'?",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_wrong_target(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: Mapping[str, object], message: str
) -> None:
    made = make_target(tmp_path, target=change)
    assert run(["target", "check", str(made.folder)]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"budget.p50_ms": -5.0}, "bench-box.toml: budget.p50_ms: expected greater than 0, got -5.0"),
        ({"budget.p99": 5.0}, "bench-box.toml: budget.p99: unknown key; did you mean 'p99_ms'?"),
        ({"measurement.percentiles": [101.0]}, "measurement.percentiles.0: expected less than 100, got 101.0"),
        ({"hardware.cores": "two"}, "hardware.cores: expected a valid integer"),
        ({"runtimes.onnxruntim.int8": True}, "unknown runtime; did you mean 'onnxruntime'?"),
        ({"name": "other"}, "name: expected the file's name 'bench-box', got 'other'"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_wrong_profile(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: Mapping[str, object], message: str
) -> None:
    made = make_target(tmp_path, profile=change)
    assert run(["profile", "check", str(made.profile)]) == 2
    assert message in capsys.readouterr().err
    assert run(made.arguments("build")) == 2
    assert message in capsys.readouterr().err
    assert not made.runs.exists()


def test_weights_of_another_shape(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = make_target(tmp_path, target={"model.weights": "w.safetensors"})
    tensors = {**_tensors(), "head.weight": torch.zeros(10, 288)}
    save_file(tensors, made.folder / "w.safetensors")
    assert run(["target", "check", str(made.folder)]) == 2
    assert "w.safetensors: tensor 'head.weight': expected shape (4, 288), got (10, 288)" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_truncated_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str], suffix: str) -> None:
    made = make_target(tmp_path, target={"model.weights": f"w.{suffix}"})
    path = made.folder / f"w.{suffix}"
    if suffix == "pt":
        torch.save(_tensors(), path)
    else:
        save_file(_tensors(), path)
    assert run(["target", "check", str(made.folder)]) == 0
    path.write_bytes(path.read_bytes()[:2000])
    assert run(["target", "check", str(made.folder)]) == 2
    err = capsys.readouterr().err
    assert f"w.{suffix}: " in err
    assert "cut short?" in err or "is damaged" in err


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"recovery.features": ["conv1", "con2"]}, "recovery.features: the student has no layer 'con2'; did you mean"),
        ({"recovery.features": ["conv1:conv9"]}, "recovery.features: the teacher has no layer 'conv9'; did you mean"),
        (
            {"teacher.factory": "model.py:build_model", "teacher.features": ["haed"]},
            "teacher.features: the student has no layer 'haed'; did you mean 'head'?",
        ),
    ],
)
def test_features_of_no_layer_are_told_before_anything_is_built(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], keys: dict[str, object], message: str
) -> None:
    made = make_target(tmp_path, target=keys)
    for command in (["target", "check", str(made.folder)], made.arguments("build")):
        assert run(command) == 2
        assert f"target.toml: {message}" in capsys.readouterr().err
    assert not (made.run / "compressed").exists()


def test_pickle_that_holds_code_is_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = make_target(tmp_path, target={"model.weights": "w.pt"})
    with (made.folder / "w.pt").open("wb") as file:
        pickle.dump(_Trap(tmp_path / "sprung"), file)
    assert run(["target", "check", str(made.folder)]) == 2
    assert "a pickle can run any code" in capsys.readouterr().err
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("return TinyNet()", "raise OSError('no licence')", "model.py:build_model raised OSError: no licence ("),
        ("return TinyNet()", "return 5", "model.factory: expected a torch.nn.Module, got int"),
        ("import numpy", "import nmpy", "cannot be imported: ModuleNotFoundError"),
        ("return Split(images, labels)", "images[3, 0, 0, 0] = np.nan; return Split(images, labels)", "NaN or inf"),
        ("_split(96, 2)", "_split(0, 2)", "split 'validation': expected at least one example, got none"),
        ("np.arange(count) % 4", "np.arange(count) % 5", "expected labels from 0 to 3, got 0 to 4 (4 class names)"),
        ("_split(64, 3)", "None", "split 'test': expected an edgeprune.Split, got NoneType"),
        ("return Split(images, labels)", "return Split(torch.from_numpy(images), labels)", "got Tensor"),
        ("test=_split(64, 3), ", "", "load_data raised TypeError"),
        ("nn.Conv2d(1, 16", "nn.Conv2d(3, 16", "the model does not take the data"),
        ("nn.Linear(32 * 9, 4)", "nn.Linear(32 * 9, 5)", "outputs (examples, classes) = (2, 4), got (2, 5)"),
    ],
    ids=[
        "factory raises", "factory gives no module", "import fails", "nan", "empty split", "labels out of range",
        "no split", "tensors", "data factory raises", "channels", "classes",
    ],
)  # fmt: skip
def test_wrong_model_or_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, message: str
) -> None:
    assert old in MODEL_CODE
    made = make_target(tmp_path, code=MODEL_CODE.replace(old, new))
    assert run(["target", "check", str(made.folder)]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert "target.toml" in err


def test_model_factory_that_raises_is_told_with_file_function_and_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = MODEL_CODE.replace("        super().__init__()\n", "        super().__init__()\n        1 / 0\n")
    line = code.splitlines().index("        1 / 0") + 1
    made = make_target(tmp_path, code=code)
    assert run(made.arguments("build", "--quiet", "--format", "json")) == 2
    out, err = capsys.readouterr()
    expected = f"model.py:build_model raised ZeroDivisionError: division by zero (model.py line {line})"
    assert expected in err
    assert json.loads(out)["error"]["exit_code"] == 2
    assert expected in json.loads(out)["error"]["message"]


def test_build_with_bad_data_leaves_no_outcome_and_goes_on_when_mended(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = make_target(tmp_path, code=MODEL_CODE.replace("_split(96, 2)", "_split(0, 2)"))
    assert run(made.arguments("plan", "--quiet")) == 2
    assert "expected at least one example" in capsys.readouterr().err
    make_target(tmp_path)
    assert run_until_decided(made.arguments("plan", "--quiet")) == 0


def test_budget_that_nothing_meets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = make_target(tmp_path, profile={"budget.p50_ms": 1e-7})
    assert run_until_decided(made.arguments("build", "--quiet", "--format", "json")) == 3
    out, err = capsys.readouterr()
    error = json.loads(out.splitlines()[-1])["error"]
    assert error["exit_code"] == 3
    assert error["facts"]["best_rung"] == "onnxruntime-float32-t1"
    assert 0 < error["facts"]["best_p50_ms"] < 500
    assert "the best possible is p50" in err
    assert "by onnxruntime-float32-t1" in err
    assert "x dense) could be met" in err
    assert error["facts"]["least_feasible_p50_ms"] > error["facts"]["best_p50_ms"]
    # It was refused before anything was trained.
    assert not (made.run / "compressed").exists()
    assert run(made.arguments("plan", "--quiet")) == 3
    assert "refused" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["biuld"], "No such command 'biuld'; did you mean 'build'?"),
        (["build", "nowhere"], "nowhere/target.toml: no such file"),
        (["build", "TINY", "--profile", "locla"], "unknown profile 'locla'; did you mean 'local'?"),
        (["build", "TINY", "--profile", "nowhere/x.toml"], "nowhere/x.toml: no such file"),
        (["build", "TINY", "--device", "locall"], "unknown device 'locall'; did you mean 'local'?"),
        (["build", "TINY", "--frmat", "json"], "No such option"),
        (["bench", "nowhere"], "nowhere: no such file or folder"),
        (["bench", "TINY"], "manifest.json: no such file"),
        (["bench", "TINY/model.py"], "no runtime opens a .py file"),
        (["bench", "TINY", "--percentile", "101"], "101"),
        (["bench", "TINY", "--runs", "10"], "10 is not in the range"),
        (["bench", "TINY", "--p50-ms", "-1"], "-1.0 is not in the range"),
        (["bench", "TINY", "--confidence", "1"], "is not in the range"),
        (["target", "check", "TINY/.."], "targets in "),
        (["build", "TINYY"], "did you mean "),
        (["gate", "nowhere"], "nowhere: no such file; expected a run folder"),
        (["profile", "show", "raspbery-pi-5"], "did you mean 'raspberry-pi-5'?"),
        (["device", "remove", "local"], "cannot be removed"),
        (["device", "check", "edge"], "unknown device 'edge'"),
        (["device", "add", "x", "--host", "h", "--user", "u", "--profile", "local", "--port", "99999"], "99999"),
    ],
    ids=lambda value: " ".join(value[:3]) if isinstance(value, list) else "",
)
def test_wrong_arguments(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    made = make_target(tmp_path)
    known = [a.replace("TINY", str(made.folder)) for a in arguments]
    assert run(known) == 2
    assert message in capsys.readouterr().err


def test_json_is_promised_for_every_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = make_target(tmp_path)
    for arguments, code in (
        (["build", str(made.folder), "--profile", "nowhere", "--format", "json"], 2),
        (["bench", str(made.folder), "--runs", "1", "--format=json"], 2),
        # A file stands where the run folders should lie.
        (["build", str(made.folder), "--output", str(made.profile / "runs"), "--format", "json"], 4),
    ):
        assert run(arguments) == code
        out, err = capsys.readouterr()
        error = json.loads(out)["error"]
        assert error["exit_code"] == code
        assert error["message"]
        assert "Traceback" not in err


def _tensors() -> dict[str, torch.Tensor]:
    scope: dict[str, object] = {}
    exec(MODEL_CODE, scope)  # noqa: S102 - our own text
    factory = scope["build_model"]
    assert callable(factory)
    tensors: dict[str, torch.Tensor] = factory().state_dict()
    return tensors


class _Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return (Path.touch, (self.path,))
