from __future__ import annotations

import numpy as np
import pytest
import torch
from models import example_of, seeded
from torch import nn

from edgeprune.quantization.fake_quantization import FakeQuantization
from edgeprune.quantization.marks import marked_copy, marked_module, modules_in_float


@pytest.mark.parametrize("name", ["resnet", "separable", "transformer"])
def test_marked_copy_runs_as_any_model_and_the_model_is_left_alone(name: str) -> None:
    model, example = example_of(name)
    before = {n: t.clone() for n, t in model.state_dict().items()}
    marked, modules = marked_copy(model)
    with torch.no_grad():
        outputs = marked(example)
    assert bool(outputs.isfinite().all())
    assert 1e-3 < float(outputs.std()) < 1e3
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    with FakeQuantization(model) as rounding:
        model(example)
        model.train()(torch.cat([example, example]))
        assert tuple(rounding.ranges()) == modules


def test_marks_survive_what_converters_do_and_are_nobodys_where_they_are_mixed() -> None:
    marked, modules = marked_copy(seeded(lambda: nn.Sequential(*(nn.Linear(6, 4) for _ in range(3)))))
    first, second = (marked[i].weight.detach().numpy() for i in (0, 2))
    assert marked_module(first.T.reshape(2, 3, 4), modules) == "0"
    # A norm that was folded, and a query that is divided by the root of a head's width.
    assert marked_module(second * np.float32(1 / np.sqrt(1 + 1e-6)) / 8, modules) == "2"
    for weights in (np.concatenate([first, second]), first * 1.1, np.ones((2, 2)), np.zeros(3), np.zeros(0)):
        assert marked_module(weights, modules) is None


def test_a_module_is_in_float_where_all_of_it_is() -> None:
    model = seeded(lambda: nn.ModuleDict({"attention": nn.MultiheadAttention(6, 2), "head": nn.Linear(6, 2)}))
    marked, modules = marked_copy(model)
    packed, projection = (
        p.detach().numpy() for p in (marked["attention"].in_proj_weight, marked["attention"].out_proj.weight)
    )
    head = marked["head"].weight.detach().numpy()

    def found(*layers: tuple[np.ndarray, bool]) -> tuple[str, ...]:
        return modules_in_float(marked, modules, layers)

    assert found((packed, True), (projection, True), (head, False)) == ("attention",)
    assert found((packed, True), (projection, False), (head, True)) == ("head",)
    assert found((packed[6:], True), (packed[:6] * 0.7, False), (projection, True)) == ()
    assert found((packed, False), (projection, False), (head, True), (head, True)) == ("head",)
    assert found((head, True), (head, False)) == ()


def test_shared_weights_have_one_mark_and_attention_has_one_with_its_projection() -> None:
    attention = nn.MultiheadAttention(8, 2)
    model = seeded(lambda: nn.ModuleDict({"one": nn.Linear(4, 4), "other": nn.Linear(4, 4), "attention": attention}))
    model["other"].weight = model["one"].weight
    marked, modules = marked_copy(model)
    assert modules == ("one", "attention")
    packed, projection = (t.detach().numpy() for t in (marked["attention"].in_proj_weight, attention.out_proj.weight))
    assert marked_module(packed, modules) == "attention"
    assert marked_module(projection, modules) is None
    assert marked_module(marked["attention"].out_proj.weight.detach().numpy(), modules) == "attention"
