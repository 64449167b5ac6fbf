"""A new target that works, made from the shipped example."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from pathlib import Path

from edgeprune.errors import InputError
from edgeprune.schema.base import parse_toml
from edgeprune.schema.target import TargetSpec
from edgeprune.steps.inputs import load_profile, shipped_folder


def scaffold_target(folder: Path, profile: str) -> tuple[Path, ...]:
    """Make a folder with `target.toml` and `model.py`; it appears whole or not at all.

    Args:
        folder: must not exist, or be empty; its name becomes the target's name.
        profile: name or path of the profile that the target ships to; must exist.

    Returns:
        The files made.

    Raises:
        InputError: the folder has something in it, its name is no target name, or there is no such profile.
    """
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder}: expected a new or empty folder, found files in it")
    named = profile if load_profile(profile).name == profile else str(Path(profile).resolve())
    example = shipped_folder("targets") / "digits"
    text = (example / "target.toml").read_text(encoding="utf-8")
    text = re.sub(r'(?m)^name = ".*"$', lambda _: f"name = {json.dumps(folder.resolve().name)}", text, count=1)
    text = re.sub(r"(?m)^profiles = \[.*\]$", lambda _: f"profiles = [{json.dumps(named)}]", text, count=1)
    parse_toml(text, TargetSpec, where=f"{folder / 'target.toml'}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".edgeprune-init-") as partial:
        made = Path(partial) / "target"
        made.mkdir()
        shutil.copyfile(example / "model.py", made / "model.py")
        (made / "target.toml").write_text(text, encoding="utf-8")
        if folder.exists():
            # It may be somebody's current folder: filled, not replaced.
            for name in ("model.py", "target.toml"):
                (made / name).rename(folder / name)
        else:
            made.rename(folder)
    return (folder / "target.toml", folder / "model.py")
