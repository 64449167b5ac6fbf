from __future__ import annotations

import json
from pathlib import Path

from edgeprune.events import Noted, StageFinished, StageProgress, StageStarted
from edgeprune.store.event_log import EventLog, TeeReporter


def test_events_are_lines_and_ticks_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    for _ in range(2):
        with EventLog(path, wall_clock=lambda: 12.5) as log:
            tee = TeeReporter([log])
            tee.emit(StageStarted(stage="measure", subject="a"))
            tee.emit(StageProgress(stage="measure", subject="a", done=1))
            tee.emit(StageFinished(stage="measure", subject="a", seconds=1.0))
            tee.emit(Noted(message="hello"))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["event"] for line in lines] == ["StageStarted", "StageFinished", "Noted"] * 2
    assert lines[0] == {"schema": 1, "unix_s": 12.5, "event": "StageStarted", "stage": "measure", "subject": "a",
                        "total": None, "unit": ""}  # fmt: skip
