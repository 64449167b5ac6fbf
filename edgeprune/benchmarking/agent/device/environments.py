"""Makes Python environments of wheels on this device: without internet, pip, ensurepip or the `venv` module.

Debian leaves ensurepip out of its Python, smaller systems `venv` as well, and pip needs more memory than some devices
have. None of them is needed: an environment is a `pyvenv.cfg`, a link to the interpreter and a folder of libraries
(PEP 405), and a wheel is unpacked into the latter. It can be renamed, too: no file in it holds its path.

`<work>/environments/current` links to the one in use. A new one is made under a name that starts with a dot, tried,
renamed, and the link is replaced: each is there entirely or not at all. All this happens under the device's lease.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
from typing import Any, Dict, List

from . import interpreter, sessions
from .evidence import read
from .probe import runtimes_here, version
from .reply import AgentError, Replies
from .wheels import unpack, unpacked_bytes

_MARKER = "environment.json"
_CURRENT = "current"
_MAKING = ".making-"
_CHECK_TIMEOUT_S = 300
# File systems round up, and byte code is written at the first import.
_SLACK = 1.3


def describe(replies: Replies, work: str) -> None:
    """Tell what wheels must fit, and what environment there is.

    `digest` is what the current environment was made of, `python` its interpreter's path, there or not; `held` are the
    names of the artifacts' folders.
    """
    root = _root(work)
    artifacts = os.path.join(os.path.abspath(work), "artifacts")
    replies.emit(
        "interpreter",
        interpreter=interpreter.facts(),
        executable=os.path.realpath(sys.executable),
        python=os.path.join(root, _CURRENT, "bin", "python"),
        digest=_marker(os.path.join(root, _CURRENT)).get("digest", ""),
        held=sorted(os.listdir(artifacts)) if os.path.isdir(artifacts) else [],
    )


def make(replies: Replies, work: str, digest: str, runtimes: List[str], wheels: List[str]) -> None:
    """Make an environment, try it, and make it the current one; whatever fails leaves the earlier one in place.

    Args:
        replies: where to tell.
        work: the work folder.
        digest: what it is made of; kept beside it.
        runtimes: that must be importable.
        wheels: paths; all that it shall have.

    Raises:
        AgentError: disk, io, or not_installed where it does not work.
    """
    root = _root(work)
    os.makedirs(root, exist_ok=True)
    before = _marker(os.path.join(root, _CURRENT)).get("runtimes", [])
    # What a client that died in the middle left.
    _clear(root, _target(root))
    need = int(_SLACK * sum(unpacked_bytes(path) for path in wheels))
    free = shutil.disk_usage(root).free
    if need > free:
        message = "disk full: the environment takes %.0f MB, %.0f MB are free" % (need / 1e6, free / 1e6)
        raise AgentError("disk", message)
    token = os.urandom(4).hex()
    folder = os.path.join(root, _MAKING + token)
    try:
        found = _made(replies, folder, runtimes, wheels)
        _write(os.path.join(folder, _MARKER), {"digest": digest, "runtimes": found["runtimes"]})
        # After a power cut, too, it must be whole wherever it is visible.
        os.sync()
        final = os.path.join(root, "%s-%s" % (digest[:16], token))
        os.rename(folder, final)
        folder = final
        _switch(root, os.path.basename(final))
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    _clear(root, os.path.basename(folder))
    replies.emit("environment", runtimes=found["runtimes"], numpy=found["numpy"], before=before)


def check(replies: Replies, runtimes: List[str]) -> None:
    """Import numpy and the runtimes, by the environment's own interpreter, and tell their versions.

    Raises:
        AgentError: not_installed, where one is missing, broken, or comes from outside of the environment.
    """
    try:
        importlib.import_module("numpy")
    except ImportError as error:
        raise AgentError("not_installed", "numpy cannot be imported: %s" % error) from error
    for name in runtimes:
        sessions.import_library(name)
    libraries = [module for name in runtimes for module, _ in sessions.module(name).LIBRARIES]
    for module in ["numpy", *libraries]:
        if module in sys.modules and not _inside(sys.modules[module]):
            message = "%s does not come from the environment but from %s: is PYTHONPATH set there?"
            raise AgentError("not_installed", message % (module, _origin(sys.modules[module])))
    replies.emit("imported", numpy=version("numpy", "numpy"), runtimes=runtimes_here(runtimes))


def _made(replies: Replies, folder: str, runtimes: List[str], wheels: List[str]) -> Dict[str, Any]:
    python = _bare(folder)
    for index, path in enumerate(wheels):
        unpack(path, _site(folder), folder)
        replies.emit("unpacked", wheel=os.path.basename(path), done=index + 1, total=len(wheels))
    names = [argument for name in runtimes for argument in ("--runtime", name)]
    argv = [python, os.path.abspath(sys.argv[0]), "environment", "check", *names]
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=_CHECK_TIMEOUT_S,
            check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        message = "the imports did not end within %d s" % _CHECK_TIMEOUT_S
        raise AgentError("not_installed", message) from error
    lines = done.stdout.decode("utf-8", "replace").splitlines()
    if done.returncode != 0:
        said = done.stderr.decode("utf-8", "replace").strip()
        raise AgentError("not_installed", _reason(done.returncode, lines, said))
    found: Dict[str, Any] = json.loads(lines[-1])
    return found


def _reason(code: int, lines: List[str], said: str) -> str:
    if code == -signal.SIGILL:
        return "the imports were ended by an illegal instruction: a wheel was built for a newer processor than this"
    if code < 0:
        return "the imports were ended by %s%s" % (signal.Signals(-code).name, ": " + said[-300:] if said else "")
    try:
        return str(json.loads(lines[-1])["message"])
    except (IndexError, ValueError, KeyError, TypeError):
        return "the imports ended with exit code %d: %s" % (code, said[-300:])


def _bare(folder: str) -> str:
    """An environment without libraries; returns its interpreter."""
    # All links followed: after an upgrade of the system's Python it stops, in place of mixing two versions.
    base = os.path.realpath(sys.executable)
    os.makedirs(_site(folder))
    os.makedirs(os.path.join(folder, "bin"))
    lines = ["home = " + os.path.dirname(base), "include-system-site-packages = false"]
    lines.append("version = %d.%d.%d" % sys.version_info[:3])
    with open(os.path.join(folder, "pyvenv.cfg"), "w", encoding="utf-8") as stream:
        stream.write("\n".join(lines) + "\n")
    for name in ("python", "python3"):
        os.symlink(base, os.path.join(folder, "bin", name))
    return os.path.join(folder, "bin", "python")


def _site(folder: str) -> str:
    """Where `site` looks in every environment, whatever the system calls its own folder."""
    threads = "t" if interpreter.facts()["free_threaded"] else ""
    return os.path.join(folder, "lib", "python%d.%d%s" % (*sys.version_info[:2], threads), "site-packages")


def _switch(root: str, name: str) -> None:
    """From one moment to the next."""
    link = os.path.join(root, "%slink-%s" % (_MAKING, os.urandom(4).hex()))
    os.symlink(name, link)
    try:
        os.replace(link, os.path.join(root, _CURRENT))
    except BaseException:
        os.remove(link)
        raise


def _clear(root: str, spared: str) -> None:
    """Remove all environments, whole and half-made ones, but one."""
    for name in os.listdir(root):
        path = os.path.join(root, name)
        if name in (_CURRENT, spared):
            continue
        if os.path.islink(path):
            os.remove(path)
        else:
            shutil.rmtree(path, ignore_errors=True)


def _target(root: str) -> str:
    """The name of the current environment's folder; empty where there is none."""
    try:
        return os.path.basename(os.readlink(os.path.join(root, _CURRENT)))
    except FileNotFoundError:
        return ""


def _root(work: str) -> str:
    return os.path.join(os.path.abspath(work), "environments")


def _marker(folder: str) -> Dict[str, Any]:
    try:
        found = json.loads(read(os.path.join(folder, _MARKER)))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _write(path: str, content: Dict[str, Any]) -> None:
    with open(path, "w", encoding="utf-8") as stream:
        stream.write(json.dumps(content, sort_keys=True) + "\n")


def _origin(module: Any) -> str:
    """Its file, or its folder where it has no file of its own."""
    path = getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", [])), "")
    return str(path)


def _inside(module: Any) -> bool:
    prefix = os.path.realpath(sys.prefix)
    return os.path.realpath(_origin(module)).startswith(prefix + os.sep)
