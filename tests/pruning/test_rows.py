"""What layers multiply their weights by: the outputs are products of rows and weights, for every kind of layer."""

from __future__ import annotations

import pytest
import torch
from models import seeded
from torch import nn

from edgeprune.graph.slicing import output_first
from edgeprune.pruning.rows import input_rows, output_rows

LAYERS = {
    "plain": lambda: nn.Conv2d(4, 6, 3, padding=1),
    "strided": lambda: nn.Conv2d(4, 6, (3, 2), stride=(2, 1), dilation=(1, 2), groups=2),
    "same": lambda: nn.Conv2d(4, 4, 4, padding="same", groups=4),
    "circular": lambda: nn.Conv2d(4, 2, 3, padding=1, padding_mode="circular"),
    "transposed": lambda: nn.ConvTranspose2d(4, 6, 2, stride=2),
    "transposed far apart": lambda: nn.ConvTranspose2d(4, 6, 3, stride=(4, 2), output_padding=(2, 1), groups=2),
    "transposed and cropped": lambda: nn.ConvTranspose2d(4, 6, (3, 1), stride=2, padding=(2, 1), dilation=(2, 1)),
    "linear": lambda: nn.Linear(5, 3),
}


@pytest.mark.parametrize("name", LAYERS)
def test_outputs_are_products_of_rows_and_weights(name: str) -> None:
    layer = seeded(LAYERS[name])
    assert isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)
    given = torch.randn(2, 4, 6, 5, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        outputs = layer(given)
        some = torch.tensor([0, 3, outputs.numel() // outputs.shape[-1 if name == "linear" else 1] - 1])
        for chosen in (None, some):
            rows = input_rows(layer, given, outputs, chosen)
            weight = torch.unflatten(output_first(layer, layer.weight).flatten(1), 0, (rows.shape[1], -1))
            made = torch.einsum("rgi,goi->rgo", rows, weight).flatten(1) + layer.bias
            torch.testing.assert_close(made, output_rows(layer, outputs, chosen), rtol=1e-4, atol=1e-5)


def test_a_transposed_convolution_may_be_asked_for_a_size() -> None:
    layer = nn.ConvTranspose1d(2, 3, 3, stride=3, bias=False)
    given = torch.randn(2, 2, 4, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        outputs = layer(given, output_size=(14,))
        rows = input_rows(layer, given, outputs)
        made = rows[:, 0] @ output_first(layer, layer.weight).flatten(1).T
        torch.testing.assert_close(made, output_rows(layer, outputs))
