"""How heavy libraries are handled: found or asked for, kept from phoning home, kept quiet, their errors made ours."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.metadata
import io
import logging
import os
import re
import shutil
import signal
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, cast

from edgeprune.errors import BuildError, EdgepruneError, NotInstalledError

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _CtrlC:
    """Whether there was one in the block of `interrupts_remembered`."""

    came: bool = False


_CTRL_C = _CtrlC()

_TAIL_BYTES = 4000
_OPERATOR = re.compile(r"\baten(::|\.)\w+")
_ANSI_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
# File descriptors 1 and 2 belong to the whole process: two threads must not swap them crosswise.
_descriptors_lock = threading.RLock()


def versions_of(extra: str, *distributions: str) -> tuple[tuple[str, str], ...]:
    """(distribution, version) of each, without importing any.

    Args:
        extra: the extra of edgeprune that brings them, for the message.
        distributions: names as `pip` knows them.

    Raises:
        NotInstalledError: one is missing.
    """
    found = []
    for name in distributions:
        try:
            found.append((name, importlib.metadata.version(name)))
        except importlib.metadata.PackageNotFoundError as error:
            message = f"{name} is not installed on this host: pip install 'edgeprune[{extra}]'"
            raise NotInstalledError(message, distribution=name, extra=extra) from error
    return tuple(found)


def refuse_telemetry() -> None:
    """Keep OpenVINO, NNCF and ONNX Runtime from sending usage data and from writing ids into the home folder.

    To be called before they are imported. OpenVINO 2026.4 and NNCF 3.4 send at import and have no switch but a file in
    the home folder; both do without where `openvino_telemetry` cannot be imported. ONNX Runtime 1.31 reads its
    variable once, at import. litert-torch's progress lines have no other switch either.
    """
    if "openvino_telemetry" not in sys.modules:
        cast("dict[str, Any]", sys.modules)["openvino_telemetry"] = None
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("LITERT_TORCH_SHOW_PROGRESS", "n")


@contextlib.contextmanager
def library_call(subject: str, folder: Path | None = None) -> Iterator[None]:
    """Import and call a converter or quantizer: silent, its exceptions ours, nothing left behind when it fails.

    Args:
        subject: who does what, for the message, such as `openvino: cannot convert the model`.
        folder: where the block writes: what appears in here is taken out again when it raises.

    Raises:
        BuildError: with the cause's most telling line, and what was printed last as the fact `output`.
        KeyboardInterrupt: after the block, for a Ctrl-C that came meanwhile.
    """
    before = set(folder.iterdir()) if folder else set()
    printed: list[str] = []
    refuse_telemetry()
    try:
        with interrupts_held(), silenced(printed):
            yield
    except BaseException as error:
        for path in (set(folder.iterdir()) if folder else set()) - before:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        if isinstance(error, EdgepruneError) or not isinstance(error, Exception):
            raise
        raise BuildError(f"{subject}: {telling_line(error)}", output="".join(printed)) from error


@contextlib.contextmanager
def interrupts_held() -> Iterator[None]:
    """Let a Ctrl-C wait until the block ends; a second one is not kept waiting.

    The exporters of torch take a KeyboardInterrupt for a graph that cannot be exported, bindings of C++ drop one that
    is raised in a callback, and modules that are half imported have crashed of it.

    Raises:
        KeyboardInterrupt: after the block, whether it raised or not, if there was a Ctrl-C meanwhile.
    """
    usual = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(usual):
        yield
        return
    came = False

    def hold(number: int, frame: FrameType | None) -> None:
        nonlocal came
        if came:
            usual(number, frame)
        came = True

    signal.signal(signal.SIGINT, hold)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)
        if came:
            usual(signal.SIGINT, None)
            raise KeyboardInterrupt


@contextlib.contextmanager
def interrupts_remembered() -> Iterator[None]:
    """Within the block `raise_if_interrupted` knows of each Ctrl-C, whoever drops its exception.

    One that is raised in a destructor or in a callback of C++ is dropped: a build went on after it, to the end.
    """
    _CTRL_C.came = False
    usual = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or usual is not signal.default_int_handler:
        yield
        return

    def remember(_number: int, _frame: FrameType | None) -> None:
        _CTRL_C.came = True
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, remember)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)
        _CTRL_C.came = False


def raise_if_interrupted() -> None:
    """Between two steps.

    Raises:
        KeyboardInterrupt: there was a Ctrl-C, and it came to nothing.
    """
    if _CTRL_C.came:
        raise KeyboardInterrupt


@contextlib.contextmanager
def silenced(printed: list[str]) -> Iterator[None]:
    """Keep Python and C++ code from printing, and its warnings quiet, until the block ends.

    These libraries write progress bars to stdout, where only edgeprune's result may stand, and log from C++ straight
    to the descriptors. A live display that shall go on meanwhile needs a duplicate of descriptor 2 of its own.

    Args:
        printed: receives the tail of what the block tried to print.
    """
    # Not closed: a library imported here may keep it as its idea of sys.stdout.
    text = io.StringIO()
    with _descriptors_lock, tempfile.TemporaryFile() as sink:
        try:
            with (
                _descriptors_to(sink.fileno()),
                contextlib.redirect_stdout(text),
                contextlib.redirect_stderr(text),
                warnings.catch_warnings(),
            ):
                warnings.simplefilter("ignore")
                yield
        finally:
            sink.seek(max(0, sink.seek(0, os.SEEK_END) - _TAIL_BYTES))
            printed.append(text.getvalue()[-_TAIL_BYTES:] + sink.read().decode(errors="replace"))
            logger.debug("kept quiet: %s", printed[-1])


@contextlib.contextmanager
def _descriptors_to(target: int) -> Iterator[None]:
    _flush()
    saved = [(descriptor, os.dup(descriptor)) for descriptor in (1, 2)]
    try:
        for descriptor, _ in saved:
            os.dup2(target, descriptor)
        yield
    finally:
        _flush()
        for descriptor, copy in saved:
            os.dup2(copy, descriptor)
            os.close(copy)


def _flush() -> None:
    for stream in (sys.__stdout__, sys.__stderr__):
        if stream is not None and not stream.closed:
            stream.flush()
    # What C code has buffered would otherwise come out after the descriptors are back.
    ctypes.CDLL(None).fflush(None)


def telling_line(error: BaseException) -> str:
    """The first line of an exception's message that names an operator, else its first line, else its type."""
    lines = [line.strip(" -\t") for line in _ANSI_COLOUR.sub("", str(error)).splitlines()]
    lines = [line for line in lines if line]
    named = next((line for line in lines if _OPERATOR.search(line)), None)
    return named or (lines[0] if lines else type(error).__name__)
