"""What a person sees while it works: lines in a log, bars on a terminal."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys

from rich.console import Console

from edgeprune.cli.options import reporting
from edgeprune.cli.render.live import LiveReporter
from edgeprune.cli.render.plain import PlainReporter
from edgeprune.events import Event, Noted, NullReporter, StageFinished, StageProgress, StageStarted


class Clock:
    """Seconds that pass when told."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def plain(*events: tuple[float, Event]) -> list[str]:
    """Lines of events, each so many seconds after the one before."""
    stream, clock = io.StringIO(), Clock()
    reporter = PlainReporter(stream, clock=clock)
    for seconds, event in events:
        clock.now_s += seconds
        reporter.emit(event)
    return stream.getvalue().splitlines()


def live(*events: Event) -> str:
    console = Console(file=io.StringIO(), force_terminal=True, width=200, color_system=None, _environ={})
    with LiveReporter(console) as reporter:
        for event in events:
            reporter.emit(event)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_plain_line_when_a_stage_starts_and_ends() -> None:
    assert plain(
        (0, StageStarted(stage="train", subject="dense", total=32, unit="batches")),
        (5, StageFinished(stage="train", subject="dense", seconds=5.0, summary="loss 0.1")),
        (0, StageFinished(stage="compile", subject="tflite-int8-t1", cached=True)),
    ) == [
        "train dense: 32 batches",
        "train dense: done in 5.0 s - loss 0.1",
        "compile tflite-int8-t1: kept from before",
    ]


def test_plain_stage_of_unknown_length_starts_silently() -> None:
    assert plain((0, StageStarted(stage="compile", subject="x"))) == []


def test_plain_progress_at_most_every_fifteen_seconds_with_the_time_left() -> None:
    ticks = [(1.0, StageProgress(stage="train", subject="dense", done=i, detail="loss 0.5")) for i in range(1, 33)]
    lines = plain((0, StageStarted(stage="train", subject="dense", total=64, unit="batches")), *ticks)
    assert lines == [
        "train dense: 64 batches",
        "train dense: 15 of 64 batches, about 49.0 s left - loss 0.5",
        "train dense: 30 of 64 batches, about 34.0 s left - loss 0.5",
    ]


def test_plain_notes_tell_their_level() -> None:
    assert plain((0, Noted(message="reading the test split")), (0, Noted(message="refused", level="warning"))) == [
        "reading the test split",
        "warning: refused",
    ]


def test_live_bar_and_the_line_that_stays() -> None:
    shown = live(
        StageStarted(stage="train", subject="dense", total=32, unit="batches"),
        StageProgress(stage="train", subject="dense", done=8, detail="loss 0.25"),
        StageFinished(stage="train", subject="dense", seconds=5.0, summary="loss 0.1"),
        StageFinished(stage="compile", subject="x", cached=True),
    )
    assert "train dense" in shown
    assert "/32" in shown
    assert "✓ train dense 5.0 s  loss 0.1" in shown
    assert "✓ compile x kept" in shown


def test_live_stages_may_lie_within_each_other() -> None:
    shown = live(
        StageStarted(stage="measure", subject="x"),
        StageStarted(stage="sample", subject="x", total=6, unit="processes"),
        StageProgress(stage="sample", subject="x", done=2),
        StageFinished(stage="sample", subject="x"),
        StageFinished(stage="measure", subject="x", seconds=2.0),
        StageProgress(stage="sample", subject="x", done=3),
    )
    assert shown.index("✓ sample x") < shown.index("✓ measure x")


def test_brackets_in_messages_are_no_markup() -> None:
    odd = "[ONNXRuntimeError] at [/tmp/x] of shape [n, 3] :cat:"
    shown = live(
        StageStarted(stage="compile", subject=odd, total=1),
        StageProgress(stage="compile", subject=odd, done=1, detail=odd),
        StageFinished(stage="compile", subject=odd, summary=odd),
        Noted(message=odd, level="warning"),
    )
    assert f"✓ compile {odd} 0.0 s  {odd}" in shown.replace("\n", " ")
    assert shown.count("[/tmp/x]") >= 3


def test_bars_go_on_while_a_library_is_silenced() -> None:
    code = """
from edgeprune.cli.options import reporting
from edgeprune.events import Noted
from edgeprune.libraries import silenced
with reporting(silent=False) as reporter, silenced([]):
    print("the library's own")
    reporter.emit(Noted(message="ours: " + type(reporter).__name__))
"""
    ours, theirs = pty.openpty()
    done = subprocess.run([sys.executable, "-c", code], stderr=theirs, stdout=subprocess.PIPE, check=True)
    os.close(theirs)
    shown = os.read(ours, 10_000).decode()
    os.close(ours)
    assert "ours: LiveReporter" in shown
    assert "the library's own" not in shown + done.stdout.decode()


def test_plain_lines_where_stderr_is_no_terminal() -> None:
    with reporting(silent=False) as reporter:
        assert isinstance(reporter, PlainReporter)
    with reporting(silent=True) as reporter:
        assert isinstance(reporter, NullReporter)
