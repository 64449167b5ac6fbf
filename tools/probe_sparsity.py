"""What zeros buy on a device, runtime by runtime: every pattern at every share, measured in turn with the dense file.

    python tools/probe_sparsity.py      # local, all its runtimes, kinds pointwise and linear
    python tools/probe_sparsity.py --device cam1 --runtime tflite --kind pointwise --width 128

A line a pattern and share: the ratio of the p50s (above 1: zeros are faster), its range over the rounds, and whether it
is a gain. Nothing is kept.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from edgeprune.deployment.inventory import load_device
from edgeprune.errors import EdgepruneError
from edgeprune.profiling.sparsity import PATTERNS, ROUNDS, MicroKind, can_hold
from edgeprune.records.rung import Precision, Rung
from edgeprune.records.sparsity import GainStatus, SparsityProbe
from edgeprune.runtimes import RUNTIMES
from edgeprune.steps.probing import ProbeJob, run_probe, summary
from edgeprune.steps.session import open_session
from edgeprune.units import format_ms
from edgeprune.zero_patterns import checked_pattern


def main(arguments: list[str] | None = None) -> int:
    """Print the table; exit 0 when all was measured, else the error's code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="local", help="of the inventory")
    parser.add_argument("--runtime", action="append", help="again for each; default: all on the device")
    parser.add_argument("--kind", action="append", choices=["pointwise", "conv", "conv1d", "linear"])
    parser.add_argument("--width", type=int, default=128, help="channels or features")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument(
        "--pattern", action="append", type=checked_pattern, help="unstructured, blockRxC or N:M; default: one of each"
    )
    parser.add_argument(
        "--strongest-first", action="store_true", help="skip weaker shares where the strongest gains none"
    )
    options = parser.parse_args(arguments)
    try:
        _probe(options)
    except EdgepruneError as error:
        print(error.message, file=sys.stderr)
        return error.exit_code
    return 0


def _probe(options: argparse.Namespace) -> None:
    with open_session(load_device(options.device)) as session:
        there = [name for name, _ in session.facts.runtimes if name in RUNTIMES.names()]
        print(
            f"{session.spec.name}: {session.facts.machine}, {session.facts.cpu_model}, {dict(session.facts.runtimes)}"
        )
        for runtime in options.runtime or there:
            session.require(runtime)
            form = RUNTIMES.get(runtime).sparse_form()
            known = form.refusals(session.facts) if form else ("it has no sparse kernels for float weights",)
            print(f"\n{runtime}, by its own rule: {'; '.join(known) or 'zeros may buy time here'}")
            for kind in options.kind or ["pointwise", "linear"]:
                micro = MicroKind(kind=kind, width=options.width)
                patterns = tuple(p for p in options.pattern or PATTERNS if can_hold(micro, p))
                for pattern in (p for p in options.pattern or () if p not in patterns):
                    print(f"  {micro.name} cannot have {pattern} zeros")
                if not patterns:
                    continue
                job = ProbeJob(
                    session=session,
                    rung=Rung(runtime=runtime, precision=Precision.FLOAT32, threads=options.threads),
                    kind=micro,
                    patterns=patterns,
                    rounds=options.rounds,
                    exhaustive=not options.strongest_first,
                    tell=lambda text: print(text, file=sys.stderr),
                )
                with tempfile.TemporaryDirectory(prefix="edgeprune-") as folder:
                    _show(run_probe(job, Path(folder)))


def _show(probe: SparsityProbe) -> None:
    print(
        f"  {probe.kind}: dense {format_ms(probe.dense_p50_ms)}, two looks at it differ by {probe.noise:.3f}x at most"
    )
    for gain in probe.gains:
        figures = (
            gain.reason
            if gain.ratio is None
            else f"{gain.ratio:5.2f}x  ({gain.lowest or 0:.2f} to {gain.highest or 0:.2f})"
        )
        mark = "  GAIN" if gain.status is GainStatus.GAIN else ""
        print(f"    {gain.pattern:<12} {gain.share:>4.0%}  {figures}{mark}", flush=True)
    print(f"  {summary(probe)}", flush=True)
    if probe.disturbed:
        print(f"  disturbed, so small gains may be hidden: {probe.disturbed}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
