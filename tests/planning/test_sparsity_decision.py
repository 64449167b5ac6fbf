from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from edgeprune.planning.sparsity import decide_patterns
from edgeprune.records.codec import from_json, to_json
from edgeprune.records.sparsity import GainStatus, SparsityGain, SparsityProbe


def probe(ratios: Mapping[tuple[str, float], float | None]) -> SparsityProbe:
    """By pattern and share, the ratio measured; None for one that was not."""

    def status(ratio: float | None) -> GainStatus:
        return GainStatus.NOT_MEASURED if ratio is None else GainStatus.GAIN if ratio > 1.05 else GainStatus.NONE

    gains = tuple(
        SparsityGain(pattern=p, share=s, status=status(r), ratio=r, reason=f"{s:.0%} {p}: {r}")
        for (p, s), r in ratios.items()
    )
    return SparsityProbe(
        device="cam1", fingerprint="f", runtime="tflite", runtime_version="2.3.0", threads=1, kind="pointwise-w64",
        compilers=(), dense_p50_ms=10.0, noise=1.01, rounds=3, gains=gains, taken_unix_s=0.0,
    )  # fmt: skip


def test_a_claim_that_is_borne_out_is_used_in_silence() -> None:
    taken = probe({("unstructured", 0.5): 1.0, ("unstructured", 0.7): 1.4, ("unstructured", 0.9): 3.0})
    (choice,) = decide_patterns("tflite", ["unstructured"], taken)
    assert choice.used
    assert choice.note == ""
    assert choice.least_share == 0.7
    assert choice.reason == "50% unstructured: 1.0; 70% is the least that gained"


def test_a_claim_that_is_not_borne_out_is_refused_loudly_with_the_figures_and_the_rule() -> None:
    taken = probe({("unstructured", 0.9): None, ("unstructured", 0.95): 1.0, ("2:4", 0.5): 1.01})
    choices = decide_patterns("tflite", ["unstructured", "2:4"], taken, ["on x86 CPUs with AVX XNNPACK is dense"])
    assert [(c.pattern, c.used, c.contradicted) for c in choices] == [
        ("unstructured", False, True),
        ("2:4", False, True),
    ]
    assert "runtimes.tflite.sparse_kernels of the profile claims 'unstructured'" in choices[0].note
    assert "95% unstructured: 1.0" in choices[0].note
    assert "on x86 CPUs with AVX XNNPACK is dense" in choices[0].note


def test_a_gain_that_nobody_claimed_is_used_and_said() -> None:
    (choice,) = decide_patterns("tflite", [], probe({("unstructured", 0.9): 3.0, ("2:4", 0.5): 1.0}))
    assert choice.used
    assert not choice.contradicted
    assert (
        "claims no sparse kernels for unstructured zeros, but the device has them: 90% unstructured: 3.0" in choice.note
    )
    assert "write sparse_kernels into runtimes.tflite" in choice.note


def test_a_gain_that_more_zeros_lose_again_is_none_below_the_loss() -> None:
    taken = probe({("unstructured", 0.7): 1.5, ("unstructured", 0.8): 1.0, ("unstructured", 0.9): 2.0})
    (choice,) = decide_patterns("tflite", ["unstructured"], taken)
    assert choice.least_share == 0.9


def test_a_disturbed_probe_contradicts_no_claim_that_seems_true() -> None:
    quiet = probe({("unstructured", 0.7): 1.0, ("unstructured", 0.9): 1.5, ("2:4", 0.5): 1.0})
    gains = tuple(replace(g, status=GainStatus.NONE) for g in quiet.gains)
    noisy = replace(quiet, gains=gains, disturbed="a neighbour")
    first, second = decide_patterns("tflite", ["unstructured", "2:4"], noisy)
    assert (first.used, first.least_share, first.note) == (True, 0.9, "")
    # No faster in most rounds either.
    assert second.contradicted
    # Nobody claimed it: then noise is no evidence.
    assert decide_patterns("tflite", [], noisy) == ()
    assert all(c.contradicted for c in decide_patterns("tflite", ["unstructured"], replace(noisy, disturbed="")))


def test_without_a_probe_a_claim_goes_on_to_the_whole_model() -> None:
    (choice,) = decide_patterns("tflite", ["2:4"], None)
    assert (choice.used, choice.least_share, choice.note) == (True, 0.0, "")
    assert decide_patterns("tflite", [], None) == ()


def test_a_probe_is_kept_as_it_is() -> None:
    taken = probe({("unstructured", 0.9): 3.0, ("2:4", 0.5): None})
    assert from_json(SparsityProbe, to_json(taken)) == taken


def test_blocks_have_rungs_where_they_are_claimed_and_else_a_hint_where_they_gain_more_than_single_zeros() -> None:
    """Single zeros cost less accuracy, and a rung that nothing speaks for costs a look at the device."""
    alike = {("unstructured", 0.9): 3.0, ("block4x1", 0.9): 3.1}
    assert [c.pattern for c in decide_patterns("tflite", [], probe(alike))] == ["unstructured"]
    claimed = decide_patterns("tflite", ["block4x1"], probe(alike))
    assert [(c.pattern, c.used) for c in claimed] == [("unstructured", True), ("block4x1", True)]
    _, hint = decide_patterns("tflite", [], probe({("unstructured", 0.9): 3.0, ("block4x1", 0.9): 3.2}))
    assert (hint.used, hint.contradicted) == (False, False)
    assert "as many single zeros gain 3.00x: add 'block4x1' to runtimes.tflite.sparse_kernels" in hint.note
    noise = probe({("unstructured", 0.9): 0.9, ("block4x1", 0.9): 1.0})
    assert [c.pattern for c in decide_patterns("tflite", [], noise)] == []


def test_a_claim_that_the_micro_models_cannot_hold_goes_on_to_the_whole_model() -> None:
    (choice,) = decide_patterns("tflite", ["3:5"], probe({("unstructured", 0.9): 1.0}))
    assert (choice.pattern, choice.used, choice.reason) == ("3:5", True, "not probed")


def test_any_pattern_that_gains_is_used_and_any_claim_answered() -> None:
    taken = probe({("1:4", 0.75): 3.0, ("block1x16", 0.9): 1.0})
    used, refused = decide_patterns("tflite", ["block1x16"], taken)
    assert (used.pattern, used.used) == ("1:4", True)
    assert refused.contradicted
