"""From the paths and names a person gives to checked inputs with an identity."""

from __future__ import annotations

import difflib
import hashlib
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeprune.errors import InputError
from edgeprune.files import sha256_of
from edgeprune.registry import suggest
from edgeprune.schema.base import load_toml
from edgeprune.schema.profile import DeviceProfile
from edgeprune.schema.target import TargetSpec
from edgeprune.steps.target_code import last_line_in, load_module

if TYPE_CHECKING:
    from torch import nn

    from edgeprune.data.splits import DataSplits

_SHIPPED = Path(__file__).resolve().parent.parent / "_shipped"
_CHECKOUT = Path(__file__).resolve().parent.parent.parent
# Whatever of these is installed has a say in the outcome of a build.
_TOOLS = (
    "edgeprune", "numpy", "torch", "safetensors", "openvino", "nncf", "onnx", "onnx-ir", "onnxscript",
    "onnxruntime", "litert-converter",
    "litert-torch", "ai-edge-quantizer", "ai-edge-litert", "scikit-learn", "scipy", "lightning-fabric",
)  # fmt: skip


@dataclass(frozen=True)
class Target:
    """A checked target and the folder that its paths are relative to."""

    spec: TargetSpec
    folder: Path

    @property
    def file(self) -> Path:
        """The target's TOML file."""
        return self.folder / "target.toml"

    def path(self, text: str, *, key: str) -> Path:
        """Expand `$NAME` in a path and make it absolute.

        Raises:
            InputError: a variable is not set; the message has the target's own help on how to get the data.
        """
        missing = [n for n in re.findall(r"\$\{?([A-Za-z_]\w*)\}?", text) if n not in os.environ]
        if missing:
            raise InputError(
                f"{self.file}: {key}: {text!r} needs the environment variable {missing[0]}, which is not set"
                f"{self.help_text()}",
                variable=missing[0],
            )
        return (self.folder / Path(os.path.expandvars(text)).expanduser()).resolve()

    def weights_path(self) -> Path | None:
        """The pretrained weights, or None when the model is trained here.

        Raises:
            InputError: the file is missing.
        """
        return self._existing(self.spec.model.weights, key="model.weights")

    def teacher_weights_path(self) -> Path | None:
        """The teacher's weights, or None when there is no teacher or its factory has them.

        Raises:
            InputError: the file is missing.
        """
        return self._existing(self.spec.teacher.weights if self.spec.teacher else None, key="teacher.weights")

    def build_model(self, factory: str | None = None, *, key: str = "model.factory") -> nn.Module:
        """Call the model factory; initial weights are drawn at the target's seed.

        Args:
            factory: of another model than the target's own, such as the teacher's.
            key: where it stands in the target's file, for messages.

        Raises:
            InputError: the file or function is missing, it raises, or it returns something else.
        """
        import torch

        with torch.random.fork_rng():
            torch.manual_seed(self.spec.seed)
            model = self._call(factory or self.spec.model.factory, key)
        if not isinstance(model, torch.nn.Module):
            raise InputError(f"{self.file}: {key}: expected a torch.nn.Module, got {type(model).__name__}")
        return model.eval()

    def load_data(self) -> DataSplits:
        """Call the data factory and check what it returns.

        Raises:
            InputError: it raises, or the data cannot be used; see `data.splits.check_splits`.
        """
        from edgeprune.data.splits import check_splits

        for text in self.spec.data.files:
            if not self.path(text, key="data.files").exists():
                raise InputError(f"{self.file}: data.files: no such file: {self.path(text, key='')}{self.help_text()}")
        data = self._call(self.spec.data.factory, "data.factory", seed=self.spec.seed)
        return check_splits(data, where=f"{self.file}: data.factory {self.spec.data.factory}")

    def profile(self, name_or_path: str) -> DeviceProfile:
        """A profile that the target's file names; a path there is relative to the file, like every other.

        Raises:
            InputError: missing, or not what the format says.
        """
        return load_profile(self.folder / name_or_path if _is_path(name_or_path) else name_or_path)

    def function(self, reference: str, *, key: str) -> Callable[..., Any]:
        """A function of the target's own Python file.

        Args:
            reference: `file.py:function`.
            key: where the reference stands in the target's file, for messages.
        """
        file_name, function_name = reference.rsplit(":", 1)
        module = load_module(self.folder / file_name, where=f"{self.file}: {key}")
        found = getattr(module, function_name, None)
        if not callable(found):
            functions = tuple(sorted(n for n, v in vars(module).items() if callable(v) and not n.startswith("_")))
            raise InputError(
                f"{self.file}: {key}: no function {function_name!r} in {self.folder / file_name}"
                f"{suggest(function_name, functions)}"
            )
        return found  # type: ignore[no-any-return]

    def guarded(self, reference: str, *, key: str) -> Callable[..., Any]:
        """The same function; what it raises becomes an InputError that names it and the line."""
        return GuardedFunction(self, reference, key, self.function(reference, key=key))

    @cached_property
    def identity(self) -> tuple[tuple[str, str], ...]:
        """(name, sha256) of every file that the target is made of, without importing any of them."""
        code = sorted(p for p in self.folder.rglob("*.py") if "__pycache__" not in p.parts)
        files = [self.file, *code]
        files += [self.path(text, key="data.files") for text in self.spec.data.files]
        files += [path for path in (self.weights_path(), self.teacher_weights_path()) if path is not None]
        return tuple((_shown(f, self.folder), _sha256(f, self)) for f in files)

    def help_text(self) -> str:
        """The target's own words on how to get its data, as a paragraph; empty when it has none."""
        return f"\n{self.spec.data.help.strip()}" if self.spec.data.help else ""

    def _existing(self, text: str | None, *, key: str) -> Path | None:
        if text is None:
            return None
        path = self.path(text, key=key)
        if not path.is_file():
            raise InputError(f"{self.file}: {key}: no such file: {path}{self.help_text()}")
        return path

    def _call(self, reference: str, key: str, **arguments: object) -> object:
        function = self.function(reference, key=key)
        return self.guard(lambda: function(**arguments), reference, key)

    def guard(self, call: Callable[[], object], reference: str, key: str) -> object:
        """Call the target's code; what it raises becomes an InputError that names it and the line."""
        try:
            return call()
        except InputError:
            raise
        except Exception as error:  # A user's code may raise anything; it becomes one clear message.
            place = last_line_in(error, self.folder)
            raise InputError(
                f"{self.file}: {key}: {reference} raised {type(error).__name__}: {error}{place}"
            ) from error


@dataclass(frozen=True, slots=True)
class GuardedFunction:
    """A function of a target's own file; what it raises becomes an InputError that names it and the line.

    No closure: it can be handed to another process, which must have imported the file.
    """

    target: Target
    reference: str
    key: str
    function: Callable[..., Any]

    def __call__(self, *arguments: object) -> Any:  # noqa: ANN401
        """Call it."""
        return self.target.guard(lambda: self.function(*arguments), self.reference, self.key)


def load_target(path: str | Path) -> Target:
    """Read a target from its folder or its `target.toml`.

    Raises:
        InputError: missing, or not what the format says.
    """
    given = Path(path)
    file = given if given.suffix == ".toml" else given / "target.toml"
    if not file.is_file():
        raise InputError(f"{file}: no such file{_targets_near(given)}", path=str(file))
    spec = load_toml(file, TargetSpec)
    target = Target(spec=spec, folder=file.resolve().parent)
    if target.folder.name != spec.name:
        raise InputError(f"{file}: name: expected the folder's name {target.folder.name!r}, got {spec.name!r}")
    _check_criteria(spec, file)
    return target


def _check_criteria(spec: TargetSpec, file: Path) -> None:
    """Refuse a criterion that there is none of, or that does not score what it is to choose."""
    from edgeprune.protocols import Granularity
    from edgeprune.pruning.criteria import CRITERIA

    pruning = spec.pruning
    uses = {
        "criterion": (pruning.criterion, {Granularity.OUT_CHANNEL, Granularity.IN_CHANNEL}, "channels"),
        "weight_criterion": (pruning.weight_criterion, {Granularity.WEIGHT}, "single weights"),
    }
    for key, (name, wanted, what) in uses.items():
        fitting = tuple(n for n in CRITERIA.names() if CRITERIA.get(n).granularities & wanted)
        if name not in fitting:
            raise InputError(
                f"{file}: pruning.{key}: expected a criterion that scores {what}, got {name!r}{suggest(name, fitting)}"
            )


def _targets_near(given: Path) -> str:
    """The targets in a folder that is none itself; for a path that is not there, its closest sibling."""
    if given.is_dir():
        inside = sorted(str(p.parent) for p in given.glob("*/target.toml"))
        return f"; targets in {given}: {', '.join(inside)}" if inside else ""
    if not given.parent.is_dir():
        return f" (nor the folder {given.parent})"
    siblings = [p.name for p in given.parent.iterdir() if p.is_dir() == (given.suffix != ".toml")]
    close = difflib.get_close_matches(given.name, siblings, n=1)
    return f"; did you mean {given.parent / close[0]}?" if close else ""


def load_profile(name_or_path: str | Path) -> DeviceProfile:
    """Read a profile by path, or by name from `./profiles` and then from the shipped ones.

    Raises:
        InputError: missing, or not what the format says.
    """
    path = _profile_path(str(name_or_path))
    profile = load_toml(path, DeviceProfile)
    if profile.name != path.stem:
        raise InputError(f"{path}: name: expected the file's name {path.stem!r}, got {profile.name!r}")
    from edgeprune.runtimes import RUNTIMES

    for runtime in profile.runtimes:
        if runtime not in RUNTIMES.names():
            raise InputError(f"{path}: runtimes.{runtime}: unknown runtime{suggest(runtime, RUNTIMES.names())}")
    return profile


def profile_paths() -> dict[str, Path]:
    """The profiles that can be named: the shipped ones, and those of `./profiles`, which win."""
    folders = (shipped_folder("profiles"), Path("profiles"))
    return {p.stem: p for folder in folders if folder.is_dir() for p in sorted(folder.glob("*.toml"))}


def shipped_folder(name: str) -> Path:
    """A folder that ships with the package: inside it when installed, beside it in a checkout."""
    checkout = _CHECKOUT / name
    return checkout if (_CHECKOUT / "pyproject.toml").is_file() and checkout.is_dir() else _SHIPPED / name


def tool_versions() -> tuple[tuple[str, str], ...]:
    """(distribution, version) of every installed library that has a say in a build, and of Python."""
    found = [("python", sys.version.split()[0]), ("edgeprune code", code_digest())]
    for name in _TOOLS:
        try:
            found.append((name, metadata.version(name)))
        except metadata.PackageNotFoundError:
            continue
    return tuple(found)


@cache
def code_digest() -> str:
    """sha256 over edgeprune's own sources: a fix in how it prunes or measures makes every kept step stale."""
    package = Path(__file__).resolve().parent.parent
    total = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        total.update(str(path.relative_to(package)).encode() + path.read_bytes())
    return total.hexdigest()[:16]


def _profile_path(text: str) -> Path:
    if _is_path(text):
        return Path(text)
    known = profile_paths()
    if text not in known:
        raise InputError(f"unknown profile {text!r}{suggest(text, tuple(sorted(known)))}")
    return known[text]


def _is_path(profile: str) -> bool:
    return profile.endswith(".toml") or os.sep in profile


def _shown(path: Path, folder: Path) -> str:
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else str(path)


def _sha256(path: Path, target: Target) -> str:
    try:
        return sha256_of(path)
    except OSError as error:
        raise InputError(f"{target.file}: cannot read {path}: {error.strerror}{target.help_text()}") from error
