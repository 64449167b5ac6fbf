"""A small slice of each long benchmark: every part runs, and what was done is not done again."""

from __future__ import annotations

import json
import re
from pathlib import Path

import bench_compression
import bench_parts
import bench_pruning
import bench_quantization
import bench_recovery
import bench_training
import pytest
from bench_origin import Code
from targets_for_tests import make_target, own_home, until_quiet  # noqa: F401

from edgeprune.pruning.criteria import CRITERIA

CODE = Code(digest="0123", revision="abc")
DIGITS = Path(__file__).parents[2] / "targets" / "digits"


def _written(folder: Path) -> dict[Path, int]:
    """When each kept file was written; the lock is touched by each call."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_part_of_the_compression_benchmark_gives_its_rows_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = make_target(tmp_path, target={"pruning.ignored": None}, profile={"runtimes.onnxruntime.int8": True})
    output = made.runs
    arguments = ["--target", str(made.folder), "--profile", str(made.profile), "--output", str(output)]
    arguments += ["--seeds", "0", "--criteria", "l1", "--refit", "l1", "--one-shot-shares", "0.5", "--shares", "0.7"]
    arguments += ["--patterns", "2:4", "block4x1", "--channel-shares", "0.25"]
    arguments += ["--fewer-macs", "1.5", "--iterative-epochs", "4", "--structured-epochs", "1"]
    arguments += ["--iterative-learning-rate", "0.005", "--structured-learning-rate", "0.005"]
    arguments += ["--speedups", "0.8", "--built-epochs", "1"]
    until_quiet(lambda: bench_compression.main([*arguments, "--resume"]))
    rows = json.loads((output / "rows.json").read_text())
    entries = [(r["part"], r["method"], r["amount"], r["seed"]) for r in rows]
    assert entries == [
        ("one-shot", "l1", 0.5, 0),
        ("one-shot", "l1, norms", 0.5, 0),
        ("one-shot", "l1, refit", 0.5, 0),
        *[("patterns", f"l1 {p}{stage}", 0.5, 0) for p in ("2:4", "block4x1") for stage in ("", ", norms", ", refit")],
        ("channels", "l1", 0.25, 0),
        ("channels", "l1, norms", 0.25, 0),
        ("iterative", "lamp, 4 epochs, rate 0.005", 0.7, 0),
        ("structured", "l2, 1 epochs, rate 0.005", 1.5, 0),
        *[
            ("deployed", f"onnxruntime-{p}-t1{method}", f, 0)
            for f, method in ((1.0, ""), (1.5, ", 1 epochs, rate 0.005"))
            for p in ("float32", "int8")
        ],
        # Of 7 us little can be won: any model as fast as the dense one will do.
        ("built", "onnxruntime, 1 epochs", 0.8, 0),
    ]
    assert all(0.0 <= row[split] <= 1.0 for row in rows for split in ("validation", "test"))
    compared = [row for row in rows if row["p50_ms"] is not None]
    # The dense float32 model is what the others are measured in turn with.
    assert compared == rows[14:]
    assert all(row["speedup"] > 0 for row in compared)
    assert compared[-1]["speedup"] >= 0.8
    zeros, cut = (next(r["detail"] for r in rows if r["part"] == part) for part in ("iterative", "structured"))
    # Of all weights: the classifier's 1152 of 5904 stay.
    assert float(zeros.split()[0]) == pytest.approx(0.7 * (1 - 1152 / 5904), abs=0.001)
    assert re.match(r"[\d.]+ M MACs, [\d,]+ parameters, \d+ blocks out", cut)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].split() == [
        "part",
        "method",
        "amount",
        "even",
        "half",
        "odd",
        "half",
        "sd",
        "n",
        "p50",
        "speed-up",
    ]
    assert printed[1 + len(rows) :] == bench_compression.published().splitlines()

    # Rows of an earlier run are not mixed with new ones unless that is asked for; asked for, nothing is done again.
    before = _written(output)
    with pytest.raises(SystemExit) as refused:
        bench_compression.main(arguments)
    assert refused.value.code == 2
    assert "--resume" in capsys.readouterr().err
    bench_compression.main([*arguments, "--resume"])
    assert capsys.readouterr().out.splitlines() == printed
    assert _written(output) == before


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_quantization_benchmark_gives_each_way_a_row_or_a_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = make_target(tmp_path, profile={"runtimes.onnxruntime.int8": True})
    arguments = ["--target", str(made.folder), "--profile", str(made.profile), "--output", str(made.runs)]
    until_quiet(lambda: bench_quantization.main([*arguments, "--ways", "float32", "--resume"]))
    arguments += ["--no-looks", "--ways", "float32", "default", "percentile", "mixed_precision", "smoothing"]
    bench_quantization.main([*arguments, "--resume"])
    rows = list(bench_parts.KeptRows(made.runs / "rows.json", bench_quantization.Row, CODE).rows.values())
    assert [row.entry for row in rows] == [("onnxruntime", way) for way in arguments[-5:]]
    *made_rows, refused = rows
    assert "no layer norm" in refused.reason
    # Of the first call's row p50 was taken, and it was not made again by the second.
    assert [row.p50_ms is not None for row in made_rows] == [True, False, False, False]
    assert all(row.test is not None and 0.0 <= row.test <= 1.0 for row in made_rows)
    floating = made_rows[0]
    assert (floating.worse, floating.better) == (0, 0)
    assert all(row.artifact_bytes < floating.artifact_bytes for row in made_rows[1:])
    for row in made_rows:
        assert row.test == pytest.approx((floating.test or 0.0) + (row.better - row.worse) / 64)
    assert len(capsys.readouterr().out.splitlines()) == (1 + 1) + (1 + len(rows))
    with pytest.raises(SystemExit):
        bench_quantization.main(arguments)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_recovery_benchmark_gives_each_way_a_row_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = make_target(tmp_path, target={"pruning.ignored": None})
    arguments = ["--target", str(made.folder), "--profile", str(made.profile), "--output", str(made.runs), "--resume"]
    arguments += ["--shares", "0.8", "--rounds", "2", "--features", "conv1", "--seeds", "0"]
    bench_recovery.main(arguments)
    printed = capsys.readouterr().out.splitlines()
    rows = list(bench_parts.KeptRows(made.runs / "rows.json", bench_recovery.Row, CODE).rows.values())
    assert [row.entry for row in rows] == [("dense", 0.0, 0), *((way, 0.8, 0) for way in bench_recovery.WAYS)]
    assert [line[:15].rstrip() for line in printed[1:]] == ["dense", *bench_recovery.WAYS]
    assert printed[1].split()[-2:] == ["+0.00", "0.0000"]
    # The classifier's weights stay, so of all weights it is less.
    assert all(0.5 < row.sparsity < 0.8 for row in rows[1:])
    # Tickets are trained once, for themselves and for their zeros; every other way ends in a model of its own.
    trained = {path.name for path in (made.runs / "seed0" / "compressed").iterdir()}
    assert len(trained - {"dense", "early"}) == len(bench_recovery.WAYS)
    assert sum(name.endswith("-scratch") for name in trained) == 1
    before = _written(made.runs)
    bench_recovery.main(arguments)
    assert capsys.readouterr().out.splitlines() == printed
    assert _written(made.runs) == before
    with pytest.raises(SystemExit):
        bench_recovery.main([*arguments, "--rounds", "3"])
    assert "asked.rounds" in capsys.readouterr().err


@pytest.mark.slow
def test_the_pruning_benchmark_times_each_criterion(capsys: pytest.CaptureFixture[str]) -> None:
    names = ["l2", "taylor", "random"]
    assert bench_pruning.main(["--rounds", "1", "--model", "resnet20", "--criteria", *names]) in {0, 1}
    printed = capsys.readouterr().out
    surgery, scoring = printed.split("resnet20, 4 batches")
    assert re.findall(r"^  (\w+) +[\d.]+ s +[\d.]+ s$", surgery, re.MULTILINE) == ["l2", "random"]
    timed = re.findall(r"^  (\w+) +\S.*? +[\d.]+ +[\d.]+$", scoring, re.MULTILINE)
    assert timed == ["taylor"] * len(CRITERIA.get("taylor").granularities)


@pytest.mark.slow
def test_the_training_benchmark_compares_both_loops(capsys: pytest.CaptureFixture[str]) -> None:
    code = bench_training.main(["--target", str(DIGITS), "--rounds", "2", "--steps", "2"])
    printed = capsys.readouterr().out
    (told,) = re.findall(r"^ *seconds: ([\d.]+)", printed, re.MULTILINE)
    # Printed with three digits: at the bar itself either is right.
    assert told == "0.950" or code == int(float(told) < 0.95)
    assert re.findall(r"^ *([\w-]+_?): +\d+ images/s", printed, re.MULTILINE) == ["hand-written", "fit_"]
    ratios = re.findall(r"seconds: ([\d.]+) \(quartiles ([\d.]+) to ([\d.]+)\)", printed)
    assert len(ratios) == 2
    assert all(0 < float(low) <= float(ratio) <= float(high) for ratio, low, high in ratios)


def test_the_table_has_mean_deviation_and_count_of_the_seeds() -> None:
    rows = [
        bench_compression.Row(part="iterative", method="lamp", amount=0.8, seed=seed, validation=0.5, test=test)
        for seed, test in enumerate((0.90, 0.91, 0.92))
    ]
    alone = bench_compression.Row(
        part="deployed", method="x", amount=1.0, seed=0, validation=1, test=1, p50_ms=0.5, speedup=2.5
    )
    lines = bench_compression.table([*rows, alone]).splitlines()
    assert lines[1].split() == ["iterative", "lamp", "0.8", "50.00", "91.00", "1.00", "3", "-", "-"]
    assert lines[2].split() == ["deployed", "x", "1", "100.00", "100.00", "-", "1", "0.5000", "2.50x"]


def test_rows_of_older_runs_are_read(tmp_path: Path) -> None:
    stored = {"part": "one-shot", "method": "obc", "amount": 0.5, "seed": 0, "validation": 0.9, "test": 0.8}
    (tmp_path / "rows.json").write_text(json.dumps([{**stored, "p50_ms": None, "detail": ""}]))
    kept = bench_parts.KeptRows(tmp_path / "rows.json", bench_compression.Row, CODE)
    assert list(kept.rows) == [("one-shot", "obc", 0.5, 0)]
    (told,) = kept.of_other_code(kept.rows.values())
    assert "of unknown code: one-shot / obc / 0.5 / 0" in told
