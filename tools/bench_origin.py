"""What the rows of a benchmark were made with. It is kept beside them, so that no two are mixed that mean other things.

Settings, data, the device and the versions of libraries are the same for all rows of a folder, or `--resume` is
refused. Code may differ: each row names its own, and the table says which rows are of other code than the run's. What
only asks for more rows (seeds, parts, runtimes, methods, amounts) stands in the rows themselves.
"""

from __future__ import annotations

import ast
import json
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from edgeprune.deployment.inventory import load_device
from edgeprune.files import sha256_of
from edgeprune.schema.profile import DeviceProfile
from edgeprune.steps.inputs import Target, code_digest, tool_versions
from edgeprune.steps.measuring_code import code_digest as digest_of_sources
from edgeprune.steps.session import open_session
from edgeprune.store.run_folder import digest

_OF_THE_CODE = {"edgeprune", "edgeprune code"}
"""Of `tool_versions`: what `Code` says."""
_OF_THE_DEVICE = ("machine", "kernel", "cpu_model", "cores")
_DIGITS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """What made a row.

    Attributes:
        digest: of the sources of the package and of the tool; equal where they are.
        revision: the commit, for a person to look up; `-dirty` where files differ from it, empty outside of a checkout.
            A commit that touches other files alone is of the same code.
    """

    digest: str
    revision: str = field(compare=False)

    def __str__(self) -> str:
        return f"{self.revision or 'no revision'} (digest {self.digest})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """All else that rows are made with, by name; the values are JSON.

    Attributes:
        settings: what every row depends on.
        parts: what only some rows depend on, such as a runtime's settings: a run that lacks one makes none of those.
    """

    settings: Mapping[str, str]
    parts: Mapping[str, str]

    def differences(self, other: Origin) -> tuple[str, ...]:
        """What `other` has otherwise, a line each; none where its rows may stand beside those of this one."""
        names = self.settings.keys() | other.settings.keys()
        pairs = [(name, self.settings.get(name), other.settings.get(name)) for name in names]
        pairs += [(name, self.parts[name], other.parts[name]) for name in self.parts.keys() & other.parts.keys()]
        return tuple(
            f"{name}: expected {expected or 'nothing'}, found {found or 'nothing'}"
            for name, expected, found in sorted(pairs, key=lambda pair: pair[0])
            if expected != found
        )

    def joined(self, other: Origin) -> Origin:
        """Of the rows of both; to be asked where nothing differs."""
        return replace(self, parts={**self.parts, **other.parts})


def origin_of(
    target: Target,
    profile: DeviceProfile,
    *,
    device: str = "local",
    by_runtime: bool = True,
    asked: Mapping[str, object] | None = None,
) -> Origin:
    """What a run with these inputs makes its rows with; the data are loaded, and the device is asked who it is.

    Args:
        target: with all that the benchmark changes in it but the seed of a row. Data are those of its own seed: others
            are drawn from the same files by the same code.
        profile: with the runtimes that are asked for.
        device: its name in the inventory.
        by_runtime: whether a row depends on one runtime alone, so that another one asks only for more rows.
        asked: the tool's own settings that change what a row means.

    Raises:
        InputError: the target's files or data cannot be read.
        DeployError: the device is out of reach.
    """
    settings = _flat(
        "target",
        target.spec.model_dump(mode="json", exclude={"description": True, "profiles": True, "data": {"help": True}}),
    )
    settings |= _flat("profile", profile.model_dump(mode="json", exclude={"name", "description", "runtimes"}))
    settings |= dict(_contents(target)) | _flat("asked", dict(asked or {}))
    with open_session(load_device(device)) as session:
        facts = session.facts
    settings |= _flat("device", {"name": device, **{name: getattr(facts, name) for name in _OF_THE_DEVICE}})
    runtimes = _flat("profile.runtimes", profile.model_dump(mode="json")["runtimes"])
    versions = _flat("version", {n: v for n, v in tool_versions() if n not in _OF_THE_CODE})
    parts = versions | _flat("device.version", dict(facts.runtimes))
    if by_runtime:
        return Origin(settings=settings, parts=parts | runtimes)
    return Origin(settings=settings | runtimes, parts=parts)


def code_of(tool: Path) -> Code:
    """Of the package as it is, and of a tool with the tools that it imports."""
    sources = [path.read_text("utf-8") for path in tool_files(tool)]
    found = digest(code_digest(), digest_of_sources(sources))
    return Code(digest=found[:_DIGITS], revision=_revision(tool.resolve().parent))


def tool_files(tool: Path) -> tuple[Path, ...]:
    """A tool, the tools that it imports, those that they import, and so on; sorted."""
    found: set[Path] = set()
    waiting = [tool.resolve()]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting += [f for name in _imported(path) if (f := path.with_name(f"{name}.py")).is_file()]
    return tuple(sorted(found))


def _imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def _contents(target: Target) -> Iterator[tuple[str, str]]:
    """Of the target's code, weights and data; where they lie does not matter."""
    yield from ((f"sha256 of {name}", found) for name, found in target.identity if name.endswith(".py"))
    weights = {"model.weights": target.weights_path(), "teacher.weights": target.teacher_weights_path()}
    yield from ((f"sha256 of {name}", sha256_of(path)) for name, path in weights.items() if path is not None)
    yield "sha256 of the data", target.load_data().identity()


def _flat(name: str, value: object) -> dict[str, str]:
    """Dotted names, and the values in JSON."""
    if not isinstance(value, dict):
        return {name: json.dumps(value, sort_keys=True)}
    return {key: text for part, inner in value.items() for key, text in _flat(f"{name}.{part}", inner).items()}


def _revision(folder: Path) -> str:
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    except FileNotFoundError:
        return ""
    return done.stdout.strip()
