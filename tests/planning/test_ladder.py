from __future__ import annotations

from typing import Any

from edgeprune.planning.ladder import PRECISION_COST, accuracy_cost, make_ladder, structured_cost
from edgeprune.planning.sparsity import MaskChoice
from edgeprune.records.rung import Precision, PruningKind
from edgeprune.schema.base import parse_toml
from edgeprune.schema.compression import Pruning
from edgeprune.schema.profile import DeviceProfile

F32, W16, BF16, INT8 = Precision.FLOAT32, Precision.FLOAT32_W16, Precision.BF16, Precision.INT8


def profile(runtimes: str, threads: str = "[1]", budget: str = "p50_ms = 1.0") -> DeviceProfile:
    text = f'schema = 1\nname = "x"\nthreads = {threads}\n[hardware]\narch = "any"\ncores = 4\n{runtimes}\n'
    return parse_toml(f"{text}[budget]\n{budget}", DeviceProfile, where="x.toml")


def pruning(**changes: Any) -> Pruning:
    return Pruning(**{"ratios": (0.25, 0.5), "sparsities": (0.7,), **changes})


def test_rungs_come_in_order_of_accuracy_cost() -> None:
    ladder = make_ladder(
        profile("[runtimes.openvino]\n[runtimes.tflite]"),
        pruning(),
        {"openvino": (F32, BF16, INT8), "tflite": (F32, INT8)},
        can_cut=True,
    )
    names = [r.name for r in ladder.rungs]
    assert names == [
        "openvino-float32-t1", "tflite-float32-t1", "openvino-bf16-t1", "openvino-int8-t1", "tflite-int8-t1"
    ]  # fmt: skip
    assert [p.name for p in ladder.places] == ["openvino-int8-t1", "tflite-int8-t1"]
    assert [p.name for p in ladder.finer_places] == ["openvino-float32-t1", "openvino-bf16-t1", "tflite-float32-t1"]
    assert [accuracy_cost(r) for r in ladder.rungs] == sorted(accuracy_cost(r) for r in ladder.rungs)


def test_weights_of_16_bits_are_a_rung_where_the_size_is_limited_and_nothing_changes_elsewhere() -> None:
    runtimes, sized = "[runtimes.openvino]\nint8 = false\n[runtimes.tflite]", "p50_ms = 1.0\nartifact_mb = 1.0"
    without = {"openvino": (F32, BF16, INT8), "tflite": (F32, INT8)}
    offered = {"openvino": (F32, W16, BF16, INT8), "tflite": (F32, W16, INT8)}
    plain = make_ladder(profile(runtimes), pruning(), without, can_cut=True, masks=[mask("2:4")])
    assert make_ladder(profile(runtimes), pruning(), offered, can_cut=True, masks=[mask("2:4")]) == plain
    limited = make_ladder(profile(runtimes, budget=sized), pruning(), offered, can_cut=True, masks=[mask("2:4")])
    assert [r.name for r in limited.rungs if r not in plain.rungs] == ["openvino-float32w16-t1", "tflite-float32w16-t1"]
    # Right after float32: it rounds weights alone, and less than bf16 does.
    assert list(dict.fromkeys(r.precision for r in limited.rungs if not r.masked)) == [F32, W16, BF16, INT8]
    # Where widths are searched for is known once float32 was measured.
    assert (limited.places, limited.finer_places) == (plain.places, plain.finer_places)


def mask(pattern: str, **changes: Any) -> MaskChoice:
    return MaskChoice(**{"runtime": "tflite", "pattern": pattern, "used": True, "reason": "shown", **changes})


def test_zeros_are_tried_only_where_the_device_showed_a_gain() -> None:
    # Whatever the profile claims: a claim is no measurement.
    runtimes = {"tflite": (F32, INT8), "openvino": (F32,)}
    declared = profile('[runtimes.tflite]\nsparse_kernels = ["unstructured", "2:4"]\n[runtimes.openvino]')
    plain = make_ladder(declared, pruning(), runtimes, can_cut=True)
    assert {r.pruning for r in plain.rungs} == {PruningKind.NONE}
    shown = [mask("unstructured"), mask("2:4"), mask("block4x1")]
    masked = [r for r in make_ladder(declared, pruning(), runtimes, can_cut=True, masks=shown).rungs if r.masked]
    names = ["tflite-float32-t1-nm2of4", "tflite-float32-t1-unstructured70", "tflite-float32-t1-block4x1-70"]
    assert [r.name for r in masked] == names


def test_a_hint_has_no_rungs_and_a_contradicted_claim_refused_ones() -> None:
    for contradicted, refused in ((False, 0), (True, 1)):
        told = mask("block4x1", used=False, contradicted=contradicted)
        ladder = make_ladder(profile("[runtimes.tflite]"), pruning(), {"tflite": (F32,)}, can_cut=True, masks=[told])
        assert not [r for r in ladder.rungs if r.masked]
        assert len([r for r in ladder.refused if r.rung.masked]) == refused


def test_rungs_below_the_least_share_that_gained_are_refused_with_the_figures() -> None:
    shown = [mask("unstructured", least_share=0.8, reason="70% zeros: 1.00x")]
    spec = pruning(sparsities=(0.5, 0.7, 0.8, 0.9))
    ladder = make_ladder(profile("[runtimes.tflite]"), spec, {"tflite": (F32,)}, can_cut=True, masks=shown)
    assert [r.pruning_ratio for r in ladder.rungs if r.masked] == [0.8, 0.9]
    refused = [(r.rung.pruning_ratio, r.reason) for r in ladder.refused if r.rung.masked]
    assert refused == [(0.5, "70% zeros: 1.00x"), (0.7, "70% zeros: 1.00x")]


def test_a_contradicted_claim_refuses_all_its_rungs() -> None:
    shown = [mask("unstructured", used=False, reason="not borne out", contradicted=True)]
    ladder = make_ladder(profile("[runtimes.tflite]"), pruning(), {"tflite": (F32,)}, can_cut=True, masks=shown)
    assert not any(r.masked for r in ladder.rungs)
    assert [r.reason for r in ladder.refused] == ["not borne out"]


def test_without_int8_the_structured_rungs_are_float() -> None:
    ladder = make_ladder(profile("[runtimes.tflite]\nint8 = false"), pruning(), {"tflite": (F32, INT8)}, can_cut=True)
    assert {r.precision for r in (*ladder.rungs, *ladder.places)} == {F32}
    assert [r.reason for r in ladder.refused] == ["runtimes.tflite.int8 = false in the profile"]


def test_a_structured_rung_costs_by_what_its_widths_lose() -> None:
    losses = (0.0, 0.1, 2.0, None)
    costs = [structured_cost(INT8, loss) for loss in losses]
    assert costs == sorted(set(costs))
    assert all(cost > PRECISION_COST[INT8] + 1 for cost in costs)
    assert structured_cost(F32, 0.1) < structured_cost(INT8, 0.1)


def test_every_thread_count_is_a_rung() -> None:
    ladder = make_ladder(profile("[runtimes.tflite]", "[1, 4]"), pruning(), {"tflite": (F32,)}, can_cut=False)
    assert ladder.places == ()
    assert [r.name for r in ladder.rungs] == ["tflite-float32-t1", "tflite-float32-t4"]


def test_names_are_unique() -> None:
    masks = [mask("unstructured"), mask("2:4"), mask("4:8")]
    plain = profile("[runtimes.tflite]", "[1, 2]")
    names = [r.name for r in make_ladder(plain, pruning(), {"tflite": (F32, INT8)}, can_cut=True, masks=masks).rungs]
    assert "tflite-float32-t2-nm4of8" in names
    assert len(names) == len(set(names))
