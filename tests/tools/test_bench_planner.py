from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import bench_planner
import numpy as np
import pytest
import torch
from bench_origin import Code
from bench_parts import KeptRows
from bench_planner import Row, _train_all, main, search, table
from planner_contest import Contest
from planner_rivals import METHODS, group_magnitudes, magnitude_widths
from safetensors.torch import save_file
from targets_for_tests import make_target, own_home, target_module
from torch import nn

from edgeprune.graph.groups import find_groups
from edgeprune.graph.operators import model_operators
from edgeprune.planning.allocation_problem import Configuration
from edgeprune.planning.feasibility import ShapeFigures
from edgeprune.records.operators import OperatorShape
from edgeprune.records.rung import GroupWidth, Precision, Rung
from edgeprune.schema.profile import Budget
from edgeprune.steps.shapes import ShapeBench

if TYPE_CHECKING:
    from edgeprune.steps.sensitivity import GroupLosses
    from edgeprune.steps.workbench import Workbench

__all__ = ["own_home"]

EXAMPLE = torch.zeros(1, 3, 8, 8)
CODE = Code(digest="0123", revision="abc")


class Residual(nn.Module):
    """A stream that two layers write to, and a group inside of a block."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, padding=1)
        self.inner = nn.Conv2d(32, 32, 3, padding=1)
        self.outer = nn.Conv2d(32, 32, 3, padding=1)
        self.head = nn.Linear(32, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x))
        x = torch.relu(x + self.outer(torch.relu(self.inner(x))))
        logits: torch.Tensor = self.head(x.mean((2, 3)))
        return logits


def test_magnitudes_cut_every_group_and_more_with_their_strength() -> None:
    """Also the stream, which torch-pruning leaves out where one of its layers is not to be cut."""
    torch.manual_seed(0)
    model = Residual().eval()
    groups = find_groups(model, EXAMPLE).groups
    found = group_magnitudes(model, EXAMPLE, model_operators(model, EXAMPLE, groups))
    assert {g: len(values) for g, values in found.items()} == {g.name: g.width for g in groups}
    left = [magnitude_widths(found, step / 32) for step in range(33)]
    for group in found:
        widths = [each[group] for each in left]
        assert widths == sorted(widths, reverse=True)
        assert (widths[0], widths[-1]) == (32.0, 0.0)
    assert all(width % 8 == 0 for each in left for width in each.values())


def test_magnitudes_by_hand() -> None:
    """Half of 32 channels: all 16 of the weak group; 15 of them round to 8 gone, as do 12 of the strong one."""
    ranked = {"weak": np.arange(16.0), "strong": np.arange(16.0) + 100}
    assert magnitude_widths(ranked, 0.5) == {"weak": 0.0, "strong": 16.0}
    assert magnitude_widths(ranked, 15 / 32) == {"weak": 8.0, "strong": 16.0}
    assert magnitude_widths(ranked, 28 / 32) == {"weak": 0.0, "strong": 8.0}


class _Timed(Contest):
    """Takes as long as it is told; nothing else of a contest is asked for."""

    def __init__(self, latencies_ms: dict[int, float]) -> None:
        self.latencies_ms = latencies_ms
        self.steps = len(latencies_ms)
        self.tried: list[int] = []

    def at(self, strength: float) -> Configuration:
        return Configuration(widths={"a": list(self.latencies_ms)[round(strength * self.steps) - 1]})

    def measure(self, shape: Configuration, _limit_ms: float) -> float:
        self.tried.append(shape.widths["a"])
        return self.latencies_ms[shape.widths["a"]]


def test_the_weakest_cut_that_fits_is_taken_where_latency_does_not_fall_evenly() -> None:
    """By halves, 16 channels would have been tried, and then 8."""
    contest = _Timed({31: 6.0, 24: 2.0, 16: 3.0, 12: 3.0, 8: 1.0})
    assert contest.weakest(contest.at, 2.5) == Configuration(widths={"a": 24})
    assert contest.tried == [8, 31, 24]
    contest.tried.clear()
    assert contest.weakest(contest.at, 0.5) is None
    assert contest.tried == [8]


def _row(method: str, seed: int, test: float | None = None, **others: object) -> Row:
    values: dict[str, object] = {"precision": "int8", "speedup": 3.0, "limit_ms": 1.0, "whole_trips": 3}
    values |= {"table_trips": 1, "search_s": 2.0, "p50_ms": None if test is None else 0.9, "test": test}
    return Row(method=method, seed=seed, **{**values, **others})  # type: ignore[arg-type]


def test_rows_outlive_the_run(tmp_path: Path) -> None:
    rows = [_row("planner", 0, 0.9, widths={"a": 8}, removed_blocks=("block",)), _row("random", 1)]
    for row in rows:
        KeptRows(tmp_path / "rows.json", Row, CODE).add(row)
    assert list(KeptRows(tmp_path / "rows.json", Row, CODE).rows.values()) == rows


def test_the_table_sets_the_planner_beside_the_best_of_the_others() -> None:
    rows = [_row("planner", s, x) for s, x in enumerate((0.90, 0.91, 0.92))]
    rows += [_row("macs", s, x) for s, x in enumerate((0.90, 0.90, 0.90))]
    rows += [_row("uniform", 0, 0.5), _row("random", 0), _row("magnitude", 0, 0.99, p50_ms=1.01)]
    lines = table(rows).splitlines()
    by_method = {line.split()[1]: line for line in lines[1:-1]}
    assert "0.900    91.00 +- 0.58    3.0    1.0      2 s 3 of 3" in by_method["planner"]
    # What is measured to be over the budget has not met it, whoever found it.
    assert all("nothing meets it" in by_method[method] for method in ("random", "magnitude"))
    assert lines[-1].strip() == "the planner is at +1.00 +- 0.58 points from the best of the others, macs"


def test_where_int8_alone_is_enough_the_table_says_so() -> None:
    lines = table([_row("int8", 0, 0.9), _row("int8", 1, 0.9)]).splitlines()
    assert len(lines) == 3
    assert "INT8 alone is enough" in lines[-1]


def _entry_ms(shape: OperatorShape) -> float:
    """Steps of 8 channels on both sides."""
    return 0.001 * -(-shape.in_channels // 8) * -(-shape.out_channels // 8)


class _Tables:
    """Stands for `OperatorTables`: nothing is measured."""

    def ensure(self, shapes: Iterable[OperatorShape], place: Rung) -> int:
        return 0 * len(list(shapes)) * place.threads

    def latency_ms(self, shape: OperatorShape, place: Rung) -> float:
        return _entry_ms(shape) * place.threads

    def least_ms(self, place: Rung) -> float:
        return 0.002 * place.threads


@pytest.fixture
def contest(monkeypatch: pytest.MonkeyPatch) -> Contest:
    """On a device that takes as long as a formula says; a channel of `inner` is worth a tenth of the others'."""
    groups = find_groups(Residual(), EXAMPLE)
    pruning = SimpleNamespace(ratios=(0.25, 0.5, 0.75), ignored=(), selection="planner")
    bench = SimpleNamespace(
        groups=groups,
        blocks=SimpleNamespace(removable=()),
        example=EXAMPLE,
        fresh_model=Residual,
        note=lambda *_: None,
        profile=SimpleNamespace(runtimes={"onnxruntime": None}, budget=Budget(p50_speedup=1.5)),
        target=SimpleNamespace(spec=SimpleNamespace(pruning=pruning, seed=0)),
    )
    uses = model_operators(Residual(), EXAMPLE, groups.groups)

    def measure(
        _: ShapeBench, rung: Rung, widths: tuple[GroupWidth, ...] = (), removed_blocks: tuple[str, ...] = ()
    ) -> ShapeFigures:
        after = {w.group: w.after for w in widths}
        p50_ms = (0.5 if rung.precision is Precision.INT8 else 1.0) * sum(_entry_ms(u.at(after)) for u in uses)
        return ShapeFigures(
            rung=rung, p50_ms=p50_ms, p99_ms=p50_ms, artifact_bytes=1, peak_bytes=1, widths=widths,
            removed_blocks=removed_blocks,
        )  # fmt: skip

    monkeypatch.setattr(ShapeBench, "measure", measure)
    monkeypatch.setattr(ShapeBench, "latest", lambda _, figures: figures)
    monkeypatch.setattr(ShapeBench, "look_closer", lambda _, figures: replace(figures, processes=5, closer=True))
    made = Contest(cast("Workbench", bench), Precision.FLOAT32, steps=8)
    losses = cast("GroupLosses", lambda group, width: (0.1 if group == "inner" else 1.0) * (1.0 - width / 32))
    made.narrower = replace(made.narrower, loss=losses)
    made.narrower.__dict__["_tables"] = _Tables()
    return made


@pytest.mark.parametrize("method", ["planner", "uniform", "magnitude", "macs", "random"])
def test_every_method_meets_what_can_be_met_and_its_trips_are_counted(contest: Contest, method: str) -> None:
    row, hopeless = search(contest, 1.5, method), search(contest, 100.0, method)
    assert row.met
    assert 1 <= row.whole_trips <= 12
    # Operators are measured for the planner alone.
    assert row.table_trips == (method == "planner")
    assert hopeless.p50_ms is None
    assert hopeless.whole_trips >= 1


def test_the_planner_cuts_what_costs_least(contest: Contest) -> None:
    lost = {m: sum(contest.narrower.loss(g, w) for g, w in search(contest, 1.5, m).widths.items()) for m in METHODS}
    assert lost["planner"] <= min(lost[m] for m in ("uniform", "magnitude", "macs", "random")) + 1e-9


def test_the_precision_alone_takes_no_trip_of_its_own(contest: Contest) -> None:
    contest.precision = Precision.INT8
    enough, short = search(contest, 1.9, "int8"), search(contest, 2.1, "int8")
    assert (enough.met, enough.whole_trips, enough.precision, enough.widths) == (True, 0, "int8", contest.model.full)
    assert short.p50_ms is None


def test_what_other_code_trained_is_trained_again(
    contest: Contest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three methods found one shape: the first was trained by other code, the second only found by it."""
    older = KeptRows(tmp_path / "rows.json", Row, Code(digest="4567", revision="old"))
    older.add(_row("planner", 0, 0.9, widths={"a": 8}))
    older.add(_row("macs", 0, p50_ms=0.9, widths={"a": 8}))
    kept = KeptRows(tmp_path / "rows.json", Row, CODE)
    kept.add(_row("uniform", 0, p50_ms=0.9, widths={"a": 8}))
    trained: list[str] = []

    def train(_: Contest, row: Row) -> Row:
        trained.append(row.method)
        return replace(row, validation=0.6, test=0.7)

    monkeypatch.setattr(bench_planner, "train", train)
    asked = {"precision": "int8", "speedups": [3.0], "methods": list(METHODS), "seeds": [0]}
    _train_all(contest, argparse.Namespace(**asked), kept)
    assert {row.method: row.test for row in kept.rows.values()} == {"planner": 0.9, "macs": 0.7, "uniform": 0.7}
    assert trained == ["macs"]
    told = kept.of_other_code(kept.rows.values())
    assert [line.rpartition(": ")[2] for line in told] == ["int8 / 3.0 / planner / 0", "int8 / 3.0 / macs / 0"]
    assert "then abc" in told[1]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_slice_of_the_contest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = make_target(
        tmp_path,
        target={"model.weights": "weights.safetensors", "pruning.ratios": [0.25, 0.5], "pruning.ignored": []},
        profile={"runtimes.onnxruntime.int8": None, "runtimes.onnxruntime": {}},
    )
    torch.manual_seed(0)
    save_file(target_module(made.folder).build_model().state_dict(), made.folder / "weights.safetensors")
    common = [
        "--target",
        str(made.folder),
        "--profile",
        str(made.profile),
        "--epochs",
        "1",
        "--seeds",
        "0",
        "--steps",
        "2",
    ]

    def run(*more: str) -> list[dict[str, object]]:
        main([*common, "--output", str(tmp_path / "out"), *more])
        found: list[dict[str, object]] = json.loads((tmp_path / "out" / "rows.json").read_text())
        return found

    rows = run("--precision", "float32", "--speedups", "1.05", "1000")
    assert {(r["speedup"], r["method"]) for r in rows} == {
        (s, m) for s in (1.05, 1000.0) for m in ("planner", "uniform", "magnitude", "macs", "random")
    }
    assert all(r["p50_ms"] is None for r in rows if r["speedup"] == 1000.0)
    for row in rows:
        assert row["whole_trips"] >= 1
        assert row["table_trips"] <= (row["method"] == "planner")
        met = row["p50_ms"] is not None and row["p50_ms"] <= row["limit_ms"]
        assert met == (row["test"] is not None)
    assert "1000.00x planner" in capsys.readouterr().out
    # What is there is not done again; and in INT8 a budget that needs no cut compares nothing.
    with pytest.raises(SystemExit):
        run("--speedups", "0.001")
    more = run("--speedups", "0.001", "--resume")
    assert more[: len(rows)] == rows
    assert [(r["method"], r["precision"], r["whole_trips"]) for r in more[len(rows) :]] == [("int8", "int8", 0)]
    assert "INT8 alone is enough" in capsys.readouterr().out
    # A row says neither how long it was recovered nor how many cuts were tried.
    for option, told in (("--epochs", "target.recovery.epochs"), ("--steps", "asked.steps")):
        with pytest.raises(SystemExit):
            run("--speedups", "0.001", "--resume", option, "3")
        assert re.search(rf"{told}: expected [12], found 3", capsys.readouterr().err)
