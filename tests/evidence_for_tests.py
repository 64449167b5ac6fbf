"""A run folder as a finished build leaves it, made by hand in milliseconds: artifact and evidence of one another."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

from records_for_tests import (
    FLOAT,
    INT8,
    make_accuracy,
    make_block,
    make_facts,
    make_measurement,
    make_samples_ns,
)

from edgeprune.gating.evidence import SCHEMA, DenseModel, EvidenceBundle, Origin, pack_evidence
from edgeprune.gating.judge import judge
from edgeprune.records.artifact import TensorSpec
from edgeprune.records.codec import to_json
from edgeprune.records.measurement import DeviceFacts, Measurement
from edgeprune.records.model_card import CardModel, ModelCard
from edgeprune.records.recipe import PruningRecipe
from edgeprune.records.rung import Rung
from edgeprune.records.verdict import Evidence, Verdict
from edgeprune.schema.base import parse_toml
from edgeprune.schema.floors import AccuracyFloors
from edgeprune.schema.profile import DeviceProfile
from edgeprune.steps.budget import floors_from, limits_to_judge
from edgeprune.store.artifacts import Manifest, describe_files, write_manifest

PROFILE = """
schema = 1
name = "n100"
[hardware]
arch = "x86_64"
cores = 4
[runtimes.openvino]
[budget]
p50_ms = 2.6
p99_ms = 3.4
memory_mb = 160.0
artifact_mb = 0.4
"""
TENSOR = TensorSpec(name="input", shape=(1, 3, 32, 32), dtype="float32")


def make_profile(text: str = PROFILE) -> DeviceProfile:
    """A small box and a budget that `make_run` meets."""
    return parse_toml(text, DeviceProfile, where="n100.toml")


def make_run(root: Path, *, seed: int = 0, **changes: Any) -> Path:
    """Write `artifact/` and `evidence.zip`; returns the run folder. `changes` are those of `make_bundle`."""
    bundle = make_bundle(_write_artifact(root / "artifact", seed), seed=seed, **changes)
    (root / "evidence.zip").write_bytes(pack_evidence(bundle))
    return root


def make_bundle(
    manifest: Manifest,
    *,
    p50_ms: float = 2.0,
    dense_p50_ms: float = 6.1,
    seed: int = 0,
    profile: DeviceProfile | None = None,
    facts: DeviceFacts | None = None,
    dense_macs: int = 41_000_000,
    dense_cpus: tuple[int, ...] = (1,),
    runs: int = 200,
) -> EvidenceBundle:
    """What `evidence.zip` holds, each part following from the others."""
    profile = profile or make_profile()
    dense = DenseModel(
        rung=FLOAT, artifact_digest="d" * 64, parameters=272_000, macs=dense_macs, validation=make_accuracy(482),
        test=make_accuracy(480, split="test"),
    )  # fmt: skip
    baseline = _measured(FLOAT, dense.artifact_digest, dense_p50_ms, seed + 50, facts, runs)
    blocks = tuple(replace(block, cpus=dense_cpus) for block in baseline.blocks)
    wanted = AccuracyFloors(min_class_recall=0.7)
    limits, speedups = limits_to_judge(profile.budget)
    evidence = Evidence(
        limits=limits,
        speedups=speedups,
        floors=floors_from(wanted, dense.validation),
        artifact_bytes=manifest.artifact.size_bytes,
        measurement=_measured(INT8, manifest.artifact.digest, p50_ms, seed + 10, facts, runs),
        baseline=replace(baseline, blocks=blocks),
        accuracy=make_accuracy(480),
    )
    origin = Origin(
        schema=SCHEMA, target="door", device="n100-1", seed=7, versions=(("edgeprune code", "12ab"),), floors=wanted,
        dense=dense, parity=None, test=make_accuracy(478, split="test"),
    )  # fmt: skip
    return EvidenceBundle(
        evidence=evidence,
        judgement=judge(evidence),
        origin=origin,
        profile=profile,
        manifest=to_json(manifest, indent=2),
        card=_card(manifest, dense, profile),
    )


def _card(manifest: Manifest, dense: DenseModel, profile: DeviceProfile) -> ModelCard:
    before = CardModel(
        rung=dense.rung, artifact=replace(manifest.artifact, precision=dense.rung.precision),
        parameters=dense.parameters, macs=dense.macs, accuracy=(dense.validation,), percentiles=(),
    )  # fmt: skip
    after = replace(before, rung=manifest.rung, artifact=manifest.artifact, accuracy=(make_accuracy(480),))
    return ModelCard(
        target="door", description="", profile=profile.name, device="n100-1", status="chosen", verdict=Verdict.PASS,
        quantization="default",
        dense=before, final=after, parity=None, making=None, settings=(), seed=7, data=(), test_readings=(),
        controls=(), versions=(("edgeprune code", "12ab"),),
    )  # fmt: skip


def make_manifest(root: Path) -> Manifest:
    """Of an artifact that was just written."""
    return _write_artifact(root / "artifact", 0)


def make_key(folder: Path, name: str = "key", *options: str) -> Path:
    """A throw-away SSH key without a passphrase."""
    path = folder / name
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"{name}@test", *options, "-f", str(path)]
    subprocess.run(command, check=True, capture_output=True)
    return path


def allow(folder: Path, **keys: Path) -> Path:
    """An allowed-signers file: principal = key."""
    lines = [
        f'{name}@example.com namespaces="edgeprune" {key.with_suffix(".pub").read_text()}' for name, key in keys.items()
    ]
    path = folder / "allowed_signers"
    path.write_text("".join(lines))
    return path


def _measured(
    rung: Rung, artifact_digest: str, p50_ms: float, seed: int, facts: DeviceFacts | None, runs: int
) -> Measurement:
    """Six undisturbed processes."""
    blocks = tuple(make_block(make_samples_ns(runs, p50_ms=p50_ms, seed=seed + k)) for k in range(6))
    return replace(make_measurement(rung), blocks=blocks, artifact_digest=artifact_digest, device=facts or make_facts())


def _write_artifact(folder: Path, seed: int) -> Manifest:
    folder.mkdir(parents=True)
    (folder / "model.xml").write_bytes(b"<net/>" + bytes([seed % 256]))
    (folder / "model.bin").write_bytes(bytes(1000))
    artifact = describe_files(
        folder, ("model.xml", "model.bin"), runtime="openvino", precision=INT8.precision, inputs=(TENSOR,),
        outputs=(TENSOR,), file_format="openvino ir 11",
    )  # fmt: skip
    manifest = Manifest(
        artifact=artifact, rung=INT8, preprocessing={"scale": 1.0}, class_names=("a", "b"), widths=(),
        recipe=PruningRecipe(), origin=(("target", "door"),),
    )  # fmt: skip
    write_manifest(folder, manifest)
    return manifest
