"""The README's Python is run, so that it does not rot."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from models import ResNet, seeded
from trained_in_workers import stripes

import edgeprune

README = Path(__file__).parent.parent / "README.md"


def test_the_parts_work_alone_as_the_readme_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    section = README.read_text().split("The parts work alone too:")[1].split("\n## ")[0]
    inputs, labels = map(torch.from_numpy, stripes(160))
    names: dict[str, Any] = {"copy": copy, "edgeprune": edgeprune, "torch": torch, "inputs": inputs, "labels": labels}
    model = names["model"] = seeded(lambda: ResNet((16, 16), classes=3))
    for code in re.findall(r"```python\n(.*?)```", section, re.DOTALL):
        exec(compile(code, str(README), "exec"), names)  # noqa: S102 - a page of ours
    assert names["narrow"].layer1[0].conv1.out_channels == 8
    for net, share in ((names["sparse"], 0.7), (model, 0.9)):
        weights = torch.cat([net.get_submodule(n).weight.flatten() for n in names["layers"].layers])
        assert int((weights == 0).sum()) == round(share * len(weights))
    curve = names["found"].curve("layer1.0.conv1")
    assert [p.width for p in curve.points] == [4, 8, 12]
    assert curve.points[0].loss_increase != 0
    assert (tmp_path / "narrow-int8" / "model.tflite").stat().st_size == names["artifact"].size_bytes
