"""How good a model is on validation data: what the best epoch is chosen by."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

EVALUATION_BATCH = 512
"""Examples a forward pass where nothing is learned."""


@dataclass(frozen=True, slots=True, eq=False)
class AccuracyOn:
    """Top-1 accuracy on fixed examples; a `Validate`.

    Attributes:
        inputs: [examples, ...], float32, preprocessed.
        labels: [examples], integers.
    """

    inputs: Tensor
    labels: Tensor

    def __call__(self, model: nn.Module) -> float:
        """The accuracy, in [0, 1]; the model is in eval mode afterwards."""
        return accuracy_of(model, self.inputs, self.labels)

    def told(self, quality: float) -> str:
        """An accuracy in percent."""
        return f"accuracy {100 * quality:.2f} %"


@torch.no_grad()
def accuracy_of(model: nn.Module, inputs: Tensor, labels: Tensor) -> float:
    """Share of examples whose largest output is their label's, in [0, 1]; in float32, and the model in eval mode."""
    model.eval()
    parts = zip(torch.split(inputs, EVALUATION_BATCH), torch.split(labels, EVALUATION_BATCH), strict=True)
    correct = sum(int((model(x).argmax(dim=1) == y).sum()) for x, y in parts)
    return correct / len(labels)
