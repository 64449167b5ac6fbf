"""How long the exact allocation takes, on synthetic problems of the size of known models.

    python tools/bench_allocation.py --choices 16

Latency is a staircase: steps of 8 input and 16 output channels, dearer off a multiple of 8, with noise on every entry,
so it is not monotone and dominated widths are few. Losses are convex in the share cut. The budget is a share of the
latency at full width; size and peak memory are limited as well, at a share that binds for some. On a busy machine look
at the seconds of processor time.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from time import process_time

import numpy as np

from edgeprune.planning.allocation import Allocation, allocate
from edgeprune.planning.allocation_problem import AllocationProblem, Block, Choice, Group, Step, Term, tabulate

FIXED = 3
"""The channels of an image are not cut."""


@dataclass(slots=True)
class Synthetic:
    """Collects the groups, operators and tensors of one model."""

    choices: int
    random: np.random.Generator
    groups: dict[str, Group] = field(default_factory=dict)
    terms: list[Term] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)

    def group(self, name: str, full: int, block: str | None = None) -> str:
        """Widths from an eighth of the full one up, evenly, in steps of 4; a loss of its own weight."""
        shares = np.linspace(1 / 8, 1, self.choices) if full > FIXED else [1]
        widths = sorted({min(full, max(1, round(full * share / 4) * 4)) for share in shares})
        weight = self.random.lognormal()
        losses = [weight * (1 - width / full) ** 1.7 * self.random.uniform(0.97, 1.03) for width in widths]
        choices = tuple(Choice(width=w, loss=loss) for w, loss in zip(widths, losses, strict=True))
        self.groups[name] = Group(name=name, choices=choices, block=block)
        return name

    def block(self, name: str) -> str:
        """One that can be removed."""
        self.blocks.append(Block(name=name, loss=float(self.random.lognormal(1.0))))
        return name

    def operator(self, ins: str, out: str, positions: int, kernel: int = 1, block: str | None = None) -> None:
        """An operator of the group `ins` to `out`, and the step at which the tensors of both live."""

        def weights(a: int, b: int) -> Mapping[str, float]:
            steps = -(-a // 8) * -(-b // 16) * (1 + 0.5 * (a % 8 > 0) + 0.5 * (b % 8 > 0))
            latency_ms = 1e-6 * positions * kernel**2 * steps * self.random.uniform(0.97, 1.03)
            return {
                "latency_ms": latency_ms,
                "size_bytes": float(a * b * kernel**2),
                "memory_bytes": float(a * b * kernel**2),
            }

        name = f"{ins}-{out}"
        self.terms.append(tabulate(name, [self.groups[ins], self.groups[out]], weights, block=block))
        live = {group: self._tensor(group, positions, block) for group in (ins, out)}
        self.steps.append(Step(name=name, terms=tuple(live.values())))

    def _tensor(self, group: str, positions: int, block: str | None) -> Term:
        return tabulate(group, [self.groups[group]], lambda w: {"memory_bytes": float(w * positions)}, block=block)

    def problem(self) -> AllocationProblem:
        """What was collected."""
        groups, blocks = tuple(self.groups.values()), tuple(self.blocks)
        return AllocationProblem(groups=groups, terms=tuple(self.terms), steps=tuple(self.steps), blocks=blocks)


def resnet20(model: Synthetic) -> None:
    """Three stages of three basic blocks; CIFAR-10."""
    before = model.group("image", 3)
    for stage, width in enumerate((16, 32, 64)):
        positions = (32 >> stage) ** 2
        trunk = model.group(f"stage{stage}", width)
        model.operator(before, trunk, positions, 3 if stage == 0 else 1)
        for i in range(3):
            block = model.block(f"block{stage}.{i}") if i else None
            inner = model.group(f"inner{stage}.{i}", width, block)
            model.operator(trunk, inner, positions, 3, block)
            model.operator(inner, trunk, positions, 3, block)
        before = trunk


def resnet50(model: Synthetic) -> None:
    """Stages of 3, 4, 6 and 3 bottlenecks; 224 pixels. All but the first of a stage can be removed."""
    before = model.group("stem", 64)
    for stage, (count, width) in enumerate(((3, 64), (4, 128), (6, 256), (3, 512))):
        positions = (56 >> stage) ** 2
        trunk = model.group(f"stage{stage}", 4 * width)
        model.operator(before, trunk, positions)
        for i in range(count):
            block = model.block(f"block{stage}.{i}") if i else None
            first = model.group(f"first{stage}.{i}", width, block)
            second = model.group(f"second{stage}.{i}", width, block)
            model.operator(trunk if i else before, first, positions, block=block)
            model.operator(first, second, positions, 3, block)
            model.operator(second, trunk, positions, block=block)
        before = trunk


def transformer(model: Synthetic) -> None:
    """Twelve layers of 12 heads, 3072 hidden features, 128 tokens; attention and feed-forward can each be removed."""
    width = model.group("embedding", 768)
    for layer in range(12):
        attention, forward = model.block(f"attention{layer}"), model.block(f"forward{layer}")
        heads = model.group(f"heads{layer}", 768, attention)
        for _ in range(3):
            model.operator(width, heads, 128, block=attention)
        model.operator(heads, width, 128, block=attention)
        hidden = model.group(f"hidden{layer}", 3072, forward)
        model.operator(width, hidden, 128, block=forward)
        model.operator(hidden, width, 128, block=forward)


def densenet(model: Synthetic) -> None:
    """Three dense blocks of six layers: each reads what all before it in the block made, each part for itself."""
    for stage in range(3):
        positions = (32 >> stage) ** 2
        parts = [model.group(f"entry{stage}", 64)]
        for layer in range(6):
            narrow = model.group(f"narrow{stage}.{layer}", 128)
            for part in parts:
                model.operator(part, narrow, positions)
            parts.append(model.group(f"grown{stage}.{layer}", 32))
            model.operator(narrow, parts[-1], positions, 3)


MODELS = {"resnet20": resnet20, "resnet50": resnet50, "transformer": transformer, "densenet": densenet}


def full_width(problem: AllocationProblem) -> dict[str, float]:
    """What the model uses without any cut."""
    found = allocate(problem, {})
    if not isinstance(found, Allocation):
        raise TypeError("without limits there is an allocation")
    return dict(found.used)


def run(name: str, choices: int, shares: Iterable[float], time_limit_s: float) -> None:
    """One line a budget."""
    model = Synthetic(choices, np.random.default_rng(0))
    MODELS[name](model)
    problem = model.problem()
    full = full_width(problem)
    for share in shares:
        limits = {
            "latency_ms": share * full["latency_ms"],
            "size_bytes": (share + 0.1) * full["size_bytes"],
            "memory_bytes": (share + 0.2) * full["memory_bytes"],
        }
        started = process_time()
        found = allocate(problem, limits, time_limit_s=time_limit_s)
        cpu_s = process_time() - started
        size = f"{name:12} {choices:3} {len(problem.groups):4} {len(problem.terms):5} {share:6.2f}"
        if isinstance(found, Allocation):
            used = " ".join(f"{found.used[resource] / limit:7.2%}" for resource, limit in limits.items())
            dropped = f"{len(found.dominated):7} {len(found.removed_blocks):7}"
            print(
                f"{size} {found.variables:9} {found.seconds:8.2f} {cpu_s:7.2f} {found.gap:9.1e} {dropped} {used}",
                flush=True,
            )
        else:
            print(f"{size} infeasible, proven: {found.proven}, {found.seconds:.2f} s", flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=sorted(MODELS), default=list(MODELS))
    parser.add_argument("--choices", type=int, nargs="+", default=[8, 16])
    parser.add_argument("--shares", type=float, nargs="+", default=[0.5, 0.25], help="budget over full width")
    parser.add_argument("--time-limit", type=float, default=60.0, help="seconds a search")
    arguments = parser.parse_args()
    figures = "variables  seconds   cpu s       gap dropped removed  latency    size  memory"
    print(f"{'model':12} wid grps terms budget {figures}")
    for name in arguments.models:
        for choices in arguments.choices:
            run(name, choices, arguments.shares, arguments.time_limit)


if __name__ == "__main__":
    main()
