from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from evidence_for_tests import PROFILE, allow, make_bundle, make_key, make_manifest, make_profile, make_run
from records_for_tests import make_accuracy, make_block, make_facts

import edgeprune
from edgeprune.errors import InputError
from edgeprune.gating.evidence import EvidenceBundle, pack_evidence
from edgeprune.records.codec import to_json
from edgeprune.records.rung import Precision
from edgeprune.records.verdict import Floors, Release, Verdict
from edgeprune.steps.evidence import contradictions_of, read_evidence
from edgeprune.steps.gates import Comparison, gate_run, sign_evidence, verify


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run")


def compared(run: Path, release: Path, margin: float = 0.05) -> Verdict:
    comparison = Comparison(name="1.4.0", folder=release, max_regression=margin)
    return gate_run(run, junit=None, markdown=None, comparison=comparison).verdict


def test_a_run_folder_and_its_file_give_the_same_judgement(run: Path, tmp_path: Path) -> None:
    judgement = edgeprune.gate(run)
    assert judgement.verdict is Verdict.PASS
    assert edgeprune.gate(run / "evidence.zip") == judgement
    (tmp_path / "copy.zip").write_bytes((run / "evidence.zip").read_bytes())
    assert edgeprune.gate(tmp_path / "copy.zip") == judgement


def test_markdown_names_what_was_judged_where(run: Path, tmp_path: Path) -> None:
    edgeprune.gate(run, markdown=tmp_path / "gate.md", junit=tmp_path / "gate.xml", baseline=run)
    text = (tmp_path / "gate.md").read_text()
    assert text.startswith("### ✅ PASS: door on n100-1: openvino-int8-t1\n")
    assert "- device: n100-1 (Intel(R) N100)" in text
    assert "- runs: 1200 in 6 processes" in text
    assert "- compared with: release" in text
    assert 'name="edgeprune door-n100-n100-1"' in (tmp_path / "gate.xml").read_text()


def changed(bundle: EvidenceBundle, **changes: object) -> EvidenceBundle:
    return replace(bundle, evidence=replace(bundle.evidence, **changes))  # type: ignore[arg-type]


def test_parts_that_do_not_follow_from_one_another_are_refused(tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path)
    bundle = make_bundle(manifest)
    measurement = bundle.evidence.measurement
    assert measurement is not None
    busy = replace(measurement, blocks=(*measurement.blocks, make_block(involuntary_switches=500, cpu_ns=1)))
    release = Release(name="x", measurement=measurement, baseline=measurement, max_regression=0.5)
    cases: dict[str, EvidenceBundle] = {
        "the limits are not those": changed(bundle, limits=replace(bundle.evidence.limits, p99_ms=9.0)),
        "the accuracy floors do not": changed(bundle, floors=Floors(accuracy=0.5)),
        "the size is 1 bytes, and the manifest's files are 1007": changed(bundle, artifact_bytes=1),
        "what was measured is not the artifact": changed(
            bundle, measurement=replace(measurement, artifact_digest="e" * 64)
        ),
        "the artifact was not measured as openvino-int8-t1": changed(
            bundle, measurement=replace(measurement, precision=Precision.BF16)
        ),
        "the artifact was not measured as openvino-int8": changed(bundle, measurement=replace(measurement, cpus=(7,))),
        "the artifact was not measured as openvino-int8-t1-cpu7": replace(
            changed(bundle, measurement=replace(measurement, cpus=(7,))),
            manifest=to_json(replace(manifest, rung=replace(manifest.rung, cpus=(7,)))),
        ),
        "a disturbed block of the artifact is counted: 500 involuntary": changed(bundle, measurement=busy),
        "what was measured is not the dense model": changed(bundle, baseline=measurement),
        "never stored": changed(bundle, release=release),
        "manifest.json: not a valid": replace(bundle, manifest=b"{}"),
    }
    assert list(contradictions_of(bundle)) == []
    for message, case in cases.items():
        (tmp_path / "evidence.zip").write_bytes(pack_evidence(case))
        with pytest.raises(InputError, match=f"not of one build: .*{re.escape(message)}"):
            read_evidence(tmp_path)


def test_a_stored_verdict_that_the_samples_do_not_give_is_refused(tmp_path: Path) -> None:
    bundle = changed(make_bundle(make_manifest(tmp_path)), accuracy=make_accuracy(300))
    (tmp_path / "evidence.zip").write_bytes(pack_evidence(bundle))
    with pytest.raises(InputError, match=r"accuracy: PASS .* is stored, FAIL .* follows from the samples"):
        verify(tmp_path, None)
    # Judging looks at the samples alone.
    assert edgeprune.gate(tmp_path).verdict is Verdict.FAIL


def test_signed_evidence_names_its_signer_and_changed_evidence_is_refused(run: Path, tmp_path: Path) -> None:
    key = make_key(tmp_path)
    allowed = allow(tmp_path, alice=key)
    assert verify(run, None).signer is None
    with pytest.raises(InputError, match=r"evidence\.zip\.sig: no such file"):
        verify(run, allowed)
    path, signer = sign_evidence(run, key)
    assert (path, signer.name) == (run / "evidence.zip.sig", None)
    found = verify(run / "evidence.zip", allowed).signer
    assert found is not None
    assert (found.name, found.fingerprint) == ("alice@example.com", signer.fingerprint)
    # Whole in itself, and not what was signed.
    other = make_run(tmp_path / "other", seed=3)
    (run / "evidence.zip").write_bytes((other / "evidence.zip").read_bytes())
    for signers in (None, allowed):
        with pytest.raises(InputError, match="the signature is not good"):
            verify(run, signers)


def test_damaged_evidence_is_not_signed(run: Path, tmp_path: Path) -> None:
    content = (run / "evidence.zip").read_bytes()
    (run / "evidence.zip").write_bytes(content[:-1] + b"x")
    with pytest.raises(InputError, match="damaged"):
        sign_evidence(run, make_key(tmp_path))
    assert not (run / "evidence.zip.sig").exists()


def test_a_slower_run_fails_against_a_release_and_a_warmer_device_does_not(run: Path, tmp_path: Path) -> None:
    assert compared(make_run(tmp_path / "same", seed=5), run) is Verdict.PASS
    assert compared(make_run(tmp_path / "slow", seed=5, p50_ms=2.3), run) is Verdict.FAIL
    assert compared(make_run(tmp_path / "warm", seed=5, p50_ms=2.3, dense_p50_ms=7.0), run) is Verdict.PASS


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"facts": replace(make_facts(), kernel="6.6.0", cpu_flags=("avx2", "vnni"))},
            "device kernel: 6.1.0 in the release, 6.6.0 here; device cpu_flags",
        ),
        ({"facts": replace(make_facts(), runtimes=(("openvino", "2026.0"),))}, "device runtimes"),
        (
            {"profile": make_profile(PROFILE.replace('"n100"', '"n200"'))},
            "profile name: n100 in the release, n200 here",
        ),
        ({"profile": make_profile(PROFILE.replace("cores = 4", "cores = 2"))}, "profile hardware"),
        ({"dense_cpus": (4, 5)}, "dense model's cores: 1 in the release, 4-5 here"),
        ({"dense_macs": 40_000_000}, "dense model's multiply-accumulates: 41000000 in the release, 40000000 here"),
    ],
)
def test_what_was_measured_elsewhere_is_not_compared(
    run: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        compared(make_run(tmp_path / "other", **changes), run)
    assert caught.value.message.startswith("release 1.4.0: cannot compare with")
    assert caught.value.facts["differences"]


def test_a_tighter_budget_and_more_disk_are_no_other_device(run: Path, tmp_path: Path) -> None:
    other = make_run(
        tmp_path / "other",
        profile=make_profile(PROFILE.replace("p50_ms = 2.6", "p50_ms = 2.5")),
        facts=replace(make_facts(), disk_free_bytes=1, boot_id="later"),
    )
    assert compared(other, run) is Verdict.PASS


def test_a_release_without_a_dense_model_beside_it_is_not_compared(run: Path, tmp_path: Path) -> None:
    bundle = changed(make_bundle(make_manifest(tmp_path)), baseline=None)
    (tmp_path / "evidence.zip").write_bytes(pack_evidence(bundle))
    for ours, theirs in ((run, tmp_path), (tmp_path, run)):
        with pytest.raises(InputError, match="both campaigns must have measured the dense model in turn"):
            compared(ours, theirs)


def test_a_margin_finer_than_the_device_resolves_is_refused(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgeprune.steps.gates.smallest_resolvable", lambda *_: 0.08)
    with pytest.raises(InputError, match=r"5\.00% is finer than device n100-1 resolves: 8\.00% at p50"):
        compared(run, run)
    assert compared(run, run, margin=0.1) in {Verdict.PASS, Verdict.INCONCLUSIVE}


def test_a_device_that_was_not_calibrated_is_told(run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EDGEPRUNE_HOME", str(tmp_path / "home"))
    found = edgeprune.gate(run, baseline=run)
    (reason,) = (g.reason for g in found.gates if g.gate == "regression")
    assert "n100-1 was not calibrated in this state: whether it resolves 5.00% is not known" in reason
