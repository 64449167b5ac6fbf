"""Judging a run again from what it stored."""

from __future__ import annotations

from pathlib import Path

from edgeprune.errors import InputError
from edgeprune.gating.evidence import read_evidence
from edgeprune.gating.judge import judge
from edgeprune.records.verdict import Judgement
from edgeprune.store.run_folder import write_atomically

EVIDENCE = "evidence.json"


def gate_run(run: Path, *, junit: Path | None, markdown: Path | None) -> Judgement:
    """Read the evidence, judge it, and write what was asked for.

    Raises:
        InputError: no evidence there, or it was changed after it was written.
    """
    path = run / EVIDENCE if run.is_dir() else run
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected a run folder with {EVIDENCE}, as `edgeprune build` leaves it")
    judgement = judge(read_evidence(path))
    title = path.resolve().parent.name
    if junit is not None:
        from edgeprune.reporting.junit import render_junit

        write_atomically(junit, render_junit(judgement, suite=f"edgeprune {title}").encode())
    if markdown is not None:
        from edgeprune.reporting.markdown import render_markdown

        write_atomically(markdown, render_markdown(judgement, title=title).encode())
    return judgement
