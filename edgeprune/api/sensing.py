"""How much a model minds losing channels: a part of a build that is asked for alone."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from edgeprune.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from edgeprune.data.parts import Tensors
    from edgeprune.protocols import Arrays, ScoringData
    from edgeprune.records.sensitivity import Sensitivity
    from edgeprune.recovery.losses import Loss


def sensitivity(
    model: nn.Module,
    inputs: np.ndarray | Tensor,
    labels: Arrays | Tensors,
    *,
    criterion: str = "l2",
    ratios: Sequence[float] = (0.25, 0.5, 0.75),
    data: ScoringData | None = None,
    loss: Loss | None = None,
    metric: str = "accuracy",
    ignored: Sequence[str] = (),
) -> Sensitivity:
    """Take one group's channels or one residual block from a model, and see what validation data say; train nothing.

    Args:
        model: dense; left alone.
        inputs: [examples, ...] of the validation split, preprocessed.
        labels: of the same examples.
        criterion: which channels go first; a file of `edgeprune/pruning/criteria` that scores channels.
        ratios: shares of a group's channels to take out, each in (0, 1).
        data: training data: for criteria that look at data, and to re-estimate batch norms by after each cut. Without,
            these keep the whole model's statistics, and the curves show how far they are off as well.
        loss: of (outputs, labels), a mean over the examples; None for cross entropy.
        metric: what stands as `accuracy` in the points; a file of `edgeprune/data/metrics`.
        ignored: layers that keep their width; `*` is a wildcard.

    Returns:
        A curve of loss and accuracy against width for each group that can be cut and scored, and a point for each
        block that can go.

    Raises:
        InputError: a name or a ratio that there is none of, data that do not fit, or a criterion without its data.
        BuildError: the model cannot be traced, or the criterion scores single weights only.
    """
    import numpy as np
    import torch

    from edgeprune.data.metrics import METRICS
    from edgeprune.data.parts import mapped
    from edgeprune.recovery.batchnorm import reestimate_
    from edgeprune.recovery.losses import OwnLoss, resolve_loss
    from edgeprune.steps.cut_losses import CutLosses, curves_of
    from edgeprune.steps.task import Task

    if not all(0 < ratio < 1 for ratio in ratios):
        raise InputError(f"ratios: expected numbers between 0 and 1, got {list(ratios)}")
    settling = torch.cat([batch for batch, _ in data.batches]) if data is not None else None
    losses = CutLosses(
        model=model,
        inputs=np.asarray(inputs),
        labels=mapped(np.asarray, labels),
        loss=OwnLoss(loss) if loss else resolve_loss("cross_entropy"),
        accuracy=Task(metric, METRICS.get(metric), (), "metric").value,
        settle_=partial(reestimate_, inputs=settling) if settling is not None else lambda _: None,
    )
    return curves_of(losses, criterion, ratios, data=data, ignored=ignored)
