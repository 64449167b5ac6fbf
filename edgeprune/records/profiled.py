"""Many artifacts timed in one process on a device."""

from __future__ import annotations

from dataclasses import dataclass

from edgeprune.records.measurement import Block


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileRequest:
    """How one agent process shall time many artifacts.

    Attributes:
        rounds: of every artifact; the rounds of all are interleaved.
        round_s: how long an artifact runs in each round, about.
        hold_bytes: of files that are loaded at the same time, about.
        warmup_min_runs, warmup_max_runs, warmup_max_s: of each artifact, when it is loaded; see `BenchRequest`.
        cpus: the cores to pin to; empty lets the agent take the last `threads` cores that it may use.
    """

    runtime: str
    threads: int
    rounds: int = 9
    round_s: float = 0.015
    hold_bytes: int = 256_000_000
    warmup_min_runs: int = 20
    warmup_max_runs: int = 500
    warmup_max_s: float = 1.0
    cpus: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Profiled:
    """What the device showed of one artifact.

    Attributes:
        blocks: one a round. Their memory fields are those of the process, with all that it had loaded.
        refused: why the runtime would not run it; empty where it did.
    """

    blocks: tuple[Block, ...]
    refused: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """The latency of one artifact from its rounds.

    Attributes:
        latency_ms: of runs that were left alone: lower decile of a round's runs, in the third fastest round.
        p50_ms: median of the runs of the fastest round; where few rounds were undisturbed it may be too high.
        rounds: that were undisturbed.
        disturbed: what happened meanwhile, where fewer than three rounds were undisturbed and the fastest ones do not
            agree. Empty where `latency_ms` can be believed.
    """

    latency_ms: float
    p50_ms: float
    rounds: int
    disturbed: str = ""
