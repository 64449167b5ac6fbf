from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgeprune.errors import BuildError, InputError
from edgeprune.store.run_folder import RunFolder, digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    value: int


def test_a_finished_step_is_not_repeated(tmp_path: Path) -> None:
    calls = []

    def make(folder: Path) -> Figure:
        calls.append(folder)
        (folder / "weights.bin").write_bytes(b"w")
        return Figure(value=7)

    for _ in range(2):
        run = RunFolder(tmp_path)
        assert run.step("candidates/a/compile", "key", Figure, make) == Figure(value=7)
    assert len(calls) == 1
    assert (tmp_path / "candidates/a/compile/weights.bin").read_bytes() == b"w"
    assert run.outcomes[0].cached


def test_a_step_is_made_again_when_its_key_changes(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.step("a", "old", Figure, lambda _: Figure(value=1))
    assert run.step("a", "new", Figure, lambda _: Figure(value=2)) == Figure(value=2)
    assert run.step("a", "new", Figure, lambda _: pytest.fail("repeated")) == Figure(value=2)


def test_a_failed_step_leaves_nothing_and_keeps_the_old_one(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.step("a", "old", Figure, lambda _: Figure(value=1))

    def fail(folder: Path) -> Figure:
        (folder / "half").write_text("half")
        raise BuildError("no")

    with pytest.raises(BuildError):
        run.step("a", "new", Figure, fail)
    assert run.is_done("a", "old")
    assert not (tmp_path / "a" / "half").exists()


def test_a_step_within_a_step_is_not_counted_twice(tmp_path: Path) -> None:
    now = [0.0]
    run = RunFolder(tmp_path, clock=lambda: now[0])

    def inner(_: Path) -> Figure:
        now[0] += 5.0
        return Figure(value=1)

    def outer(_: Path) -> Figure:
        now[0] += 2.0
        for name in ("b", "c"):
            run.step(name, "key", Figure, inner)
        return Figure(value=2)

    run.step("a", "key", Figure, outer)
    run.step("d", "key", Figure, inner)
    assert {o.name: o.seconds for o in run.outcomes} == {"a": 2.0, "b": 5.0, "c": 5.0, "d": 5.0}


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    with (
        RunFolder(tmp_path).locked(),
        pytest.raises(InputError, match="another edgeprune"),
        RunFolder(tmp_path).locked(),
    ):
        pass


def test_a_killed_process_loses_only_the_step_in_hand(tmp_path: Path) -> None:
    program = textwrap.dedent(
        """
        import os, signal, sys
        from pathlib import Path
        sys.path.insert(0, sys.argv[2])
        from test_run_folder import Figure
        from edgeprune.store.run_folder import RunFolder
        run = RunFolder(Path(sys.argv[1]))
        with run.locked():
            run.step("first", "k", Figure, lambda _: Figure(value=1))
            def die(folder):
                (folder / "half").write_text("half")
                os.kill(os.getpid(), signal.SIGKILL)
            run.step("second", "k", Figure, die)
        """
    )
    here = str(Path(__file__).parent)
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path), here], check=False, env=dict(os.environ))
    assert done.returncode == -signal.SIGKILL
    run = RunFolder(tmp_path)
    with run.locked():
        assert run.is_done("first", "k")
        assert not run.is_done("second", "k")
        assert not (tmp_path / ".partial").exists()
        assert run.step("second", "k", Figure, lambda _: Figure(value=2)) == Figure(value=2)


@pytest.mark.parametrize("damaged", ["step.json", "record.json"])
@pytest.mark.parametrize("content", ["{", "{}", None])
def test_a_damaged_step_is_made_again(tmp_path: Path, damaged: str, content: str | None) -> None:
    run = RunFolder(tmp_path)
    run.step("a", "k", Figure, lambda _: Figure(value=1))
    if content is None:
        (tmp_path / "a" / damaged).unlink()
    else:
        (tmp_path / "a" / damaged).write_text(content)
    assert run.step("a", "k", Figure, lambda _: Figure(value=2)) == Figure(value=2)


def test_digest_is_of_content_not_of_order_in_dicts() -> None:
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest("ab", "c") != digest("a", "bc")
