from __future__ import annotations

from pathlib import Path

import pytest

from edgeprune.errors import InputError
from edgeprune.schema.base import load_toml, parse_toml
from edgeprune.schema.profile import DeviceProfile
from edgeprune.schema.target import TargetSpec

PROFILE = """
schema = 1
name = "door"
[hardware]
arch = "x86_64"
cores = 2
[runtimes.tflite]
[budget]
p99_ms = 5.0
"""

TARGET = """
schema = 1
name = "door"
profiles = ["local"]
[model]
factory = "model.py:build"
[data]
factory = "model.py:load"
"""


def test_minimal_files_are_accepted() -> None:
    assert parse_toml(PROFILE, DeviceProfile, where="p.toml").budget.p99_ms == 5.0
    assert parse_toml(TARGET, TargetSpec, where="t.toml").pruning.criterion == "l2"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("p99_ms = 5.0", "p99_mss = 5.0"), "p.toml: budget.p99_mss: unknown key; did you mean 'p99_ms'?"),
        (("p99_ms = 5.0", 'p99_ms = "5ms"'), 'p.toml: budget.p99_ms: expected a valid number, got "5ms"'),
        (("p99_ms = 5.0", "p99_ms = -5.0"), "p.toml: budget.p99_ms: expected greater than 0, got -5.0"),
        (("p99_ms = 5.0", "memory_mb = 5.0"), "p.toml: budget: expected at least one of p50_ms, p99_ms"),
        (("p99_ms = 5.0", "p99_ms = 5.0\np50_ms = 9.0"), "p.toml: budget: expected p50_ms at or under p99_ms"),
        (("cores = 2\n", ""), "p.toml: hardware.cores: missing; it is required"),
        (("cores = 2", "cores = 2\nthread = 1"), "p.toml: hardware.thread: unknown key; known keys:"),
        (("[budget]", "[measurement]\npercentiles = [101.0]\n[budget]"), "p.toml: measurement.percentiles.0: expected"),
        (("[budget]", "[measurement]\nconfidence = 1.5\n[budget]"), "p.toml: measurement.confidence: expected"),
        (("schema = 1", 'schema = 1\ncpus = ["4-"]'), "p.toml: cpus.0: expected '4-' is no list of cores"),
        (
            ("schema = 1", 'schema = 1\nthreads = [2]\ncpus = ["1"]'),
            "(file): expected a set in cpus with as many cores",
        ),
        (("schema = 1", "schema = 1\nthreads = [4]"), "p.toml: (file): expected threads at most hardware.cores = 2"),
        (
            ("[runtimes.tflite]", "[runtimes.tflite]\nint = true"),
            "runtimes.tflite.int: unknown key; did you mean 'int8'?",
        ),
        (("schema = 1", "schema = 2"), "p.toml: schema: expected 1, got 2"),
        (("schema = 1", "schema = "), "p.toml: not valid TOML"),
    ],
)
def test_a_wrong_profile_names_file_key_expected_and_found(change: tuple[str, str], expected: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_toml(PROFILE.replace(*change), DeviceProfile, where="p.toml")
    assert expected in caught.value.message
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("[data]", "[pruning]\nratios = [1.5]\n[data]"), "t.toml: pruning.ratios.0: expected less than 1, got 1.5"),
        (("[data]", "[pruning]\nratios = [0.5, 0.25]\n[data]"), "pruning: expected ratios in ascending order"),
        (("[data]", "[pruning]\nsparsities = [0.0]\n[data]"), "pruning.sparsities.0: expected greater than 0"),
        (
            ("[data]", '[quantization]\nfixed = ["entropy", "min_max"]\n[data]'),
            "quantization: expected fixed with each word once, and at most one of entropy, min_max, percentile",
        ),
        (
            ("[data]", '[quantization]\nfixed = ["qat"]\nvariants = []\n[data]'),
            "quantization: expected fixed or variants, not both",
        ),
        (
            ("[data]", '[quantization]\nfixed = ["weights8", "entropy"]\n[data]'),
            "quantization: expected fixed with nothing beside weights8",
        ),
        (
            ("[data]", '[quantization]\nfixed = ["mixed_precision"]\n[data]'),
            "quantization: expected fixed without mixed_precision",
        ),
        (("[data]", '[pruning]\nselection = "told"\n[data]'), "pruning: expected group_ratios with selection"),
        (("[data]", '[recovery]\nschedule = "steps"\n[data]'), "recovery: expected `steps` where `schedule` is"),
        (
            ("[data]", '[recovery]\nschedule = "steps"\nsteps = [[0, 0.5], [9, 1.0]]\n[data]'),
            "recovery: expected steps ascending, within 3 epochs, to a share of 1",
        ),
        (
            ("[data]", '[recovery]\nrewind = "weights"\nlearning_rate = 0.1\n[data]'),
            "recovery: expected learning_rate or rewind, not both",
        ),
        (
            ("[data]", '[recovery]\nrewind = "weights"\n[pruning]\nreconstruct = true\n[data]'),
            "expected pruning.reconstruct (which obc implies) or recovery.rewind of the weights",
        ),
        (
            ("[data]", '[recovery]\nrewind = "weights"\n[training]\nepochs = 0\n[data]'),
            'expected recovery.rewind "weights" only where the dense model is trained here',
        ),
        (
            ("[data]", '[recovery]\nrewind = "learning_rate"\n[training]\nepochs = 0\n[data]'),
            "expected recovery.epochs beside recovery.rewind",
        ),
        (("model.py:build", "model.py"), "t.toml: model.factory: expected"),
        (('profiles = ["local"]', "profiles = []"), "t.toml: profiles: expected"),
        (('name = "door"', 'name = "Front Door"'), "t.toml: name: expected"),
        (("[data]", "[training]\noptimizer = 'adam'\n[data]"), "training.optimizer: expected 'sgd' or 'adamw'"),
    ],
)
def test_a_wrong_target_names_file_key_expected_and_found(change: tuple[str, str], expected: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_toml(TARGET.replace(*change), TargetSpec, where="t.toml")
    assert expected in caught.value.message


def test_every_finding_is_told_at_once() -> None:
    text = PROFILE.replace("p99_ms = 5.0", "p99_ms = -1.0\nbudgett = 1")
    with pytest.raises(InputError) as caught:
        parse_toml(text, DeviceProfile, where="p.toml")
    assert caught.value.facts["findings"] == 2


def test_a_missing_file_names_the_closest(tmp_path: Path) -> None:
    (tmp_path / "local.toml").write_text(PROFILE)
    with pytest.raises(InputError, match=r"locl\.toml: no such file; did you mean .*local\.toml"):
        load_toml(tmp_path / "locl.toml", DeviceProfile)
    with pytest.raises(InputError, match="nor the folder"):
        load_toml(tmp_path / "nowhere" / "local.toml", DeviceProfile)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "local.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="cannot be read"):
        load_toml(tmp_path / "local.toml", DeviceProfile)
