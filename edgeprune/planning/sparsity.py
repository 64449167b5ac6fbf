"""Which patterns of zeros get rungs: what the device showed decides, whatever the profile claims.

A gain that the profile does not claim is used, and said: the profile is a claim, and the device was asked. A claim that
the device does not bear out gives no rung, and that is said loudly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgeprune.records.sparsity import LEAST_SPARSE_GAIN, GainStatus, SparsityGain, SparsityProbe
from edgeprune.zero_patterns import UNSTRUCTURED, parse_pattern


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskChoice:
    """One pattern on one runtime.

    Attributes:
        least_share: of zeros, from which on every share measured gained; rungs with fewer are refused.
        used: whether there are rungs that are measured. Where there are none, and no claim is contradicted, there are
            no refused ones either.
        reason: with the figures, for the rungs that are refused.
        note: what the person is to be told; empty where claim and device agree.
        contradicted: the device does not bear out the profile's claim.
    """

    runtime: str
    pattern: str
    used: bool
    reason: str
    least_share: float = 0.0
    note: str = ""
    contradicted: bool = False


def decide_patterns(
    runtime: str, claims: Sequence[str], probe: SparsityProbe | None, why_not: Sequence[str] = ()
) -> tuple[MaskChoice, ...]:
    """Decide on every pattern that is claimed or that gained something.

    Blocks get rungs only where they are claimed: single zeros cost less accuracy. Where they gain more than as many of
    these, that is told. A claimed pattern that the micro-models cannot hold has to be shown by the whole model.

    Args:
        runtime: name.
        claims: `sparse_kernels` of the profile.
        probe: of the device; None where it could not be taken, and the whole model must show it.
        why_not: why the runtime's rule, or its makers, say that zeros buy nothing there; added to what is told.
    """
    choices = []
    probed = () if probe is None else (gain.pattern for gain in probe.gains)
    for pattern in dict.fromkeys((*probed, *claims)):
        claimed = pattern in claims
        gains = () if probe is None else probe.of(pattern)
        # Noise may hide a gain, and a claim is not contradicted by noise: the whole model has to show it.
        in_doubt = probe is not None and claimed and bool(probe.disturbed)
        if claimed and not gains:
            choices.append(MaskChoice(runtime=runtime, pattern=pattern, used=True, reason="not probed"))
        elif probe is not None and not claimed and parse_pattern(pattern).block:
            choices += _unclaimed_blocks(runtime, pattern, probe)
        elif (least := _least_share(gains, in_doubt=in_doubt)) is not None:
            choices.append(_gained(runtime, pattern, gains, least, claimed=claimed))
        elif claimed:
            choices.append(_contradicted(runtime, pattern, gains, why_not))
    return tuple(choices)


def _least_share(gains: Sequence[SparsityGain], *, in_doubt: bool) -> float | None:
    """The smallest share with a gain, larger ones all gaining too; None where the largest gains nothing.

    Args:
        gains: of one pattern.
        in_doubt: what was faster in most rounds only counts as well.
    """
    least = None
    for gain in sorted(gains, key=lambda g: g.share, reverse=True):
        if gain.status is not GainStatus.GAIN and not (in_doubt and gain.seems_faster):
            break
        least = gain.share
    return least


def _unclaimed_blocks(runtime: str, pattern: str, probe: SparsityProbe) -> list[MaskChoice]:
    """A hint where blocks gain more than single zeros, at the largest share at which both were measured."""
    single = {g.share: g.ratio for g in probe.of(UNSTRUCTURED) if g.ratio is not None}
    both = [(g, g.ratio, single[g.share]) for g in probe.of(pattern) if g.ratio is not None and g.share in single]
    if not both:
        return []
    gain, ratio, other = both[-1]
    if gain.status is not GainStatus.GAIN or ratio < LEAST_SPARSE_GAIN * other:
        return []
    note = (
        f"{runtime}: {gain.reason}, where as many single zeros gain {other:.2f}x: add {pattern!r} to "
        f"runtimes.{runtime}.sparse_kernels of the profile to have them tried"
    )
    return [MaskChoice(runtime=runtime, pattern=pattern, used=False, reason=note, note=note)]


def _gained(runtime: str, pattern: str, gains: Sequence[SparsityGain], least: float, *, claimed: bool) -> MaskChoice:
    weaker = [g for g in gains if g.share < least]
    best = max(gains, key=lambda g: g.ratio or 0.0)
    note = (
        ""
        if claimed
        else f"{runtime}: the profile claims no sparse kernels for {pattern} zeros, but the device has them: "
        f"{best.reason}. They are used; write sparse_kernels into runtimes.{runtime} of the profile"
    )
    reason = f"{weaker[-1].reason}; {least:.0%} is the least that gained" if weaker else best.reason
    return MaskChoice(runtime=runtime, pattern=pattern, used=True, reason=reason, least_share=least, note=note)


def _contradicted(runtime: str, pattern: str, gains: Sequence[SparsityGain], why_not: Sequence[str]) -> MaskChoice:
    measured = [g for g in gains if g.ratio is not None]
    shown = max(measured, key=lambda g: g.share).reason if measured else f"{pattern} zeros were not measured"
    because = f". {runtime}: {'; '.join(why_not)}" if why_not else ""
    note = (
        f"runtimes.{runtime}.sparse_kernels of the profile claims {pattern!r}, and the device does not bear it out: "
        f"{shown}{because}"
    )
    return MaskChoice(runtime=runtime, pattern=pattern, used=False, reason=note, note=note, contradicted=True)
