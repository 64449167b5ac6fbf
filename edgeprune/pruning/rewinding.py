"""Weights of an early step of the dense model's training, to go back to after a cut (lottery tickets).

Source: Frankle et al. 2020, "Linear Mode Connectivity and the Lottery Ticket Hypothesis", section 4, arXiv:1912.05671;
Renda, Frankle and Carbin 2020, "Comparing Rewinding and Fine-tuning in Neural Network Pruning", section 2,
arXiv:2003.02389.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeprune.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor, nn


class EarlyEnoughError(Exception):
    """Ends a training whose early weights are all that is wanted."""


class EarlyWeights:
    """Remembers a model's weights and statistics as they are after some step of its training.

    Args:
        model: that is about to be trained.
        step: of the optimizer, from 1; 0 for the weights before training.
        end: whether `after_step` raises `EarlyEnoughError` then.
    """

    def __init__(self, model: nn.Module, step: int, *, end: bool = False) -> None:
        self._model, self._step, self._end = model, step, end
        self._done = 0
        self._state = _copied(model) if step == 0 else None

    def after_step(self) -> None:
        """To be called after each step of the optimizer.

        Raises:
            EarlyEnoughError: the step is reached, and training is to end.
        """
        self._done += 1
        if self._done == self._step:
            self._state = _copied(self._model)
        if self._end and self._done >= self._step:
            raise EarlyEnoughError

    @property
    def state(self) -> dict[str, Tensor]:
        """The weights and statistics, as `state_dict` names them.

        Raises:
            InputError: training ended before that step.
        """
        if self._state is None:
            raise InputError(f"rewinding: expected at least {self._step} training steps, found {self._done}")
        return dict(self._state)


def _copied(model: nn.Module) -> dict[str, Tensor]:
    import torch

    return {
        name: value.detach().clone(memory_format=torch.contiguous_format) for name, value in model.state_dict().items()
    }
