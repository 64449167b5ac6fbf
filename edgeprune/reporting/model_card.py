"""A model card as Markdown: what somebody must know who gets the artifact and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from edgeprune.cpu_list import on_cores
from edgeprune.records.accuracy import Accuracy, Score
from edgeprune.records.control import Control
from edgeprune.records.model_card import CardModel, Making, ModelCard
from edgeprune.reporting.markdown import escape
from edgeprune.reporting.quantities import NONE
from edgeprune.statistics import share_bounds
from edgeprune.units import format_mb, format_ms

_CONFIDENCE = 0.95
_HOW_ACCURACY = (
    "Accuracy is that of the compiled files; on training data, of as many drawn examples as there are for validation. "
    "Every choice was made on validation data. "
    "In brackets: one-sided exact binomial bounds at 95 % each."
)


def render_model_card(card: ModelCard) -> str:
    """GitHub-flavoured Markdown that ends with a newline. Texts are escaped: they cannot add links or HTML."""
    final = card.final
    parts = [
        f"# {escape(card.target)}: {escape(final.rung.name)}",
        escape(card.description),
        f"{_judged(card)} Made by edgeprune for profile {escape(card.profile)} and measured on {escape(card.device)}.",
        "## Artifact",
        _table(("", ""), _identity(card)),
        "## Accuracy",
        _table(("", "dense", "this artifact", "with how many examples it is known"), _accuracies(card)),
        _HOW_ACCURACY,
        f"**The test split was read {_readings(card)}.**",
        *_parts(card),
        "## Size and speed",
        _table(("", "dense", "this artifact"), _sizes(card)),
        *_making(card.making),
        *_controls(card),
        "## What it was made with",
        _table(("setting", "value"), [("seed", str(card.seed)), *_escaped(card.settings)]),
        "## Data",
        _table(
            ("split", "examples", "sha256 of inputs, labels and slices"),
            [(escape(d.split), str(d.examples), d.sha256) for d in card.data],
        ),
        "## Versions",
        _table(("", ""), _escaped(card.versions)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _judged(card: ModelCard) -> str:
    if card.verdict is None:
        return "The dense float32 model, measured for comparison; no gate judged it."
    return f"Status: {escape(card.status)}; the gates say {card.verdict}."


def _identity(card: ModelCard) -> Iterator[tuple[str, str]]:
    artifact, rung = card.final.artifact, card.final.rung
    placed = on_cores(rung.threads, rung.cpus)
    yield "sha256 over its files", artifact.digest
    yield "format", escape(artifact.format)
    yield (
        "runtime, precision, threads",
        f"{escape(artifact.runtime)}, {escape(artifact.precision)}, {placed}",
    )
    for name, tensors in (("input", artifact.inputs), ("output", artifact.outputs)):
        for tensor in tensors:
            shape = " x ".join(map(str, tensor.shape))
            yield name, f"{escape(tensor.name)}, {shape}, {escape(tensor.dtype)}"
    yield "files", ", ".join(f"{escape(f.name)} ({format_mb(f.size_bytes)})" for f in artifact.files)
    if card.quantization:
        yield "quantization", escape(card.quantization)
    if card.parity is not None:
        yield f"against torch, {card.parity.samples} examples", escape(card.parity.detail)


def _accuracies(card: ModelCard) -> Iterator[tuple[str, str, str, str]]:
    dense = {a.split: a for a in card.dense.accuracy}
    for found in card.final.accuracy:
        before = dense.get(found.split)
        known = _known(found.correct, found.total) if found.score is None else _known_of(found.score)
        judged_by = "" if found.score is None else f", {found.metric}"
        yield escape(f"{found.split}{judged_by}"), _percent(before), _percent(found), known
        if found.total:
            name, recall = found.worst_class
            share = next(s for s in found.classes if s.name == name)
            then = "" if before is None else f"{before.worst_class[1]:.2%} ({escape(before.worst_class[0])})"
            yield (
                f"{escape(found.split)}, worst class",
                then or NONE,
                f"{recall:.2%} ({escape(name)})",
                _known(share.correct, share.total),
            )
    if not any(a.split == "test" for a in card.final.accuracy):
        yield "test", _percent(dense.get("test")), "not read for this model", ""


def _percent(accuracy: Accuracy | None) -> str:
    return NONE if accuracy is None else f"{accuracy.value:.2%}" if accuracy.is_share else accuracy.told


def _known(correct: int, total: int) -> str:
    if not total:
        return "no example"
    lower, upper = share_bounds(correct, total, _CONFIDENCE)
    return f"{correct} of {total} ({lower:.1%} to {upper:.1%})"


def _known_of(score: Score) -> str:
    return f"{score.examples} examples, standard error {score.error:.2g}"


def _readings(card: ModelCard) -> str:
    readings = card.test_readings
    if not readings:
        return "never by a build in this run folder"
    last = ", ".join(escape(name) for name, _ in readings[-1].models)
    where = "by builds in this run folder; other folders count for themselves"
    if len(readings) == 1:
        return f"once {where}: when all choices were made, for {last}"
    return (
        f"{len(readings)} times {where}: the last time for {last}. Who saw the earlier figures may have chosen by "
        "them, so that new data would give worse ones"
    )


def _parts(card: ModelCard) -> Iterator[str]:
    """Slices and the robustness set, where there are some."""
    dense = {a.split: {part: told for part, told, _ in _told_parts(a)} for a in card.dense.accuracy}
    rows = [
        (escape(f"{found.split}, {part}"), dense.get(found.split, {}).get(part, NONE), told, known)
        for found in card.final.accuracy
        for part, told, known in _told_parts(found)
    ]
    if rows:
        yield "### Slices and corrupted images"
        yield _table(("", "dense", "this artifact", "with how many examples it is known"), rows)


def _told_parts(accuracy: Accuracy) -> Iterator[tuple[str, str, str]]:
    """Each slice and corruption: what it is, right answers or the metric there, and how well that is known."""
    for kind, shares in (("slice", accuracy.slices), ("corruption", accuracy.robustness)):
        for share in shares:
            yield f"{kind} {share.name}", f"{share.value:.2%}", _known(share.correct, share.total)
    for kind, parts in (("slice", accuracy.slice_scores), ("corruption", accuracy.robustness_scores)):
        for part in parts:
            yield f"{kind} {part.name}, {part.score.metric}", part.score.told, _known_of(part.score)


def _sizes(card: ModelCard) -> Iterator[tuple[str, str, str]]:
    rows: tuple[tuple[str, Callable[[CardModel], str]], ...] = (
        ("model", lambda m: escape(m.rung.name)),
        ("artifact", lambda m: format_mb(m.artifact.size_bytes)),
        ("parameters", lambda m: _number(m.parameters)),
        ("multiply-accumulates", lambda m: _number(m.macs)),
        ("latency on the device, p50", lambda m: _latency(m, 50.0)),
        ("latency on the device, p99", lambda m: _latency(m, 99.0)),
    )
    for name, show in rows:
        yield name, show(card.dense), show(card.final)


def _latency(model: CardModel, percent: float) -> str:
    found = next((p for p in model.percentiles if p.percent == percent), None)
    return NONE if found is None else format_ms(found.value_ms)


def _number(value: int | None) -> str:
    return NONE if value is None else f"{value:,}"


def _making(making: Making | None) -> Iterator[str]:
    if making is None:
        return
    yield "## Pruning and recovery"
    if not making.criterion:
        yield f"Nothing was pruned. The dense model was {_trained(making)}.{_rounded(making)}"
        return
    yield (
        f"{making.sparsity:.1%} of the dense model's weights are gone, by criterion {escape(making.criterion)}, in "
        f"{_counted(making.rounds, 'round')} (schedule {escape(making.schedule)}), with "
        f"{_counted(making.recovery_epochs, 'epoch')} of recovery. The dense model was {_trained(making)}."
        f"{_rounded(making)}"
    )
    yield _table(
        ("layer", "kind", "weights, dense", "weights left", "of them zero", "sparsity"),
        (
            (
                escape(x.layer), escape(x.kind), f"{x.weights_before:,}", f"{x.weights:,}", f"{x.zeros:,}",
                f"{x.sparsity:.1%}",
            )
            for x in making.layers
        ),
    )  # fmt: skip


def _trained(making: Making) -> str:
    return f"trained for {_counted(making.training_epochs, 'epoch')}" if making.training_epochs else "not trained here"


def _rounded(making: Making) -> str:
    """What was trained with INT8 rounding, which is no recovery; nothing where nothing was."""
    told = ""
    if making.qat_epochs_before:
        before = _counted(making.qat_epochs_before, "epoch")
        told = f" INT8 rounding was trained for {before} before the first cut, and went on during recovery."
    if making.qat_epochs:
        told += f" At the end it was trained for {_counted(making.qat_epochs, 'epoch')} with INT8 rounding."
    return told


def _counted(number: int, of: str) -> str:
    return f"{number} {of}" if number == 1 else f"{number} {of}s"


def _controls(card: ModelCard) -> Iterator[str]:
    if not card.controls:
        return
    yield "## Controls"
    yield "Models of the same size, to see what the method was worth. They are not part of the artifact."
    yield _table(
        ("", "validation", "test", "how"),
        (
            ("this artifact", *(_by_split(card.final.accuracy, s) for s in ("validation", "test")), ""),
            *((escape(c.name), _percent(c.validation), _percent(c.test), escape(_told(c))) for c in card.controls),
        ),
    )


def _told(control: Control) -> str:
    return f"none: {control.reason}" if control.reason else control.how


def _by_split(accuracy: Sequence[Accuracy], split: str) -> str:
    return _percent(next((a for a in accuracy if a.split == split), None))


def _escaped(rows: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(escape(name), escape(value)) for name, value in rows]


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])
