from __future__ import annotations

from pathlib import Path

import pytest

from edgeprune.steps.inputs import load_profile, load_target

ROOT = Path(__file__).resolve().parents[2]
PROFILES = sorted((ROOT / "profiles").glob("*.toml"))
TARGETS = sorted((ROOT / "targets").glob("*/target.toml"))


def test_the_promised_profiles_are_shipped() -> None:
    names = {p.stem for p in PROFILES}
    assert names >= {"local", "intel-nuc", "smart-camera", "raspberry-pi-4", "raspberry-pi-5", "jetson-orin-nano"}


@pytest.mark.parametrize("path", PROFILES, ids=lambda p: p.stem)
def test_a_shipped_profile_is_valid(path: Path) -> None:
    profile = load_profile(path)
    assert profile.description


@pytest.mark.parametrize("path", TARGETS, ids=lambda p: p.parent.name)
def test_a_shipped_target_is_valid_and_names_valid_profiles(path: Path) -> None:
    target = load_target(path)
    for name in target.spec.profiles:
        load_profile(ROOT / "profiles" / f"{name}.toml")
