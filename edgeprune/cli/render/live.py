"""Progress on a terminal: a bar with the time left for what runs, a line for what is done."""

from __future__ import annotations

import os
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from edgeprune.cli.render.plain import title
from edgeprune.events import Event, Noted, StageFinished, StageProgress, StageStarted
from edgeprune.units import format_seconds

_NOTE_STYLES = {"info": "", "warning": "yellow", "error": "red"}


class LiveReporter:
    """Bars on stderr while stages run; each leaves one line when it ends."""

    def __init__(self, console: Console | None = None) -> None:
        # A descriptor of its own: `libraries.silenced` points the usual ones elsewhere while a compiler works.
        self._own = os.fdopen(os.dup(2), "w", encoding="utf-8") if console is None else None
        self._console = console or Console(file=self._own)
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[detail]}", style="dim", markup=False),
            console=self._console,
            transient=True,
        )
        self._tasks: dict[tuple[str, str], TaskID] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()
        if self._own is not None:
            self._own.close()

    def emit(self, event: Event) -> None:
        """Draw one event."""
        match event:
            case StageStarted():
                key = (event.stage, event.subject)
                self._tasks[key] = self._progress.add_task(title(*key), total=event.total, detail="")
                self._progress.start()
            case StageProgress():
                task = self._tasks.get((event.stage, event.subject))
                if task is not None:
                    self._progress.update(task, completed=event.done, detail=event.detail)
            case StageFinished():
                self._finish(event)
            case Noted():
                self._console.print(
                    event.message, style=_NOTE_STYLES.get(event.level, ""), highlight=False, markup=False, emoji=False
                )

    def _finish(self, event: StageFinished) -> None:
        task = self._tasks.pop((event.stage, event.subject), None)
        if task is not None:
            self._progress.remove_task(task)
        if not self._tasks:
            self._progress.stop()
        took = "kept" if event.cached else format_seconds(event.seconds)
        name, summary = escape(title(event.stage, event.subject)), escape(f"  {event.summary}" if event.summary else "")
        self._console.print(f"[green]✓[/] {name} [dim]{took}[/]{summary}", highlight=False, emoji=False)
