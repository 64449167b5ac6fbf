"""The width staircase of a square convolution on this host, by runtime and precision: where channels stop being cheap.

    python tools/show_staircase.py --extent 16 --widths 24 31 32 48 60 63 64

Latencies come from the operator tables (milliseconds that the operator adds to a model); `*` marks the widths that no
larger one of them beats. Known on x86 with AVX-512: ONNX Runtime is slower at 31 channels than at 32 and at 63 than at
64, in float and in INT8, with one thread and with two. OpenVINO in INT8 wants multiples of 8: 61 to 63 channels are
slower than 64 by 4 to 10 %, and 60 are as slow or slower (`--extent 28 --widths 56 60 61 62 63 64`).
"""

from __future__ import annotations

import argparse
import sys

from edgeprune.records.operators import OperatorShape
from edgeprune.records.rung import Precision, Rung
from edgeprune.records.staircase import Staircase
from edgeprune.runtimes import RUNTIMES
from edgeprune.steps.session import open_host_session
from edgeprune.steps.tables import OperatorTables


def convolution(width: int, kernel: int, extent: int) -> OperatorShape:
    """As many channels in as out."""
    return OperatorShape(
        kind="conv",
        in_channels=width,
        out_channels=width,
        kernel=(kernel, kernel),
        stride=(1, 1),
        padding=(kernel // 2, kernel // 2),
        dilation=(1, 1),
        extent=(extent, extent),
        activation="relu",
    )


def main() -> int:
    """Print a row for each width and a column for each place."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kernel", type=int, default=3)
    parser.add_argument("--extent", type=int, default=16)
    parser.add_argument("--widths", type=int, nargs="+", default=[16, 24, 31, 32, 40, 48, 56, 60, 63, 64])
    parser.add_argument("--runtimes", nargs="+", choices=RUNTIMES.names(), default=list(RUNTIMES.names()))
    parser.add_argument("--precisions", nargs="+", choices=["float32", "int8"], default=["float32", "int8"])
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    shapes = {w: convolution(w, arguments.kernel, arguments.extent) for w in sorted(set(arguments.widths))}
    places = [
        Rung(runtime=r, precision=Precision(p), threads=arguments.threads)
        for r in arguments.runtimes
        for p in arguments.precisions
    ]
    staircases, disturbed = {}, set()
    with open_host_session() as session:
        tables = OperatorTables(session, lambda text: print(f"  {text}", file=sys.stderr, flush=True))
        for place in places:
            tables.ensure(shapes.values(), place)
            entries = {width: tables.entry(shape, place) for width, shape in shapes.items()}
            points = tuple((width, entry.latency_ms) for width, entry in entries.items())
            staircases[place.name] = Staircase(operator=place.name, points=points)
            disturbed |= {(place.name, width) for width, entry in entries.items() if entry.disturbed}
    print(
        f"conv{arguments.kernel}x{arguments.kernel}, extent {arguments.extent}; milliseconds; *: a knee; ?: disturbed"
    )
    print(f"{'width':>6} " + " ".join(f"{name:>24}" for name in staircases))
    for row, width in enumerate(shapes):
        marks = [
            f"{s.points[row][1]:.4f}{'*' if width in s.admissible else ' '}{'?' if (name, width) in disturbed else ' '}"
            for name, s in staircases.items()
        ]
        print(f"{width:6d} " + " ".join(f"{mark:>24}" for mark in marks))
    return 0


if __name__ == "__main__":
    sys.exit(main())
