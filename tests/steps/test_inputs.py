from __future__ import annotations

from pathlib import Path

import pytest
import torch
from targets_for_tests import MODEL_CODE, make_target

from edgeprune.deployment.inventory import load_device
from edgeprune.errors import InputError
from edgeprune.steps.inputs import load_profile, load_target, tool_versions
from edgeprune.steps.outcome import BuildInputs


def test_identity_changes_with_every_file_that_the_target_is_made_of(tmp_path: Path) -> None:
    made = make_target(tmp_path, target={"data.files": ["../data.bin"]})
    (tmp_path / "data.bin").write_bytes(b"1")
    (made.folder / "helper.py").write_text("x = 1")
    seen = {load_target(made.folder).identity}
    for path in (
        tmp_path / "data.bin",
        made.folder / "helper.py",
        made.folder / "model.py",
        made.folder / "target.toml",
    ):
        path.write_bytes(path.read_bytes() + b"\n# more\n")
        seen.add(load_target(made.folder).identity)
    assert len(seen) == 5
    (made.folder / "notes.txt").write_text("not ours")
    assert load_target(made.folder).identity in seen


def test_identity_of_a_build_names_profile_device_and_versions(tmp_path: Path) -> None:
    made = make_target(tmp_path)
    target = load_target(made.folder / "target.toml")
    profile = target.profile(target.spec.profiles[0])
    inputs = BuildInputs(target=target, profile=profile, device=load_device("local"), output=made.runs)
    names = [name for name, _ in inputs.identity()]
    assert {"target target.toml", "target model.py", "profile", "device", "version of torch"} <= set(names)
    assert inputs.folder == made.run
    assert dict(tool_versions())["torch"] == torch.__version__


def test_initial_weights_are_a_function_of_the_seed_alone(tmp_path: Path) -> None:
    one = load_target(make_target(tmp_path / "one").folder)
    two = load_target(make_target(tmp_path / "two", target={"seed": 1}).folder)
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first, second = one.build_model(), one.build_model()
    assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    other = two.build_model()
    assert not all(torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))


def test_edited_target_is_imported_again(tmp_path: Path) -> None:
    made = make_target(tmp_path)
    assert len(load_target(made.folder).load_data().train) == 256
    make_target(tmp_path, code=MODEL_CODE.replace("_split(256, 1)", "_split(128, 1)"))
    assert len(load_target(made.folder).load_data().train) == 128


def test_profile_path_in_a_target_is_relative_to_the_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = load_target(make_target(tmp_path / "here").folder)
    monkeypatch.chdir(tmp_path)
    assert target.profile("../bench-box.toml").name == "bench-box"
    assert target.profile("local") == load_profile("local")
    with pytest.raises(InputError, match="no such file"):
        target.profile("bench-box.toml")


def test_variable_in_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changes = {"model.weights": "${WEIGHTS}/w.pt", "data.help": "ask Ann"}
    target = load_target(make_target(tmp_path, target=changes).folder)
    monkeypatch.delenv("WEIGHTS", raising=False)
    with pytest.raises(InputError, match=r"variable WEIGHTS, which is not set\nask Ann"):
        target.weights_path()
    monkeypatch.setenv("WEIGHTS", str(tmp_path))
    with pytest.raises(InputError, match=r"no such file: .*w\.pt\nask Ann"):
        target.weights_path()
    (tmp_path / "w.pt").touch()
    assert target.weights_path() == tmp_path / "w.pt"
