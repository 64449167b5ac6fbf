"""What each way to quantize gives a target's dense model, on each runtime: accuracy, size and p50.

    python tools/bench_quantization.py --data ../shared/data --output runs/quantization
    python tools/bench_quantization.py --data ../shared/data --output runs/quantization --resume

By default the keywords of MLPerf Tiny (`targets/keywords-dscnn`). Every way is tried by itself, as a change to the
quantizer's default; `mixed_precision` leaves those layers in float whose rounding hurts most on training examples. Ways
are to be chosen by the validation split. The column beside it is of the test split: `worse` counts the examples that
float32 has right and this way wrong, `better` the other way round; `p` is that of McNemar's exact test, one-sided. p50
is one look on this machine, one thread. Rows are kept in `--output`, to go on with by `--resume`: with the same target,
profile, data, device and libraries. Rows of other code stay, and are named below the table.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import numpy as np
from bench_origin import origin_of
from bench_parts import add_output, kept_rows, opened_workbench

from edgeprune.errors import BuildError
from edgeprune.records.quantization import DEFAULT_VARIANT, QuantizationVariant
from edgeprune.records.rung import Limits, PlannedRung, Precision, Rung, RungStatus
from edgeprune.records.verdict import Floors
from edgeprune.schema.compression import Quantizer
from edgeprune.statistics import sign_test
from edgeprune.steps.candidates import CandidateMaker, Compiled
from edgeprune.steps.compressing import Compressor
from edgeprune.steps.inputs import load_profile, load_target
from edgeprune.steps.looks import p50_ms, quick_look
from edgeprune.steps.variant_kinds import changed
from edgeprune.steps.variants import Quantizable, VariantBench
from edgeprune.steps.workbench import Workbench

FLOAT, DEFAULT = "float32", "default"
WAYS: tuple[str, ...] = (FLOAT, DEFAULT, *get_args(Quantizer))


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One way on one runtime.

    Attributes:
        validation, test: the metric's mean; None where it could not be made.
        worse, better: examples of the test split, against float32 on that runtime.
        reason: why it could not be made.
    """

    runtime: str
    way: str
    validation: float | None = None
    test: float | None = None
    worse: int = 0
    better: int = 0
    artifact_bytes: int = 0
    p50_ms: float | None = None
    reason: str = ""

    @property
    def entry(self) -> tuple[str, str]:
        """What it is a row of."""
        return self.runtime, self.way


@dataclass(frozen=True)
class Ways:
    """The dense model of a target on one runtime, quantized in one way or another; `looks`: whether p50 is taken."""

    bench: Workbench
    compressor: Compressor
    runtime: str
    looks: bool

    def row(self, way: str) -> Row:
        """Compiled, run on both splits, and looked at."""
        try:
            compiled = self._compiled(way)
        except BuildError as error:
            return Row(runtime=self.runtime, way=way, reason=error.message)
        bench, test = self.bench, self._test_values(compiled)
        floating = test if way == FLOAT else self._test_values(self._compiled(FLOAT))
        sign = 1 if bench.task.metric.higher_is_better else -1
        return Row(
            runtime=self.runtime,
            way=way,
            validation=compiled.evaluation.accuracy.value,
            test=float(test.mean()),
            worse=int((sign * test < sign * floating).sum()),
            better=int((sign * test > sign * floating).sum()),
            artifact_bytes=compiled.artifact.size_bytes,
            p50_ms=self._p50_ms(compiled) if self.looks else None,
        )

    def _p50_ms(self, compiled: Compiled) -> float:
        device = self.bench.device
        place = device.place(compiled.folder, compiled.artifact)
        return p50_ms(quick_look(self.bench, compiled.rung, place, self.bench.samples_path).block)

    def _compiled(self, way: str) -> Compiled:
        precision = Precision.FLOAT32 if way == FLOAT else Precision.INT8
        rung = Rung(runtime=self.runtime, precision=precision)
        planned = PlannedRung(rung=rung, status=RungStatus.PLANNED, reason="", accuracy_cost=0.0)
        return CandidateMaker(self.bench, self.compressor).compile(planned, self._variant(way, rung))

    def _variant(self, way: str, rung: Rung) -> QuantizationVariant:
        if way in {FLOAT, DEFAULT}:
            return DEFAULT_VARIANT
        spec = self.bench.target.spec.quantization
        if way != "mixed_precision":
            kind: Quantizer = next(k for k in get_args(Quantizer) if k == way)
            return changed(DEFAULT_VARIANT, kind, spec)
        subject = Quantizable(rung=rung, model=self.compressor.dense, floors=Floors(), limits=Limits())
        with tempfile.TemporaryDirectory(prefix="edgeprune-") as scratch:
            ranking = VariantBench(self.bench, self.compressor, subject, Path(scratch)).ranking(DEFAULT_VARIANT)
        most = max(1, int(spec.max_float_share * len(ranking.layers)))
        return replace(DEFAULT_VARIANT, float_layers=ranking.worst(most))

    def _test_values(self, compiled: Compiled) -> np.ndarray:
        """The metric of each example of the test split."""
        bench = self.bench
        place = bench.host.place(compiled.folder, compiled.artifact)
        outputs = bench.host.infer(compiled.rung, place, bench.prepared(bench.data.test))
        return bench.task.values(outputs, bench.data.test.labels).astype(np.float64)


def table(rows: Sequence[Row]) -> str:
    """A line a row."""
    counts = f"{'worse':>5} {'better':>6} {'p':>6}"
    lines = [f"{'runtime':<12} {'way':<16} {'validation':>10} {'test':>8} {counts} {'bytes':>9} p50"]
    for row in rows:
        start = f"{row.runtime:<12} {row.way:<16}"
        if row.validation is None or row.test is None:
            lines.append(f"{start} none: {row.reason}")
            continue
        chance = f"{sign_test(row.worse, row.better):.3f}" if row.way != FLOAT else "-"
        figures = f"{row.validation:>10.4f} {row.test:>8.4f} {row.worse:>5} {row.better:>6} {chance:>6}"
        p50 = "-" if row.p50_ms is None else f"{row.p50_ms:.4f}"
        lines.append(f"{start} {figures} {row.artifact_bytes:>9,} {p50}")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Run what is asked for, or go on with it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder that $EDGEPRUNE_DATA is to name")
    parser.add_argument("--target", type=Path, default=Path("targets/keywords-dscnn"))
    parser.add_argument("--profile", default="profiles/local-2x.toml", help="names the runtimes")
    add_output(parser)
    parser.add_argument("--no-looks", action="store_true", help="leave p50 out, where others measure on this machine")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    arguments = parser.parse_args(argv)
    if arguments.data is not None:
        os.environ["EDGEPRUNE_DATA"] = str(arguments.data.resolve())
    target, profile = load_target(arguments.target), load_profile(arguments.profile)
    kept = kept_rows(parser, arguments, Row, lambda: origin_of(target, profile), __file__)
    with opened_workbench(target, profile, "local", arguments.output / "steps") as bench:
        compressor = Compressor(bench)
        for runtime in profile.runtimes:
            ways = Ways(bench, compressor, runtime, looks=not arguments.no_looks)
            for way in arguments.ways:
                if (runtime, way) not in kept.rows:
                    kept.add(ways.row(way))
    rows = list(kept.rows.values())
    print("\n".join([table(rows), *kept.of_other_code(rows)]))


if __name__ == "__main__":
    main()
