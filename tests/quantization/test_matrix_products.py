"""What attention multiplies has its zero in the middle, so that XNNPACK takes the product."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from ai_edge_litert.interpreter import Interpreter
from hypothesis import given
from hypothesis import strategies as st
from models import example_of

from edgeprune.quantization.schemes import SCHEMES
from edgeprune.quantization.schemes._matrix_products import center_, second_operands
from edgeprune.quantization.schemes._tflite_graph import graphs_of
from edgeprune.records.artifact import TensorSpec
from edgeprune.runtimes import RUNTIMES

ends = st.floats(-1e4, 1e4, width=32)


@given(ends, ends)
def test_a_centred_range_holds_the_old_one_and_has_zero_point_0(one: float, other: float) -> None:
    low, high = sorted((one, other))
    before = {"min": np.array([[low]], np.float32), "max": np.array([[high]], np.float32), "count": 3}
    ranges = {"keys": before, "others": before}
    center_(ranges, ["keys", "no such tensor"])
    assert ranges["others"] is before
    found = ranges["keys"]
    assert found["count"] == 3
    assert found["min"] <= low
    assert found["max"] >= high
    scale = (float(found["max"][0, 0]) - float(found["min"][0, 0])) / 255
    if scale:
        assert round(-128 - float(found["min"][0, 0]) / scale) == 0


def test_xnnpack_takes_all_products_of_attention(tmp_path: Path) -> None:
    model, example = example_of("transformer")
    for name in ("float", "int8"):
        (tmp_path / name).mkdir()
    inputs = TensorSpec(name="input", shape=tuple(example.shape), dtype="float32")
    source = RUNTIMES.get("tflite").compile(model, inputs, tmp_path / "float")
    # Values are not centred: without care a zero point would be 0 by chance only.
    samples = 0.7 + torch.randn((16, *inputs.shape[1:]), generator=torch.Generator().manual_seed(3)).numpy()
    files = SCHEMES.get("ai_edge").quantize(source, samples, tmp_path / "int8")
    interpreter = Interpreter(str(files.folder / files.names[0]))
    interpreter.allocate_tensors()
    tensors = {d["index"]: d for d in interpreter.get_tensor_details()}
    products = [o for o in interpreter._get_ops_details() if o["op_name"] == "BATCH_MATMUL"]
    assert products
    assert {tensors[o["inputs"][1]]["quantization"][1] for o in products} == {0}
    assert {tensors[o["inputs"][1]]["name"] for o in products} <= second_operands(
        graphs_of(source.folder / source.names[0])
    )
    taken = {i for o in interpreter._get_ops_details() if o["op_name"] == "DELEGATE" for i in o["outputs"]}
    read = {i for o in interpreter._get_ops_details() if o["op_name"] == "DELEGATE" for i in o["inputs"]}
    # What a product writes and XNNPACK reads is written by XNNPACK itself, or never leaves it.
    assert not [o for o in products if set(o["outputs"]) & read - taken]
