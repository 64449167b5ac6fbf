"""Checked evidence and releases as text for people and as JSON for programs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table

from edgeprune.cli.render import results
from edgeprune.records.codec import to_plain
from edgeprune.units import format_ms

if TYPE_CHECKING:
    from edgeprune.gating.signing import Signer
    from edgeprune.steps.gates import Verified
    from edgeprune.steps.releases import ReleaseSummary


def verified(found: Verified, output_format: str) -> str:
    """What was checked, who signed it, and the verdict."""
    if output_format == "json":
        return json.dumps({**to_plain(found), "intact": True, "exit_code": found.verdict.exit_code})
    width = max(len(name) for name, _ in found.facts)
    lines = [f"{name:<{width}}  {value}" for name, value in found.facts]
    lines += ["intact: every byte is as it was written, and the verdict follows from the raw samples"]
    return "\n".join((*lines, _signature(found.signer), results.gate(found.judgement, "text")))


def _signature(signer: Signer | None) -> str:
    if signer is None:
        return "not signed: whoever made this file could have made up the samples too"
    key = f"{signer.key_type} key {signer.fingerprint}"
    if signer.name is None:
        return f"signed with the {key}; nobody vouches for whose it is: name those you trust with --allowed-signers"
    return f"signed by {signer.name} with the {key}"


def releases(found: tuple[ReleaseSummary, ...], output_format: str) -> str:
    """A line a release; the current one is marked."""
    if output_format == "json":
        return json.dumps({"schema": 1, "releases": [to_plain(r) for r in found]})
    if not found:
        return "no releases yet; make one with: edgeprune release promote RUN --name NAME"
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("release", "", "target", "profile", "device", "model", "p50", "p99", "before"):
        table.add_column(column, overflow="fold")
    for r in found:
        mark, before = ("current" if r.current else ""), r.before or "-"
        latencies = (format_ms(r.p50_ms), format_ms(r.p99_ms))
        table.add_row(r.name, mark, r.target, r.profile, r.device, r.model, *latencies, before)
    return results.render(table)
