"""The learning rate over a training."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

RateKind = Literal["cosine", "linear", "constant", "steps"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RateSchedule:
    """Share of the peak learning rate at each step, after a linear rise over the first twentieth of them.

    Attributes:
        kind: `cosine` and `linear` fall towards 0, `constant` stays, `steps` falls at the milestones.
        milestones: for `steps`: shares of all steps in (0, 1), ascending, at which the rate falls.
        decay: for `steps`: what the rate is multiplied by at each.
        start: where in the schedule the first step is, as a share of it in [0, 1): a training that goes on from there
            takes the rates that are left.
    """

    kind: RateKind = "cosine"
    milestones: tuple[float, ...] = (0.5, 0.75)
    decay: float = 0.1
    start: float = 0.0

    def factor(self, step: int, total: int) -> float:
        """The share at a step from 0 of `total`, in (0, 1].

        Source of the cosine: Loshchilov and Hutter 2017, "SGDR", equation 5 with one period, arXiv:1608.03983; of
        `start`: Renda, Frankle and Carbin 2020, "Comparing Rewinding and Fine-tuning in Neural Network Pruning",
        section 2 (learning rate rewinding), arXiv:2003.02389.
        """
        whole = round(total / (1 - self.start))
        step, total = step + whole - total, whole
        warm_up = max(1, total // 20)
        if step < warm_up:
            return (step + 1) / warm_up
        progress = (step - warm_up + 1) / max(1, total - warm_up + 1)
        match self.kind:
            case "cosine":
                return 0.5 * (1 + math.cos(math.pi * progress))
            case "linear":
                return 1 - progress
            case "constant":
                return 1.0
            case "steps":
                return float(self.decay ** sum(step >= share * total for share in self.milestones))
