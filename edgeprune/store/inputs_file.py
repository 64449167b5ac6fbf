"""`inputs.json`: what the last finished build was a function of."""

from __future__ import annotations

import json
from pathlib import Path

from edgeprune.files import write_atomically

Inputs = tuple[tuple[str, str], ...]
"""(name, digest or version) of every input."""

_FILE = "inputs.json"


def write_inputs(folder: Path, inputs: Inputs) -> None:
    """Keep them; written last, so that they are there only when the build is."""
    write_atomically(folder / _FILE, json.dumps({"schema": 1, "inputs": dict(inputs)}, indent=1).encode())


def forget_inputs(folder: Path) -> None:
    """Say that there is no finished build."""
    (folder / _FILE).unlink(missing_ok=True)


def read_inputs(folder: Path) -> Inputs:
    """Those of the last finished build; empty when there is none, or its file is damaged."""
    try:
        content = json.loads((folder / _FILE).read_bytes())
        return tuple(sorted((str(k), str(v)) for k, v in content["inputs"].items()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return ()


def changes_since(before: Inputs, now: Inputs) -> tuple[str, ...]:
    """What differs, a line each: `target model.py: changed`, `version of torch: 2.12.0 -> 2.13.0`."""
    old, new = dict(before), dict(now)
    lines = []
    for name in sorted({*old, *new}):
        if old.get(name) == new.get(name):
            continue
        if name not in old:
            lines.append(f"{name}: new")
        elif name not in new:
            lines.append(f"{name}: gone")
        elif name.startswith("version of "):
            lines.append(f"{name}: {old[name]} -> {new[name]}")
        else:
            lines.append(f"{name}: changed")
    return tuple(lines)
