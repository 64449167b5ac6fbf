from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import nullcontext, redirect_stdout
from pathlib import Path

import pytest

from edgeprune.errors import BuildError, InputError
from edgeprune.libraries import (
    interrupts_held,
    interrupts_remembered,
    library_call,
    raise_if_interrupted,
    silenced,
    telling_line,
)


def test_nothing_gets_out_by_any_way(capfd: pytest.CaptureFixture[str]) -> None:
    printed: list[str] = []
    with silenced(printed):
        print("from Python")  # noqa: T201
        print("to the other stream", file=sys.stderr)  # noqa: T201
        os.write(1, b"from C\n")
        subprocess.run(["sh", "-c", "echo from a child >&2"], check=True)
        warnings.warn("from a library", stacklevel=1)
    print("after")  # noqa: T201
    assert capfd.readouterr() == ("after\n", "")
    assert printed == ["from Python\nto the other stream\nfrom C\nfrom a child\n"]


def test_what_was_printed_before_is_not_lost_nor_moved() -> None:
    program = """
import ctypes
from edgeprune.libraries import silenced
c = ctypes.CDLL(None)
print("before")
with silenced([]):
    c.puts(b"kept in a buffer of C")
print("after")
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout == "before\nafter\n"


def test_caller_that_has_replaced_stdout_keeps_it() -> None:
    replaced = io.StringIO()
    with redirect_stdout(replaced):
        with silenced([]):
            print("inside")  # noqa: T201
        print("outside")  # noqa: T201
    assert replaced.getvalue() == "outside\n"


def test_threads_take_turns(capfd: pytest.CaptureFixture[str]) -> None:
    def work(mark: bytes) -> None:
        for _ in range(50):
            with silenced([]):
                os.write(1, mark)

    threads = [threading.Thread(target=work, args=(mark,)) for mark in (b"a", b"b", b"c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os.write(1, b"end")
    assert capfd.readouterr() == ("end", "")


def _fail(folder: Path, error: BaseException) -> None:
    with library_call("x: cannot y", folder):
        (folder / "half").touch()
        (folder / "folder").mkdir()
        (folder / "folder" / "inner").touch()
        print("the last words")  # noqa: T201
        raise error


def test_failure_becomes_a_build_error_and_takes_its_files_along(tmp_path: Path) -> None:
    (tmp_path / "older").touch()
    with pytest.raises(BuildError, match=r"^x: cannot y: bad shape$") as caught:
        _fail(tmp_path, RuntimeError("bad shape\nin a long story"))
    assert [p.name for p in tmp_path.iterdir()] == ["older"]
    assert caught.value.facts == {"output": "the last words\n"}
    assert isinstance(caught.value.__cause__, RuntimeError)


@pytest.mark.parametrize("error", [InputError("ours"), KeyboardInterrupt()])
def test_our_own_errors_and_interrupts_pass_unchanged(error: BaseException, tmp_path: Path) -> None:
    with pytest.raises(type(error)) as caught:
        _fail(tmp_path, error)
    assert caught.value is error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("message", "line"),
    [
        ("", "ValueError"),
        ("\n  - \x1b[96mfirst\x1b[0m thing\nsecond", "first thing"),
        ("Check failed\n-- No conversion rule found for operations: aten::foo", None),
        ("Failed to convert\n<DispatchError>: No ONNX function found for aten._foo", None),
    ],
)
def test_telling_line(message: str, line: str | None) -> None:
    assert telling_line(ValueError(message)) == (line or message.splitlines()[1].strip(" -"))


@pytest.fixture
def interruptible() -> Iterator[None]:
    """As in a terminal: a shell starts what runs in the background with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("held", [False, True])
def test_a_ctrl_c_whose_exception_was_dropped_is_raised_between_steps(held: bool) -> None:  # noqa: FBT001
    with interrupts_remembered():
        raise_if_interrupted()
        try:
            with interrupts_held() if held else nullcontext():
                signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            pass  # As a destructor does.
        with pytest.raises(KeyboardInterrupt):
            raise_if_interrupted()
    # The next command has nothing to do with it, nor has who calls the API.
    with pytest.raises(KeyboardInterrupt), interrupts_held():
        signal.raise_signal(signal.SIGINT)
    raise_if_interrupted()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.usefixtures("interruptible")
def test_a_ctrl_c_waits_for_a_library_that_would_take_it_for_its_own_error() -> None:
    reached = []

    def swallow() -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        except BaseException:  # noqa: BLE001 - what the exporters of torch do
            reached.append("swallowed")
        reached.append("ended")

    with pytest.raises(KeyboardInterrupt):
        _call(swallow)
    assert reached == ["ended"]
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


@pytest.mark.usefixtures("interruptible")
def test_a_ctrl_c_wins_over_what_the_library_raises_after_it() -> None:
    def fail() -> None:
        signal.raise_signal(signal.SIGINT)
        raise ValueError("no such operator")

    with pytest.raises(KeyboardInterrupt):
        _call(fail)


@pytest.mark.usefixtures("interruptible")
def test_a_second_ctrl_c_does_not_wait() -> None:
    def impatient() -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        pytest.fail("waited")

    with pytest.raises(KeyboardInterrupt):
        _call(impatient)


def _call(library: Callable[[], None]) -> None:
    with library_call("torch: cannot export"):
        library()


@pytest.mark.usefixtures("interruptible")
def test_another_thread_holds_nothing() -> None:
    usual, within = signal.getsignal(signal.SIGINT), []

    def work() -> None:
        with interrupts_held():
            within.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert within == [usual]
