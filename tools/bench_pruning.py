"""How long pruning takes: 30 % of ResNet-50's channels by every data-free criterion, and scoring over its passes.

    python tools/bench_pruning.py --rounds 5

The first table has the seconds of `structured_prune` on a ResNet-50 of `transformers` with drawn weights: tracing,
scoring and surgery, all criteria in turn in each round; the best of the rounds must be under 5 s. The second has the
cost of scoring a ResNet-20 on batches of 64 images of 32x32, over that of the bare passes over the same batches:
forward and backward, forward alone for criteria that need no gradient. Both are timed in turn in each round, and the
median ratio must be at most 1.5. What a criterion does once, however many batches there are, is told apart: factorising
the Hessians takes no more time for more data. Exits with 1 where a limit is not held.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from typing import Final

import torch
from cost_model_nets import resnet20
from torch import Tensor, nn
from torch.nn import functional

from edgeprune.graph.groups import ChannelGraph
from edgeprune.protocols import Granularity, ScoringData, ScoringTask
from edgeprune.pruning.criteria import CRITERIA
from edgeprune.pruning.selection import uniform_widths
from edgeprune.pruning.surgery import structured_prune

MOST_S: Final = 5.0
MOST_RATIO: Final = 1.5
_RATIO_OUT = 0.3
_BATCHES = 4
_FORWARD_ONLY = frozenset({"activation_mean", "activation_zeros", "obc"})
_STEPS = {"hard_concrete": 100 // _BATCHES}


class Logits(nn.Module):
    """A model of `transformers` that returns its logits alone."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """[batch, 3, height, width] to logits [batch, classes]."""
        logits: Tensor = self.model(images).logits
        return logits


def resnet50() -> nn.Module:
    """With drawn weights and norms."""
    from transformers import ResNetConfig, ResNetForImageClassification

    torch.manual_seed(0)
    model = Logits(ResNetForImageClassification(ResNetConfig())).eval()
    for norm in (m for m in model.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.weight.data.uniform_(0.5, 1.5)
    return model


def seconds(call: Callable[[], object]) -> float:
    """Wall-clock time of a call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def time_surgery(rounds: int) -> bool:
    """Print the seconds of each data-free criterion; whether all are under the limit."""
    model, example = resnet50(), torch.zeros(1, 3, 64, 64)
    graph = ChannelGraph(model, example)
    # The last is the classifier.
    widths = uniform_widths({root: graph.width(root) for root in graph.roots()[:-1]}, _RATIO_OUT)
    names = [
        n for n in CRITERIA.names() if not (c := CRITERIA.get(n)).needs_data and c.granularities - {Granularity.WEIGHT}
    ]
    taken: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            criterion = CRITERIA.get(name)
            taken[name].append(seconds(lambda c=criterion: structured_prune(model, example, widths, c)))
    print(f"ResNet-50, {len(widths)} groups, {_RATIO_OUT:.0%} of the channels out: best and median of {rounds}")
    for name, each in taken.items():
        print(f"  {name:18s} {min(each):6.2f} s {statistics.median(each):6.2f} s")
    return all(min(each) <= MOST_S for each in taken.values())


def bare_pass(model: nn.Module, data: ScoringData, *, backward: bool, times: int) -> None:
    """The passes over the data and nothing else."""
    weights = [p for p in model.parameters() if p.requires_grad]
    for inputs, labels in data.batches * times:
        with torch.set_grad_enabled(backward):
            loss = data.loss(model(inputs), labels)
            if backward:
                torch.autograd.grad(loss, weights)


def time_scoring(rounds: int) -> bool:
    """Print each criterion's cost over its passes'; whether all are under the limit."""
    torch.manual_seed(0)
    model = resnet20().eval()
    batches = tuple((torch.randn(64, 3, 32, 32), torch.randint(0, 10, (64,))) for _ in range(_BATCHES))
    data = ScoringData(batches=batches, loss=functional.cross_entropy)
    once = ScoringData(batches=((batches[0][0][:1], batches[0][1][:1]),), loss=data.loss)
    layers = tuple(n for n, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear | nn.BatchNorm2d))
    print(f"ResNet-20, {_BATCHES} batches of 64: scoring over bare passes, median of {rounds}; what is done once, in s")
    held = True
    for name in (n for n in CRITERIA.names() if CRITERIA.get(n).needs_data):
        for granularity in sorted(CRITERIA.get(name).granularities):
            ratios, fixed_s = [], []
            for _ in range(rounds):
                task = ScoringTask(model=model, layers=layers, granularity=granularity, data=data)
                small = ScoringTask(model=model, layers=layers, granularity=granularity, data=once)
                backward, times = name not in _FORWARD_ONLY, _STEPS.get(name, 1)
                bare_s = seconds(lambda b=backward, t=times: bare_pass(model, data, backward=b, times=t))
                scoring_s = seconds(lambda n=name, t=task: CRITERIA.get(n).score(t))
                fixed_s.append(0.0 if times > 1 else seconds(lambda n=name, t=small: CRITERIA.get(n).score(t)))
                ratios.append((scoring_s - fixed_s[-1]) / bare_s)
            ratio = statistics.median(ratios)
            held = held and ratio <= MOST_RATIO
            print(f"  {name:18s} {granularity:15s} {ratio:5.2f} {statistics.median(fixed_s):7.3f}")
    return held


def main() -> int:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=["surgery", "scoring"])
    arguments = parser.parse_args()
    held = [
        run(arguments.rounds)
        for name, run in (("surgery", time_surgery), ("scoring", time_scoring))
        if arguments.only in {None, name}
    ]
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
