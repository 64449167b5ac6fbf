"""The methods of `bench_planner.py`: each finds a shape whose untrained model is measured to meet a limit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
from bench_parts import millions_of_macs
from planner_contest import Contest

from edgeprune.planning.allocation import Allocation, allocate, cheapest
from edgeprune.planning.allocation_problem import Block, Choice, Configuration
from edgeprune.planning.cost import CostModel
from edgeprune.planning.feasibility import HEADROOM
from edgeprune.planning.shape_problem import LATENCY, ShapeProblem
from edgeprune.records.operators import OperatorUse
from edgeprune.records.rung import Limits, RungStatus, kept_widths

if TYPE_CHECKING:
    from torch import Tensor, nn

_LOTS = 12
_NEAR = 0.93
_ROUND_TO = 8


def planner(contest: Contest, limit_ms: float) -> Configuration | None:
    """This project's."""
    narrow = contest.narrower.fastest_admissible(contest.whole.rung)
    # It takes the headroom off itself.
    head = contest.narrower.plan(contest.whole, narrow, Limits(p50_ms=limit_ms / HEADROOM))[0]
    if head.status is not RungStatus.PLANNED:
        return None
    return Configuration(widths=kept_widths(head.widths), removed_blocks=frozenset(head.removed_blocks))


def full_widths(contest: Contest, limit_ms: float) -> Configuration | None:
    """The precision alone: nothing is cut."""
    whole = Configuration(widths=contest.model.full)
    return whole if contest.measure(whole, limit_ms) <= limit_ms else None


def uniform(contest: Contest, limit_ms: float) -> Configuration | None:
    """The same share of every group."""
    full = contest.model.full
    return contest.weakest(
        lambda strength: contest.widths({g: w * (1 - contest.most * strength) for g, w in full.items()}), limit_ms
    )


def magnitude(contest: Contest, limit_ms: float) -> Configuration | None:
    """torch-pruning's global L2 magnitude, widths rounded to multiples of 8."""
    ranked = group_magnitudes(contest.bench.fresh_model().eval(), contest.bench.example, contest.model.uses)
    full = contest.model.full
    return contest.weakest(lambda strength: contest.widths({**full, **magnitude_widths(ranked, strength)}), limit_ms)


def group_magnitudes(model: nn.Module, example: Tensor, uses: tuple[OperatorUse, ...]) -> dict[str, np.ndarray]:
    """[width] by group: torch-pruning's importance of each channel, over all layers that it goes through."""
    import torch_pruning
    from torch import nn

    kinds = (nn.Conv2d, nn.Conv1d, nn.Linear)
    made_by = {use.layer: use.out_parts[0].group for use in uses if use.out_parts}
    layers = {module: name for name, module in model.named_modules() if isinstance(module, kinds)}
    graph = torch_pruning.DependencyGraph().build_dependency(model, example_inputs=example)
    importance = torch_pruning.importance.GroupMagnitudeImportance(p=2)
    kept = [module for module, name in layers.items() if name not in made_by]
    found: dict[str, np.ndarray] = {}
    for group in graph.get_all_groups(ignored_layers=kept, root_module_types=list(kinds)):
        name = made_by[layers[group[0].dep.target.module]]
        found[name] = importance(group).detach().numpy()
    return found


def magnitude_widths(importances: Mapping[str, np.ndarray], ratio: float) -> dict[str, float]:
    """What is left of each group when this share of all channels goes, the least important first.

    Rounded as torch-pruning's `round_to` does, fewer channels going than more; but a group that would lose all of its
    channels is the caller's to clip. torch-pruning (1.6.1) leaves it as it is, so that stronger pruning cuts less.
    """
    every = np.sort(np.concatenate(list(importances.values())))
    count = int(len(every) * ratio)
    bar = every[count - 1] if count else -np.inf
    gone = {group: int((values <= bar).sum()) // _ROUND_TO * _ROUND_TO for group, values in importances.items()}
    return {group: float(len(values) - gone[group]) for group, values in importances.items()}


def macs(contest: Contest, limit_ms: float) -> Configuration | None:
    """The planner's losses, blocks and solver, with multiply-accumulates in the place of measured time: no tables."""
    model, loss = contest.model, contest.narrower.loss
    choices = {g: tuple(Choice(width=w, loss=loss(g, w)) for w in model.widths_worth_a_look(g)) for g in model.full}
    blocks = tuple(Block(name=b, loss=loss.block(b)) for b in contest.bench.blocks.removable)
    priced = ShapeProblem(uses=model.uses, full=model.full, choices=choices, entry_ms=millions_of_macs, blocks=blocks)
    problem = priced.allocation(CostModel())
    least, most = cheapest(problem, LATENCY, {}), problem.used(priced.whole(), LATENCY)
    if not isinstance(least, Allocation):
        return None
    lowest = least.used[LATENCY]

    def at(strength: float) -> Configuration:
        found = allocate(problem, {LATENCY: most - strength * (most - lowest)})
        return found.configuration if isinstance(found, Allocation) else least.configuration

    return contest.weakest(at, limit_ms)


def random_widths(contest: Contest, limit_ms: float) -> Configuration | None:
    """By lot among multiples of 8 until one is just under the limit, or the slowest of those that fit."""
    generator = np.random.default_rng(contest.bench.target.spec.seed)
    fitting: list[tuple[float, Configuration]] = []
    for _ in range(min(_LOTS, contest.steps)):
        strength = generator.uniform(0.2, 1.0)
        shares = {g: 1 - contest.most * min(1.0, generator.uniform(0, 2 * strength)) for g in contest.model.full}
        shape = contest.widths({g: _ROUND_TO * round(w * shares[g] / _ROUND_TO) for g, w in contest.model.full.items()})
        p50_ms = contest.measure(shape, limit_ms)
        if p50_ms <= limit_ms:
            fitting.append((p50_ms, shape))
            if p50_ms >= _NEAR * limit_ms:
                break
    return max(fitting, key=lambda f: f[0])[1] if fitting else None


METHODS: Mapping[str, Callable[[Contest, float], Configuration | None]] = {
    "planner": planner,
    "int8": full_widths,
    "uniform": uniform,
    "magnitude": magnitude,
    "macs": macs,
    "random": random_widths,
}
