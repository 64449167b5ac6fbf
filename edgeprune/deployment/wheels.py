"""Wheels for a device's platform and Python, found and fetched by this host's pip, with its own configuration.

pip fetches, one distribution at a time and without what it depends on. The dependencies are followed here: pip would
judge their markers (`python_version < "3.10"`, `platform_machine == "aarch64"`) by this host's Python instead of the
device's, whatever `--platform` and `--python-version` say (https://github.com/pypa/pip/issues/11664).
"""

from __future__ import annotations

import email.parser
import importlib.util
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename

from edgeprune.deployment.pip_messages import no_wheel, pip_failed, unmatched
from edgeprune.deployment.platform_tags import platform_tags
from edgeprune.errors import BuildError, NotInstalledError
from edgeprune.files import sha256_of
from edgeprune.records.provisioning import Interpreter, Wheel

_ROUNDS = 30
_TIMEOUT_S = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """A wheel on this host, what its files take when unpacked, and what it says that it needs."""

    path: Path
    wheel: Wheel
    unpacked_bytes: int
    requires: tuple[Requirement, ...]


@dataclass(slots=True)
class Fetcher:
    """Runs pip for one device.

    Attributes:
        interpreter: the device's.
        folder: where wheels are put, on this host.
    """

    interpreter: Interpreter
    folder: Path
    _fetched: dict[str, Fetched] = field(default_factory=dict)

    def resolve(self, roots: Sequence[str], besides: Sequence[str] = ()) -> tuple[Fetched, ...]:
        """Fetch distributions with all that they depend on, the newest versions that go together.

        A version is chosen anew when what is found later narrows it; there is no way back to an older version of who
        asked, as pip would try.

        Args:
            roots: requirements such as `onnxruntime` or `onnxruntime==1.20`.
            besides: requirements that count from the second round on: of what the roots bring along anyway.

        Raises:
            DeployError: a distribution has no wheel for the device; `facts` has it with platform and Python.
            BuildError: pip failed otherwise.
            NotInstalledError: this host's Python has no pip.
        """
        wanted = merged([Requirement(text) for text in roots])
        for _ in range(_ROUNDS):
            chosen = self.fetch(wanted)
            asked = [Requirement(text) for text in (*roots, *besides)]
            asked += [r for f, w in zip(chosen, wanted, strict=True) for r in self._needed(f, w)]
            before, wanted = wanted, merged(asked)
            if wanted == before:
                return chosen
        names = ", ".join(str(r) for r in wanted)
        raise BuildError(f"pip finds no versions that go together after {_ROUNDS} rounds: {names}")

    def fetch(self, wanted: Sequence[Requirement]) -> tuple[Fetched, ...]:
        """The newest wheel of each, without what it depends on; in the same order, each fetched once."""
        missing = [r for r in wanted if _bare(r) not in self._fetched]
        if missing:
            found = self._download(missing)
            self._fetched.update({_bare(r): found[canonicalize_name(r.name)] for r in missing})
        return tuple(self._fetched[_bare(r)] for r in wanted)

    def _needed(self, fetched: Fetched, wanted: Requirement) -> list[Requirement]:
        """What a wheel needs on the device, with the extras that were asked for."""
        environments = [dict(self.interpreter.markers) | {"extra": extra} for extra in ("", *wanted.extras)]
        return [r for r in fetched.requires if r.marker is None or any(r.marker.evaluate(e) for e in environments)]

    def _download(self, missing: Sequence[Requirement]) -> dict[str, Fetched]:
        folder = self.folder / f"round-{sum(1 for _ in self.folder.iterdir())}"
        folder.mkdir()
        texts = [_bare(r) for r in missing]
        done = self._pip(folder, texts, ())
        if done.returncode != 0:
            self._explain(folder, texts, done.stdout)
        found = [read_wheel(path) for path in sorted(folder.glob("*.whl"))]
        return {f.wheel.name: f for f in found}

    def _explain(self, folder: Path, texts: Sequence[str], said: str) -> None:
        text = unmatched(said)
        if text is None:
            raise pip_failed(said)
        asked = next((t for t in texts if t.replace(" ", "") == text.replace(" ", "")), text)
        # Only now, for the names of the files that did not fit: it tells thousands of lines.
        more = self._pip(folder, [asked], ("-vv",)).stdout
        raise no_wheel(asked, self.interpreter, said + more)

    def _pip(self, folder: Path, texts: Sequence[str], options: Sequence[str]) -> subprocess.CompletedProcess[str]:
        if importlib.util.find_spec("pip") is None:
            raise NotInstalledError(f"pip is missing for {sys.executable}: {sys.executable} -m ensurepip")
        target = [part for tag in platform_tags(self.interpreter) for part in ("--platform", tag)]
        target += ["--implementation", "cp", "--abi", self.interpreter.abi]
        target += ["--python-version", self.interpreter.marker("python_full_version").rstrip("+")]
        argv = [sys.executable, "-m", "pip", "--no-input", "--disable-pip-version-check", "download", *options]
        argv += ["--no-deps", "--only-binary=:all:", "--progress-bar", "off", "--dest", str(folder), *target, *texts]
        try:
            return subprocess.run(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                encoding="utf-8",
                errors="replace",
                timeout=_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise BuildError(f"pip download of {', '.join(texts)} did not end within {_TIMEOUT_S:.0f} s") from error


def merged(requirements: Sequence[Requirement]) -> tuple[Requirement, ...]:
    """One requirement a distribution, that asks for all that was asked of it; sorted, without markers.

    Raises:
        BuildError: one names an address: what comes from there is in no index.
    """
    found: dict[str, Requirement] = {}
    for requirement in requirements:
        if requirement.url:
            raise BuildError(f"{requirement}: only wheels from pip's package index can be provisioned")
        name = canonicalize_name(requirement.name)
        one = found.setdefault(name, Requirement(name))
        one.specifier &= requirement.specifier
        one.extras |= requirement.extras
    return tuple(found[name] for name in sorted(found))


def _bare(requirement: Requirement) -> str:
    """For pip: the extras are followed here, too."""
    return f"{canonicalize_name(requirement.name)}{requirement.specifier}"


def read_wheel(path: Path) -> Fetched:
    """Name, version and requirements from the wheel itself.

    Raises:
        BuildError: it is none.
    """
    name, version, _, _ = parse_wheel_filename(path.name)
    try:
        with zipfile.ZipFile(path) as archive:
            folder = next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA") and n.count("/") == 1)
            unpacked_bytes = sum(member.file_size for member in archive.infolist())
            metadata = email.parser.BytesParser().parsebytes(archive.read(folder), headersonly=True)
        requires = tuple(Requirement(text) for text in metadata.get_all("Requires-Dist", []))
    except (zipfile.BadZipFile, StopIteration, InvalidRequirement) as error:
        raise BuildError(f"{path.name}: not a wheel that can be read: {error}") from error
    size_bytes = path.stat().st_size
    wheel = Wheel(name=name, version=str(version), file=path.name, sha256=sha256_of(path), size_bytes=size_bytes)
    return Fetched(path=path, wheel=wheel, unpacked_bytes=unpacked_bytes, requires=requires)
