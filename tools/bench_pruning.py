"""How long pruning takes: 30 % of ResNet-50's channels by every data-free criterion, and scoring over its passes.

    python tools/bench_pruning.py --rounds 5
    python tools/bench_pruning.py --rounds 1 --model resnet20 --criteria l2 taylor    # a slice, in seconds

The first table has the seconds of `structured_prune` on a ResNet-50 of `transformers` with drawn weights: tracing,
scoring and surgery, all criteria in turn in each round; the best of the rounds must be under 5 s. The second has the
cost of scoring a ResNet-20 on batches of 64 images of 32x32, over that of the bare passes over the same batches:
forward and backward. Both are timed in turn in each round, in CPU seconds of one thread, which neighbours disturb
least; the median ratio must be at most 1.5. Exits with 1 where a limit is not held.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import torch
from cost_model_nets import resnet20
from torch import Tensor, nn
from torch.nn import functional

from edgeprune.graph.groups import ChannelGraph
from edgeprune.protocols import Granularity, ScoringData, ScoringTask
from edgeprune.pruning.criteria import CRITERIA
from edgeprune.pruning.selection import Room, uniform_widths
from edgeprune.pruning.surgery import structured_prune

MOST_S: Final = 5.0
MOST_RATIO: Final = 1.5
_RATIO_OUT = 0.3
_BATCHES = 4
_EPOCHS = {"hard_concrete": 100 // _BATCHES}
"""Passes over the data that a criterion makes, where it is more than one."""


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


MODELS: Mapping[str, Callable[[], nn.Module]] = {"resnet50": resnet50, "resnet20": resnet20}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What is asked for; `model` is whose channels are cut."""

    rounds: int
    model: str
    criteria: Sequence[str]


def seconds(call: Callable[[], object]) -> float:
    """Wall-clock time of a call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def time_surgery(options: Options) -> bool:
    """Print the seconds of each data-free criterion; whether all are under the limit."""
    model, example = MODELS[options.model](), torch.zeros(1, 3, 64, 64)
    graph = ChannelGraph(model, example)
    # The last is the classifier.
    widths = uniform_widths({root: Room(width=graph.width(root)) for root in graph.roots()[:-1]}, _RATIO_OUT)
    names = [
        n for n in options.criteria if not (c := CRITERIA.get(n)).needs_data and c.granularities - {Granularity.WEIGHT}
    ]
    taken: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(options.rounds):
        for name in names:
            criterion = CRITERIA.get(name)
            taken[name].append(seconds(partial(structured_prune, model, example, widths, criterion)))
    print(
        f"{options.model}, {len(widths)} groups, {_RATIO_OUT:.0%} of the channels out: "
        f"best and median of {options.rounds}"
    )
    for name, each in taken.items():
        print(f"  {name:18s} {min(each):6.2f} s {statistics.median(each):6.2f} s")
    return all(min(each) <= MOST_S for each in taken.values())


def cpu_seconds(call: Callable[[], object]) -> float:
    """Processor time of a call."""
    start = time.process_time()
    call()
    return time.process_time() - start


def bare_passes(model: nn.Module, data: ScoringData) -> None:
    """Forward and backward over the data, and nothing else."""
    weights = [p for p in model.parameters() if p.requires_grad]
    for inputs, labels in data.batches:
        torch.autograd.grad(data.loss(model(inputs), labels), weights)


def time_scoring(options: Options) -> bool:
    """Print each criterion's cost over its passes'; whether all are under the limit."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = resnet20().eval()
    batches = tuple((torch.randn(64, 3, 32, 32), torch.randint(0, 10, (64,))) for _ in range(_BATCHES))
    data = ScoringData(batches=batches, loss=functional.cross_entropy)
    layers = tuple(n for n, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear | nn.BatchNorm2d))
    print(
        f"resnet20, {_BATCHES} batches of 64: scoring over forward and backward passes, "
        f"median and worst of {options.rounds}"
    )
    held = True
    for name in (n for n in options.criteria if CRITERIA.get(n).needs_data):
        for granularity in sorted(CRITERIA.get(name).granularities):
            ratios = []
            for _ in range(options.rounds):
                task = ScoringTask(model=model, layers=layers, granularity=granularity, data=data)
                bare_s = cpu_seconds(partial(bare_passes, model, data)) * _EPOCHS.get(name, 1)
                ratios.append(cpu_seconds(partial(CRITERIA.get(name).score, task)) / bare_s)
            held = held and statistics.median(ratios) <= MOST_RATIO
            print(f"  {name:18s} {granularity:15s} {statistics.median(ratios):5.2f} {max(ratios):5.2f}", flush=True)
    return held


def main(argv: Sequence[str] | None = None) -> int:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=["surgery", "scoring"])
    parser.add_argument("--model", choices=list(MODELS), default="resnet50", help="of the surgery")
    parser.add_argument("--criteria", nargs="+", choices=CRITERIA.names(), default=CRITERIA.names())
    arguments = parser.parse_args(argv)
    options = Options(rounds=arguments.rounds, model=arguments.model, criteria=arguments.criteria)
    held = [
        run(options)
        for name, run in (("surgery", time_surgery), ("scoring", time_scoring))
        if arguments.only in {None, name}
    ]
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
