"""How fast `fit_` trains, beside a loop written by hand with the same settings.

    python tools/bench_training.py --rounds 20 --steps 10
    python tools/bench_training.py --cifar ../shared/data    # real images, with the target's crops and mirroring
    python tools/bench_training.py --target targets/digits --rounds 2 --steps 4    # another target's model and images

ResNet-20 at batch 128, channels-last, SGD with Nesterov momentum, cosine schedule, clipped gradients; bfloat16 where
the CPU multiplies it. Both ways take the same batches in turn, a round each, so that a busy neighbour meets both; the
first round of each is not counted. The ratio is the median over the rounds of hand-written seconds over those of
`fit_`, and its quartiles stand beside it: 0.95 and more is wanted. On a busy machine look at the ratio of CPU seconds,
which counts all that a call does, also before its first batch.
"""

from __future__ import annotations

import argparse
import copy
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from edgeprune.data.preprocessing import preprocess
from edgeprune.events import NullReporter
from edgeprune.recovery.finetune import Augment, FitSettings, bf16_is_fast, fit_
from edgeprune.recovery.losses import resolve_loss
from edgeprune.steps.inputs import Target, load_target

_TARGET = Path(__file__).resolve().parent.parent / "targets" / "cifar10-resnet20"
_BATCH = 128
_LEAST_RATIO = 0.95
_LEARNING_RATE, _MOMENTUM, _WEIGHT_DECAY, _CLIP_NORM = 0.01, 0.9, 1e-4, 5.0


def hand_written_epoch(
    model: nn.Module, inputs: Tensor, labels: Tensor, augment: Augment | None, *, bf16: bool
) -> float:
    """One epoch as a person would write it; the seconds of its batches, without what is made before them."""
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    model.train()
    decayed = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() <= 1]
    groups = [{"params": decayed, "weight_decay": _WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=_LEARNING_RATE, momentum=_MOMENTUM, nesterov=True)
    generator = torch.Generator().manual_seed(0)
    steps = len(inputs) // _BATCH
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * step / steps)))
    start = time.perf_counter()
    total = 0.0
    for chosen in torch.split(torch.randperm(len(inputs), generator=generator), _BATCH):
        batch = inputs[chosen]
        if augment is not None:
            batch = augment(batch, generator)
        batch = batch.contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            outputs = model(batch)
        loss = functional.cross_entropy(outputs.float(), labels[chosen])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), _CLIP_NORM)
        optimizer.step()
        schedule.step()
        total += loss.item()
    return time.perf_counter() - start


def trainer_epoch(model: nn.Module, inputs: Tensor, labels: Tensor, augment: Augment | None, *, bf16: bool) -> float:
    """The same epoch by `fit_`; the seconds that it tells."""
    settings = FitSettings(
        epochs=1,
        learning_rate=_LEARNING_RATE,
        loss=resolve_loss("cross_entropy"),
        momentum=_MOMENTUM,
        weight_decay=_WEIGHT_DECAY,
        batch_size=_BATCH,
        augment=augment,
        bf16=bf16,
        clip_norm=_CLIP_NORM,
    )
    return fit_(model, inputs, labels, settings, reporter=NullReporter(), stage="train").epochs[0].seconds


def noise(count: int) -> tuple[Tensor, Tensor, None]:
    """Of CIFAR-10's shape, nothing augmented."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(count, 3, 32, 32, generator=generator)
    return inputs, torch.randint(0, 10, (count,), generator=generator), None


def examples(target: Target, count: int) -> tuple[Tensor, Tensor, Augment | None]:
    """Training examples of a target as it feeds them, at most so many, and its augmentation."""
    train, augment = target.load_data().train, target.spec.training.augment
    chosen = np.random.default_rng(0).permutation(len(train))[:count]
    inputs = torch.from_numpy(preprocess(train.inputs[chosen], target.spec.preprocessing))
    labels = torch.from_numpy(np.asarray(train.labels)[chosen])
    return inputs, labels, target.function(augment, key="training.augment") if augment else None


def main(argv: Sequence[str] | None = None) -> int:
    """Time both and print the ratio; 1 where the throughput is more than 5 % lower."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cifar", type=Path, help="folder with cifar10/; without it ResNet-20's images are noise")
    parser.add_argument("--target", type=Path, default=_TARGET, help="another one, with data of its own")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=10, help="batches a round")
    parser.add_argument("--threads", type=int, help="of torch")
    chosen = parser.parse_args(argv)
    if chosen.threads:
        torch.set_num_threads(chosen.threads)
    if chosen.cifar is not None:
        os.environ["EDGEPRUNE_DATA"] = str(chosen.cifar.resolve())
    target, count = load_target(chosen.target), chosen.steps * _BATCH
    has_data = chosen.cifar is not None or chosen.target != _TARGET
    inputs, labels, augment = examples(target, count) if has_data else noise(count)
    model, bf16 = target.build_model(), bf16_is_fast()
    ways: dict[str, Callable[..., float]] = {"hand-written": hand_written_epoch, "fit_": trainer_epoch}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    cpu_seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(chosen.rounds + 1):
        # Who goes first changes, so that a slow drift of the machine meets both.
        for name in sorted(ways, reverse=bool(number % 2)):
            fresh, before = copy.deepcopy(model), time.process_time()
            taken = ways[name](fresh, inputs, labels, augment, bf16=bf16)
            if number:
                seconds[name].append(taken)
                cpu_seconds[name].append(time.process_time() - before)
    for name, rounds in seconds.items():
        rate = len(inputs) / statistics.median(rounds)
        print(f"{name:>12}: {rate:7.0f} images/s; rounds of {min(rounds):.3f} to {max(rounds):.3f} s")
    print(f"bf16 {'on' if bf16 else 'off'}, {torch.get_num_threads()} threads; throughput of fit_ / hand-written:")
    medians: dict[str, float] = {}
    for clock, rounds_of in (("seconds", seconds), ("CPU seconds", cpu_seconds)):
        ratios = [by_hand / ours for by_hand, ours in zip(*rounds_of.values(), strict=True)]
        low, ratio, high = statistics.quantiles(ratios, n=4, method="inclusive")
        print(f"{clock:>12}: {ratio:.3f} (quartiles {low:.3f} to {high:.3f})")
        medians[clock] = ratio
    return int(medians["seconds"] < _LEAST_RATIO)


if __name__ == "__main__":
    sys.exit(main())
