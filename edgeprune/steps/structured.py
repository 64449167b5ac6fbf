"""At which places widths are searched for: the fastest at full widths, and before the answer is no all that promise."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

from edgeprune.errors import BuildError, MeasurementError
from edgeprune.planning.feasibility import ShapeFigures, decide, no_room, over_budget, refuse, scaled
from edgeprune.planning.ladder import Ladder, structured_cost
from edgeprune.planning.last_resort import most_asked, most_promising
from edgeprune.planning.placement import choose_placement
from edgeprune.records.rung import Limits, PlannedRung, PruningKind, Rung, RungStatus
from edgeprune.steps.narrowing import ROUNDED_WITHIN, TIGHTER, Narrower
from edgeprune.steps.open_model import VECTOR
from edgeprune.steps.shapes import settled
from edgeprune.units import format_ms

NEARLY_AS_FAST = 1.25
"""Widths are searched for at the fastest place, and at those within this factor of it."""

_ROUNDED = (
    f"the narrowest widths rounded up to multiples of {VECTOR} were measured at the fastest place only, and where the "
    f"narrowest themselves took at most {ROUNDED_WITHIN:g} times the budget"
)

_Made = TypeVar("_Made")


@dataclass(slots=True)
class StructuredPlaces:
    """The structured rungs of one plan.

    Attributes:
        narrower: searches for widths at a place.
        ladder: has the places.
        figures: full widths, by place.
        found: planned and refused rungs so far.
        notes: how widths were found.
        not_asked: places whose narrowest widths were not measured although nothing fits, because others promised more.
    """

    narrower: Narrower
    ladder: Ladder
    figures: Mapping[Rung, ShapeFigures]
    found: list[PlannedRung] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    not_asked: list[Rung] = field(default_factory=list)
    _narrowest: dict[Rung, ShapeFigures] = field(default_factory=dict)
    _passed_over: dict[Rung, str] = field(default_factory=dict)
    _searched: list[ShapeFigures] = field(default_factory=list)
    """The narrowest shape at each place where widths were found, those of faster full widths first."""

    def search(self, limits: Limits, *, fits: bool) -> None:
        """Search for widths where the full ones are over the budget, or nearly; the fastest place first.

        Args:
            limits: the budget.
            fits: whether any full widths fit. Where nothing does in the end, the places that were passed over are
                asked too.

        Raises:
            MeasurementError: the device is busy or went away.
        """
        places = self._places(limits)
        fastest: ShapeFigures | None = None
        for dense in places:
            fastest = fastest or dense
            aim = self._aim(dense, limits)
            factor = dense.p50_ms / fastest.p50_ms
            if aim is not None and factor > NEARLY_AS_FAST:
                told = f"{format_ms(dense.p50_ms)} at full widths, {factor:.2f}x of {fastest.rung.name}"
                self._passed_over[dense.rung] = told
            elif aim is not None:
                self._narrow(dense, limits, aim)
            if self._takes_too_much(dense.rung, limits):
                # A fast runtime that needs too much memory stands in nobody's way.
                fastest = None
        if not fits and not self._planned:
            self._ask_the_rest(limits)
        for place, reason in self._passed_over.items():
            if place not in self.decided_places:
                self._refuse(place, f"{reason}; {self.known_of(place)}")

    @property
    def decided_places(self) -> set[Rung]:
        """Where structured rungs are planned or refused."""
        return {r.rung.unpruned for r in self.found}

    def known_of(self, place: Rung) -> str:
        """What was measured of narrower widths at a place where none were searched for."""
        narrow = self._narrowest.get(place)
        if narrow is None:
            return "narrower widths were not measured there"
        return f"of narrower widths only the narrowest were measured there: {format_ms(narrow.p50_ms)}"

    @property
    def _planned(self) -> bool:
        return any(r.status is RungStatus.PLANNED for r in self.found)

    def _places(self, limits: Limits) -> list[ShapeFigures]:
        """One placement a runtime, those with room for any widths, the fastest first."""
        choice = choose_placement([self.figures[p] for p in self.ladder.places if p in self.figures], limits)
        for place, reason in choice.left_out:
            if over_budget(self.figures[place], limits) is not None:
                self._passed_over[place] = f"{reason}, at full widths"
        known = sorted(choice.kept, key=lambda f: f.p50_ms)
        return [figures for figures in known if not self._has_no_room(figures, limits)]

    def _has_no_room(self, figures: ShapeFigures, limits: Limits) -> bool:
        reason = no_room(figures, limits)
        if reason is not None:
            self._refuse(figures.rung, reason)
        return reason is not None

    @staticmethod
    def _aim(dense: ShapeFigures, limits: Limits) -> Limits | None:
        """What narrower widths are searched for; None where the full ones fit with room to spare."""
        tighter = scaled(limits, TIGHTER[0])
        if over_budget(dense, limits) is not None:
            return limits
        # What fits by so little may be rejected by its gates.
        return tighter if over_budget(dense, tighter) is not None else None

    def _takes_too_much(self, place: Rung, limits: Limits) -> bool:
        """Whether even the narrowest widths that were measured at a place are over the memory limit."""
        narrowed = [r for r in self.found if r.rung.unpruned == place]
        peaks = [peak for r in narrowed if (peak := r.memory_bytes(limits.memory_of)) is not None]
        return limits.memory_bytes is not None and bool(peaks) and min(peaks) > limits.memory_bytes

    def _narrow(self, dense: ShapeFigures, limits: Limits, aim: Limits) -> None:
        narrow = self._asked(dense.rung, limits)
        if narrow is None:
            return
        better = next((b for b in self._searched if b.p50_ms <= narrow.p50_ms), None)
        if better is not None:
            reason = f"{better.rung.name} is as fast at full widths and at the narrowest, so it can keep more"
            self._refuse(dense.rung, reason)
        else:
            self._search_at(dense, narrow, limits, aim)

    def _asked(self, place: Rung, limits: Limits) -> ShapeFigures | None:
        """The narrowest widths of a place; None where it is refused because they cannot be compiled or run."""
        narrow = self._tried(place, lambda: self.narrower.fastest_admissible(place, limits))
        if narrow is not None:
            self._narrowest[place] = narrow
        return narrow

    def _search_at(self, dense: ShapeFigures, narrow: ShapeFigures, limits: Limits, aim: Limits) -> None:
        found = self._tried(dense.rung, lambda: self.narrower.plan(dense, narrow, aim))
        if found is None:
            return
        if aim != limits:
            narrow = self._tried(dense.rung, partial(settled, self.narrower.shapes, narrow, limits)) or narrow
            found = [_held_to(r, narrow, limits) for r in found]
        self.found += found
        self.notes += [told_search(r) for r in found if r.trips]
        if any(r.status is RungStatus.PLANNED for r in found):
            self._searched.append(narrow)

    def _tried(self, place: Rung, make: Callable[[], _Made]) -> _Made | None:
        """A place whose shapes cannot be compiled or run is refused with the reason; the others go on."""
        try:
            return make()
        except (BuildError, MeasurementError) as error:
            if isinstance(error, MeasurementError) and not error.about_artifact:
                raise
            self._refuse(place, error.message)
            return None

    def _refuse(self, place: Rung, reason: str) -> None:
        rung = replace(place, pruning=PruningKind.STRUCTURED)
        self.found.append(refuse(rung, structured_cost(place.precision, None), reason))

    def _ask_the_rest(self, limits: Limits) -> None:
        """Nothing fits: the narrowest widths at the places that were passed over, the most promising first.

        They are slower at full widths, have another number of threads or another precision. That says little of narrow
        widths, so where the narrowest fit, the fastest of them are searched from.
        """
        ladder, decided = (*self.ladder.places, *self.ladder.finer_places), self.decided_places
        left = [self.figures[p] for p in ladder if p in self.figures and p not in decided]
        left = [figures for figures in left if not self._has_no_room(figures, limits)]
        asked = dict[Rung, ShapeFigures]()
        for _ in range(min(most_asked(len(self.figures)), len(left))):
            dense = most_promising(left, [(self.figures[p], narrow) for p, narrow in self._narrowest.items()])
            left.remove(dense)
            narrow = self._asked(dense.rung, limits)
            if narrow is not None:
                asked[dense.rung] = narrow
        self._decide_on(asked, limits)
        if not self._planned and self._narrowest:
            self._look_again_at_the_fastest(limits)
        if not self._planned and left:
            self.not_asked = [f.rung for f in left]
            for dense in left:
                told = f"{format_ms(dense.p50_ms)} at full widths, and {len(asked)} other places promised more"
                self._passed_over.setdefault(dense.rung, told)

    def _decide_on(self, asked: Mapping[Rung, ShapeFigures], limits: Limits) -> None:
        """Search from the fastest that fit until something is planned; refuse those that do not with what they took."""
        for place, narrow in sorted(asked.items(), key=lambda a: a[1].p50_ms):
            refusal = over_budget(narrow, limits)
            is_fastest = narrow.p50_ms <= min(n.p50_ms for n in self._narrowest.values())
            if not self._planned and (refusal is None or is_fastest):
                # Round widths can be faster than the narrowest: a near miss of the fastest is searched from too.
                self._search_at(self.figures[place], narrow, limits, limits)
            elif refusal is not None:
                reason = f"even with the narrowest widths: {refusal}"
                self.found.append(
                    replace(decide(narrow, limits, structured_cost(place.precision, None)), reason=reason)
                )
            elif place in self.ladder.places:
                self._passed_over.setdefault(place, f"{format_ms(self.figures[place].p50_ms)} at full widths")

    def _look_again_at_the_fastest(self, limits: Limits) -> None:
        """The other rounding of the fastest narrowest widths, if it was not measured: a no tells the best possible."""
        far = scaled(limits, ROUNDED_WITHIN)
        one_of_two = [p for p, n in self._narrowest.items() if over_budget(n, far) and _is_odd(n)]
        if one_of_two:
            self.notes.append(_ROUNDED)
        place, known = min(self._narrowest.items(), key=lambda n: n[1].p50_ms)
        narrow = self._tried(place, lambda: self.narrower.fastest_admissible(place)) if place in one_of_two else None
        if narrow is not None and narrow.widths != known.widths and narrow.p50_ms < known.p50_ms:
            self._narrowest[place] = narrow
            self.found = [r for r in self.found if r.rung.unpruned != place]
            self._search_at(self.figures[place], narrow, limits, limits)


def _is_odd(narrow: ShapeFigures) -> bool:
    """Whether its widths would be others, rounded up for vector kernels."""
    return any(w.after % VECTOR for w in narrow.widths)


def _held_to(rung: PlannedRung, narrow: ShapeFigures, limits: Limits) -> PlannedRung:
    """The narrowest widths that were refused by the share of the budget that was aimed at, decided by all of it."""
    if rung.status is RungStatus.PLANNED or rung.p50_ms is None or rung.rung != narrow.rung:
        return rung
    decided = decide(narrow, limits, rung.accuracy_cost or 0.0)
    told = f"; {TIGHTER[0]:.0%} of it was aimed at, and no widths are under that"
    reason = decided.reason + (told if decided.status is RungStatus.PLANNED else "")
    return replace(rung, status=decided.status, reason=reason)


def told_search(planned: PlannedRung) -> str:
    """How the widths of a rung were found, or why none were."""
    trips = "; ".join(trip.summary for trip in planned.trips)
    cut = [f"without {block}" for block in planned.removed_blocks]
    cut += [f"{w.group} {w.before} to {w.after}" for w in planned.widths if 0 < w.after < w.before]
    widths = f"; {', '.join(cut)}" if cut and planned.status is RungStatus.PLANNED else ""
    return f"{planned.rung.name}: whole shapes on the device: {trips}; it ended as {planned.ended}{widths}"
