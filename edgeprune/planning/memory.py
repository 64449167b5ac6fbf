"""Memory of a model whose widths are open: predicted from weights and activations, and a resource of the allocation.

    peak = base + the larger of   loading + weight factor * weights
                                  running + weight factor * weights + activation factor * activations

The base is what the runtime's process had before it loaded anything; loading and running are what every model pays
there. The factors hold what a runtime makes of weights (packed copies beside the file's) and of activations (buffers
that are not reused at once). All four are fitted to the shapes that were measured on the device, without which they are
drawn to what is plausible. Activations are the most that lives at one step of the compiled graph.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import numpy as np

from edgeprune.planning.allocation import Infeasible
from edgeprune.planning.allocation_problem import AllocationProblem, Group, Step, Term
from edgeprune.records.memory import MemoryForecast, MemoryNeeds, OpenSchedule
from edgeprune.units import BYTES_PER_MB, format_mb

MEMORY = "memory_bytes"
ACTIVATIONS = "activation_bytes"

_NOISE_MB = 0.3
"""Standard deviation of a process's peak from one start to the next."""

_WEIGHT_FACTOR, _WEIGHT_SPREAD = 1.5, 1.0
_ACTIVATION_FACTOR, _ACTIVATION_SPREAD = 1.2, 0.4
_CONSTANT_SPREAD_MB = 100.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """A shape that was measured: how many weights it has, what the schedule with open widths says, and the truth."""

    weights: int
    activation_bytes: float
    needs: MemoryNeeds


@dataclass(frozen=True)
class MemoryModel:
    """A fitted memory model; immutable.

    Args:
        observed: at least one shape.
    """

    observed: tuple[Observed, ...]

    @property
    def base_bytes(self) -> float:
        """Mean over the processes."""
        return float(np.mean([o.needs.base_bytes for o in self.observed]))

    @cached_property
    def weight_line(self) -> tuple[float, float]:
        """Bytes of the compiled constants: those of no weight, and for each weight."""
        counts = np.array([o.weights for o in self.observed], float)
        sizes = np.array([o.needs.weight_bytes for o in self.observed], float)
        if np.ptp(counts) == 0:
            return 0.0, float(sizes.mean() / max(counts[0], 1))
        slope, fixed = np.polyfit(counts, sizes, 1)
        return (float(fixed), float(slope)) if slope > 0 else (float(sizes.mean()), 0.0)

    @cached_property
    def activation_ratio(self) -> float:
        """The compiled graphs' own peaks over what the schedule with open widths says; 1 where all was found."""
        found = [o.needs.activation_bytes / o.activation_bytes for o in self.observed if o.activation_bytes]
        return float(np.mean(found)) if found else 1.0

    @property
    def loading_bytes(self) -> float:
        """What every model pays while it is loaded."""
        return self._fitted[0] * BYTES_PER_MB

    @property
    def running_bytes(self) -> float:
        """What every model pays while it runs."""
        return self._fitted[1] * BYTES_PER_MB

    @property
    def weight_factor(self) -> float:
        """Resident bytes for a byte of weights."""
        return self._fitted[2]

    @property
    def activation_factor(self) -> float:
        """Resident bytes for a byte of activations."""
        return self._fitted[3]

    @cached_property
    def margin_bytes(self) -> float:
        """By how much a measured shape was over its own fit, at most; not under 0."""
        return max(
            0.0,
            *(o.needs.base_bytes + o.needs.model_bytes - self.base_bytes - self._model_bytes(o) for o in self.observed),
        )

    def model_bytes(self, weights: int, activation_bytes: float) -> float:
        """Peak of a model beyond the base.

        Args:
            weights: how many.
            activation_bytes: by the schedule with open widths.
        """
        fixed, each = self.weight_line
        return self._peak(fixed + each * weights, self.activation_ratio * activation_bytes)

    def _model_bytes(self, observed: Observed) -> float:
        return self._peak(observed.needs.weight_bytes, observed.needs.activation_bytes)

    def _peak(self, weight_bytes: float, activation_bytes: float) -> float:
        running = self.running_bytes + self.activation_factor * activation_bytes
        return max(self.loading_bytes, running) + self.weight_factor * weight_bytes

    @cached_property
    def _fitted(self) -> tuple[float, float, float, float]:
        return _fit([o.needs for o in self.observed])


def _fit(needs: Sequence[MemoryNeeds]) -> tuple[float, float, float, float]:
    """(loading MB, running MB, weight factor, activation factor), by least squares without negative ones."""
    from scipy.optimize import nnls

    rows, values = [], []
    for one in needs:
        weights, activations = one.weight_bytes / BYTES_PER_MB, one.activation_bytes / BYTES_PER_MB
        rows += [[1.0, 0.0, weights, 0.0], [0.0, 1.0, weights, activations]]
        values += [one.load_bytes / BYTES_PER_MB, one.run_bytes / BYTES_PER_MB]
    scaled = np.array(rows) / _NOISE_MB
    spreads = np.array([_CONSTANT_SPREAD_MB, _CONSTANT_SPREAD_MB, _WEIGHT_SPREAD, _ACTIVATION_SPREAD])
    drawn = np.array([0.0, 0.0, _WEIGHT_FACTOR, _ACTIVATION_FACTOR]) / spreads
    found, _ = nnls(np.vstack([scaled, np.diag(1 / spreads)]), np.concatenate([np.array(values) / _NOISE_MB, drawn]))
    loading, running, by_weight, by_activation = found.tolist()
    return loading, running, by_weight, by_activation


@dataclass(slots=True)
class MemoryBook:
    """What was measured of one model at one place so far; it grows with every shape, and predicts the next.

    Args:
        schedule: of the compiled graph, with open widths.
        of: whose memory counts.
    """

    schedule: OpenSchedule
    of: Literal["process", "model"]
    _observed: list[Observed] = field(default_factory=list)

    @property
    def model(self) -> MemoryModel:
        """Fitted to all of it."""
        return MemoryModel(tuple(self._observed))

    def observe(self, widths: Mapping[str, int], weights: int, needs: MemoryNeeds) -> None:
        """Take in a measured shape: its widths without those of removed blocks, and how many weights it has."""
        activation_bytes = self.schedule.peak_bytes(widths)
        self._observed.append(Observed(weights=weights, activation_bytes=activation_bytes, needs=needs))

    def forecast(self, widths: Mapping[str, int], weights: int, needs: MemoryNeeds) -> MemoryForecast:
        """What is predicted of a shape by those observed so far, beside what was measured of it."""
        model, activation_bytes = self.model, self.schedule.peak_bytes(widths)
        of_process = self.of == "process"
        predicted = model.model_bytes(weights, activation_bytes)
        return MemoryForecast(
            of=self.of,
            predicted_bytes=round(predicted + (model.base_bytes if of_process else 0.0)),
            measured_bytes=needs.model_bytes + (needs.base_bytes if of_process else 0),
            activation_bytes=round(model.activation_ratio * activation_bytes),
            measured_activation_bytes=needs.activation_bytes,
        )

    def added_to(self, problem: AllocationProblem, weights: str) -> AllocationProblem:
        """The problem with the resources `memory_bytes` and `activation_bytes`.

        Args:
            problem: its groups are those of the schedule.
            weights: the resource that counts weights; what its terms cost in memory follows from that.
        """
        model = self.model
        fixed, each = model.weight_line
        always = model.margin_bytes + model.weight_factor * fixed + (model.base_bytes if self.of == "process" else 0.0)
        groups = {group.name: group for group in problem.groups}
        terms = tuple(_with_weights(term, weights, model.weight_factor * each) for term in problem.terms)
        loading = Step(name="loading", terms=(_constant("loading", {MEMORY: model.loading_bytes}),))
        running = (_moment_step(moment, model, groups) for moment in moments(self.schedule, tuple(groups)))
        return replace(
            problem,
            terms=(*terms, _constant("memory of every model", {MEMORY: always})),
            steps=(*problem.steps, loading, *running),
        )


def least_beyond(found: Infeasible, limits: Mapping[str, float]) -> str:
    """The least memory that any widths are predicted to take, where that is over the limit; else empty."""
    least = found.least.get(MEMORY)
    if least is None or least.used[MEMORY] <= limits[MEMORY]:
        return ""
    return f"a peak memory of at least {format_mb(least.used[MEMORY])}, over {format_mb(limits[MEMORY])}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """What lives at one step: so many bytes, and so many for each channel of a group."""

    step: str
    fixed: float
    by_group: Mapping[str, float]


def moments(schedule: OpenSchedule, groups: Sequence[str]) -> tuple[Moment, ...]:
    """The steps that can be the most expensive at some widths: no other one needs at least as much of everything."""
    found: list[Moment] = []
    for number, step in enumerate(schedule.steps):
        fixed, by_group = 0.0, dict.fromkeys(groups, 0.0)
        for tensor in schedule.alive(number):
            fixed += tensor.fixed * tensor.element_bytes
            for group, each in tensor.by_group:
                by_group[group] += each * tensor.element_bytes
        moment = Moment(step=f"{number} {step}", fixed=fixed, by_group=by_group)
        if not any(_covers(other, moment) for other in found):
            found = [*(other for other in found if not _covers(moment, other)), moment]
    return tuple(found)


def _covers(larger: Moment, smaller: Moment) -> bool:
    return larger.fixed >= smaller.fixed and all(
        larger.by_group[group] >= each for group, each in smaller.by_group.items()
    )


def _moment_step(moment: Moment, model: MemoryModel, groups: Mapping[str, Group]) -> Step:
    ratio, factor = model.activation_ratio, model.activation_factor
    fixed = ratio * moment.fixed
    terms = [_constant(moment.step, {ACTIVATIONS: fixed, MEMORY: model.running_bytes + factor * fixed})]
    for name, each in moment.by_group.items():
        if each:
            group = groups[name]
            sizes = ratio * each * np.array([choice.width for choice in group.choices], float)
            costs = {ACTIVATIONS: sizes, MEMORY: factor * sizes}
            terms.append(Term(name=f"{moment.step}: {name}", groups=(name,), costs=costs, block=group.block))
    return Step(name=moment.step, terms=tuple(terms))


def _constant(name: str, costs: Mapping[str, float]) -> Term:
    return Term(name=name, groups=(), costs={resource: np.array(cost, float) for resource, cost in costs.items()})


def _with_weights(term: Term, weights: str, each: float) -> Term:
    if weights not in term.costs:
        return term
    return replace(term, costs={**term.costs, MEMORY: each * term.costs[weights]})
