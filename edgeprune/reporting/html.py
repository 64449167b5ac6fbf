"""One self-contained HTML file about a build: it opens without a network, in ten years as well."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeprune.records.accuracy import Accuracy
from edgeprune.records.changes import AnswerChanges, ScoreChanges
from edgeprune.records.result import BuildResult, Candidate, CandidateStatus
from edgeprune.records.rung import PlannedRung
from edgeprune.reporting import plots
from edgeprune.reporting.control_rows import control_rows
from edgeprune.reporting.guard_rows import part_tables
from edgeprune.reporting.plan_drawings import plan_drawings, planned_as
from edgeprune.reporting.summary import (
    accuracy_floor_percent,
    deciding_percent,
    evidence,
    headline,
    subject_of,
    tiles,
)
from edgeprune.reporting.svg import Drawing
from edgeprune.reporting.tables import RungRow, comparison, rungs
from edgeprune.reporting.timeline import time_shares
from edgeprune.reporting.variants import variant_tables
from edgeprune.units import format_mb, format_seconds, mb_from_bytes

if TYPE_CHECKING:
    from jinja2 import Template


_TIMELINE_ROWS = 12


def render_html(result: BuildResult) -> str:
    """The report of a build.

    Everything is in the one string: style, drawings (SVG) and numbers; no script, font or image is loaded. Every text
    from the build is escaped.
    """
    subject = subject_of(result)
    planned = planned_as(result.plan, subject.rung) if subject else None
    rows = rungs(result)
    return template("report.html.j2").render(
        result=result,
        subject=subject,
        subject_word=_subject_word(result),
        headline=headline(result),
        card=_card_link(result, subject),
        tiles=tiles(result),
        comparison=comparison(result),
        controls=control_rows(result),
        parts=part_tables(result),
        test_reading=_test_reading(result),
        changes=result.changes if isinstance(result.changes, AnswerChanges) else None,
        score_changes=result.changes if isinstance(result.changes, ScoreChanges) else None,
        drawings=_drawings(result, rows, subject),
        plan_title=_plan_title(planned),
        plan_drawings=plan_drawings(result.plan, planned),
        rungs=rows,
        variants=variant_tables(result),
        evidence=_evidence_rows(result.dense, subject),
        disturbed=_disturbed(result.dense, subject),
        facts=_facts(result),
        times=_times(result),
        timeline=_timeline(result),
        duration=format_seconds(result.seconds),
    )


def _plan_title(planned: PlannedRung | None) -> str:
    if planned and planned.zeros:
        return "Why these zeros"
    return "Why these widths" if planned and planned.breakdown else "What cuts would have cost"


def _card_link(result: BuildResult, subject: Candidate | None) -> str:
    """Of the artifact that ships, else of the nearest miss; relative, because the run folder may be moved."""
    if subject is None or subject.artifact is None:
        return ""
    return f"{'artifact' if result.chosen is not None else subject.folder}/MODEL_CARD.md"


def _test_reading(result: BuildResult) -> str:
    if result.chosen is None:
        return "the test data was not read, because nothing was chosen"
    if len(result.test_readings) > 1:
        return (
            f"the test data was read at the end, for the {len(result.test_readings)}. time by builds in this run folder"
        )
    return "the test data was read once, at the end"


def _subject_word(result: BuildResult) -> str:
    return "chosen" if result.chosen is not None else "nearest miss"


def template(name: str) -> Template:
    """A page of the `templates` folder; every text that is put into it is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("edgeprune.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)


def _drawings(result: BuildResult, rows: tuple[RungRow, ...], subject: Candidate | None) -> list[Drawing]:
    made = (
        _frontier(result, rows, subject),
        _distribution(result, subject),
        _footprint(result, subject),
        _widths(subject),
    )
    return [drawing for drawing in made if drawing is not None]


def _frontier(result: BuildResult, rows: tuple[RungRow, ...], subject: Candidate | None) -> Drawing | None:
    percent = deciding_percent(result)
    numbers = {row.folder: str(row.number) for row in rows}
    labelled = [(result.dense, "dense", "dense")]
    labelled += [
        (c, f"dense {c.rung.runtime}", "other")
        if c.status is CandidateStatus.DENSE
        else (c, numbers[c.folder], "other")
        for c in result.candidates
        if c is not subject
    ]
    if subject is not None:
        labelled.append((subject, numbers[subject.folder], "subject"))
    points = [p for p in (_point(c, label, role, percent) for c, label, role in labelled) if p is not None]
    if not points:
        return None
    limits, judged_by = result.plan.limits, result.dense.validation or Accuracy(split="validation")
    svg = plots.plot_frontier(
        points,
        latency_name=f"p{percent:g}",
        limit_ms=limits.p50_ms if percent == 50.0 else limits.p99_ms,  # noqa: PLR2004
        floor_percent=accuracy_floor_percent(result),
        metric=judged_by.metric,
        unit=judged_by.unit,
        higher_is_better=judged_by.higher_is_better,
    )
    caption = "Up and to the left is better. Numbers are rows of the table of rungs; lines are confidence bounds."
    return Drawing(title=f"{judged_by.metric.capitalize()} against latency", svg=svg, caption=caption)


def _point(candidate: Candidate, label: str, role: str, percent: float) -> plots.Point | None:
    found = next((p for p in candidate.percentiles if p.percent == percent), None)
    if found is None or candidate.validation is None:
        return None
    return plots.Point(
        label=label,
        role=role,
        latency_ms=found.value_ms,
        accuracy_percent=candidate.validation.shown,
        lower_ms=found.lower_ms,
        upper_ms=found.upper_ms,
    )


def _distribution(result: BuildResult, subject: Candidate | None) -> Drawing | None:
    shown = [(result.dense, "dense", "dense")]
    if subject is not None:
        shown.append((subject, _subject_word(result), "subject"))
    series, marks = [], []
    for candidate, label, role in shown:
        samples = candidate.measurement.samples_ns if candidate.measurement else ()
        if samples:
            series.append(plots.Series(label=label, role=role, samples_ns=samples))
            values = ((p, candidate.percentile_ms(p)) for p in (50.0, 99.0))
            marks += [(role, p, value) for p, value in values if value is not None]
    if not series:
        return None
    budget = (("p50", result.plan.limits.p50_ms), ("p99", result.plan.limits.p99_ms))
    limits = [(name, limit) for name, limit in budget if limit is not None]
    return Drawing(
        title="Latency of every run",
        svg=plots.plot_distribution(series, limits, marks),
        caption="Raw samples of all counted processes. The steeper, the steadier; a long top is a slow tail.",
    )


def _footprint(result: BuildResult, subject: Candidate | None) -> Drawing | None:
    limits = result.plan.limits
    shown = [
        (result.dense, "dense", "dense"),
        *([(subject, _subject_word(result), "subject")] if subject is not None else []),
    ]
    sizes = [(label, role, c.artifact.size_bytes) for c, label, role in shown if c.artifact is not None]
    peaks = [(label, role, c.measurement.peak_bytes) for c, label, role in shown if c.measurement is not None]
    named = (("artifact, MB", sizes, limits.artifact_bytes), ("peak memory, MB", peaks, limits.memory_bytes))
    panels = [
        (title, [_bar(*value) for value in values], None if limit is None else mb_from_bytes(limit))
        for title, values, limit in named
        if values
    ]
    if not panels:
        return None
    caption = "Peak memory is that of the whole process, the runtime's own share included."
    return Drawing(title="Size and memory", svg=plots.plot_footprint(panels), caption=caption)


def _bar(label: str, role: str, size_bytes: int) -> plots.Bar:
    return plots.Bar(label=label, role=role, value=mb_from_bytes(size_bytes), text=format_mb(size_bytes))


def _widths(subject: Candidate | None) -> Drawing | None:
    if subject is None or not subject.widths:
        return None
    caption = "Widths follow the steps of latency on the device, so groups need not shrink alike."
    return Drawing(title="Channels of each group", svg=plots.plot_widths(subject.widths), caption=caption)


def _evidence_rows(dense: Candidate, subject: Candidate | None) -> list[tuple[str, str, str]]:
    """(name, dense, subject), by name: either may be unmeasured."""
    before = dict(evidence(dense.measurement))
    after = dict(evidence(subject.measurement)) if subject is not None else {}
    return [(name, before.get(name, ""), after.get(name, "")) for name in before | after]


def _disturbed(dense: Candidate, subject: Candidate | None) -> list[tuple[str, str]]:
    shown = [("dense", dense), *([("subject", subject)] if subject is not None else [])]
    return [(name, d.reason) for name, c in shown if c.measurement is not None for d in c.measurement.disturbed]


def _facts(result: BuildResult) -> list[tuple[str, str]]:
    measurement = result.dense.measurement
    found = [("profile", result.profile), ("device", result.device), ("seed", str(result.seed))]
    if measurement is not None:
        device = measurement.device
        found += [
            ("CPU", f"{device.cpu_model}, {device.cores} cores ({device.machine})"),
            ("memory", format_mb(device.memory_bytes)),
            ("kernel", f"{device.system} {device.kernel}"),
            ("Python, numpy there", f"{device.python}, {device.numpy}"),
            ("runtimes there", ", ".join(f"{name} {version}" for name, version in device.runtimes)),
        ]
    found.append(("build host", ", ".join(f"{name} {version}" for name, version in result.versions)))
    found.append(("run folder", result.folder))
    return found


def _times(result: BuildResult) -> list[tuple[str, str, str, str, float]]:
    """(kind of work, duration, share in words, of earlier builds, share in percent) of this build."""
    return [
        (s.kind, format_seconds(s.seconds), f"{s.share:.0%}", _kept(s.kept_seconds), 100.0 * s.share)
        for s in time_shares(result)
    ]


def _kept(seconds: float) -> str:
    return f"and {format_seconds(seconds)} before" if seconds else ""


def _timeline(result: BuildResult) -> list[tuple[str, str, float]]:
    """(step, duration, share of the longest in percent): the longest steps in their order, then the rest together."""
    longest = sorted(result.timeline, key=lambda e: e.seconds, reverse=True)[:_TIMELINE_ROWS]
    rows = [(_step_title(e.step), e.seconds) for e in result.timeline if e in longest]
    rest = [e.seconds for e in result.timeline if e not in longest]
    if rest:
        rows.append((f"{len(rest)} shorter steps", sum(rest)))
    most = max((seconds for _, seconds in rows), default=0.0)
    return [(name, format_seconds(seconds), 100.0 * seconds / most if most else 0.0) for name, seconds in rows]


def _step_title(step: str) -> str:
    """`candidates/tflite-int8-t1/measure` is told as `measure tflite-int8-t1`."""
    *_, subject, stage = ("", *step.split("/"))
    return f"{stage} {subject}".strip()
