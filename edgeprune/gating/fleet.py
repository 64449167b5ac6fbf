"""One verdict over several devices: every one of them, or a share of all such devices.

**Every device.** "All of these devices meet the limits" is shown where each of them shows it by itself: it is wrong
only if a device that misses them passed, which has the probability of that one device's error. So nothing is split for
a PASS (an intersection-union test, Berger 1982, Technometrics 24). A FAIL is the other way round: among many good
devices one may look bad by chance, so it counts only where it also holds at the error divided by the number of devices
and latency limits (Bonferroni; Dunn 1961, JASA 56).

**A share.** The devices are a sample of all such devices. Where a share s of those meet the limits, a device passes
with a probability of at most s + (1 - s) a, a being the error of one device's PASS. An exact lower bound of that
probability (Clopper & Pearson 1934, Biometrika 26) is therefore one of the share, once the a is taken out: no device
has to be judged rightly, and the error of both steps together is the one that was asked for. FAIL likewise, from the
devices that failed. A device that was not decided or not measured counts for neither, which can only cost a verdict.
a is a tenth of the fleet's error, so that it takes hardly more devices than if it were 0 (for 90 % at 95 %: 29 of 29,
45 of 46, and 60 of 62 in place of 59 of 61). The
devices must be independent: entries of one machine count as one.
"""

from __future__ import annotations

import bisect
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence

from edgeprune.records.fleet import FleetDemand, FleetDevice, FleetJudgement
from edgeprune.records.verdict import Verdict, worst_verdict
from edgeprune.statistics import share_bounds as binomial_bounds
from edgeprune.units import format_ms

DEVICE_ERROR_SHARE = 0.1
"""Of the fleet's error, what each device's own PASS or FAIL may be wrong with, where a share is asked for."""

LEAST_FOR_OUTLIERS = 4
"""With three, the median device and its nearest neighbour alone decide what is usual."""

# Iglewicz & Hoaglin 1993, "How to Detect and Handle Outliers": a modified z-score over 3.5, which is 0.6745 times the
# distance from the median over the MAD. The median and the MAD stay put while fewer than half of the devices are odd.
_MOST_SCORE = 3.5
_MAD_OF_NORMAL = 0.6745
# Twins agree to within a percent or two: without a floor, 2 % would be called an outlier among devices that differ by
# 0.2 %. It is no claim, only the least difference that is worth a person's look.
_LEAST_RATIO = 1.05


def judge_fleet(devices: Sequence[FleetDevice], demand: FleetDemand) -> FleetJudgement:
    """The verdict over devices that were measured, or could not be.

    Args:
        devices: at least one.
        demand: fixed before the first of them was measured.
    """
    return _every_device(devices, demand) if demand.share is None else _share(devices, demand, demand.share)


def device_confidence(confidence: float, share: float | None) -> float:
    """What each device's own verdict needs for a fleet's at that confidence; see the module's head."""
    return confidence if share is None else 1.0 - (1.0 - confidence) * DEVICE_ERROR_SHARE


def sure_fail_confidence(demand: FleetDemand, devices: int) -> float:
    """The confidence at which one device's FAIL must hold to be the fleet's, where every device is asked for."""
    return 1.0 - (1.0 - demand.confidence) / (devices * max(1, demand.latency_limits))


def share_bounds(boxes: int, passed: int, failed: int, demand: FleetDemand) -> tuple[float, float]:
    """One-sided lower and upper bounds of the share of such devices that meet the limits.

    Args:
        boxes: independent devices that were asked for.
        passed: of them, PASS.
        failed: of them, FAIL; the rest was not decided.
        demand: with the confidence of each bound, and of each device's verdict.
    """
    error = 1.0 - demand.device_confidence
    false_pass, false_fail = error, min(error * max(1, demand.latency_limits), 0.5)
    lower = (binomial_bounds(passed, boxes, demand.confidence)[0] - false_pass) / (1.0 - false_pass)
    upper = (1.0 - binomial_bounds(failed, boxes, demand.confidence)[0]) / (1.0 - false_fail)
    return max(0.0, lower), min(1.0, upper)


def boxes_needed(share: float, not_passing: int, demand: FleetDemand) -> int:
    """The smallest number of devices of which all but so many passing show the share: 29 for 90 % at 95 % and none."""

    def enough(boxes: int) -> bool:
        return share_bounds(boxes, boxes - not_passing, 0, demand)[0] >= share

    most = not_passing + 1
    while not enough(most):
        most *= 2
    return bisect.bisect_left(range(most), x=True, lo=not_passing + 1, key=enough)


def outliers(p50_ms: Mapping[str, float]) -> dict[str, float]:
    """Devices that are not like the others, each with how many times as slow as the median device it is.

    On the logarithms of the medians of latency: a modified z-score over 3.5, and at least 5 % off. None where fewer
    than four devices were measured.

    Args:
        p50_ms: by device, over 0.
    """
    if len(p50_ms) < LEAST_FOR_OUTLIERS:
        return {}
    logs = {name: math.log(value) for name, value in p50_ms.items()}
    center = statistics.median(logs.values())
    spread = statistics.median(abs(value - center) for value in logs.values())
    least = max(_MOST_SCORE * spread / _MAD_OF_NORMAL, math.log(_LEAST_RATIO))
    return {name: math.exp(value - center) for name, value in logs.items() if abs(value - center) > least}


def _every_device(devices: Sequence[FleetDevice], demand: FleetDemand) -> FleetJudgement:
    undecided = Verdict.INCONCLUSIVE
    found = [undecided if d.verdict is Verdict.FAIL and not d.sure_fail else d.verdict for d in devices]
    verdict = worst_verdict(found)
    boxes = _boxes(devices)
    return FleetJudgement(
        verdict=verdict,
        demand=demand,
        boxes=len(boxes),
        passed=boxes.count(Verdict.PASS),
        failed=boxes.count(Verdict.FAIL),
        share_lower=None,
        share_upper=None,
        needed=None,
        reason=_worst_reason(devices, found, verdict, demand),
    )


def _worst_reason(
    devices: Sequence[FleetDevice], found: Sequence[Verdict], verdict: Verdict, demand: FleetDemand
) -> str:
    if verdict is Verdict.PASS:
        if not any(d.result is not None and d.result.judgement.gates for d in devices):
            return f"each of {len(devices)} devices was measured; there is no limit to meet"
        timed = [(d.p99.value_ms, d.device) for d in devices if d.p99 is not None]
        slowest = f"; the slowest is {max(timed)[1]} with p99 {format_ms(max(timed)[0])}" if timed else ""
        return f"each of {len(devices)} devices meets the limits, at {demand.confidence:.1%} confidence{slowest}"
    decisive = [d for d, v in zip(devices, found, strict=True) if v is verdict]
    named = [f"{d.device}: {_why(d)}" for d in decisive]
    named += [f"{d.device}: {_why(d)}" for d in devices if d.error and d not in decisive]
    return f"{len(decisive)} of {len(devices)} devices are {verdict}: {'; '.join(named)}"


def _why(device: FleetDevice) -> str:
    if device.error:
        return "not measured"
    if device.verdict is Verdict.FAIL and not device.sure_fail:
        return "over a limit by itself, but not for sure as one of so many devices"
    gates = device.result.judgement.gates if device.result is not None else ()
    reasons = [gate.reason for gate in gates if gate.verdict is device.verdict]
    return "; ".join(reasons) or ("disturbed" if device.verdict is Verdict.INVALID else device.verdict.lower())


def _share(devices: Sequence[FleetDevice], demand: FleetDemand, share: float) -> FleetJudgement:
    boxes = _boxes(devices)
    passed, failed, invalid = (boxes.count(v) for v in (Verdict.PASS, Verdict.FAIL, Verdict.INVALID))
    lower, upper = share_bounds(len(boxes), passed, failed, demand)
    verdict = _share_verdict((lower, upper), share)
    if verdict is Verdict.INCONCLUSIVE and invalid:
        # Whether a verdict was missed for want of valid measurements, or for want of devices.
        best = share_bounds(len(boxes), passed + invalid, failed, demand)
        worst = share_bounds(len(boxes), passed, failed + invalid, demand)
        missed = {_share_verdict(best, share), _share_verdict(worst, share)} - {Verdict.INCONCLUSIVE}
        verdict = Verdict.INVALID if missed else verdict
    needed = boxes_needed(share, len(boxes) - passed, demand)
    return FleetJudgement(
        verdict=verdict,
        demand=demand,
        boxes=len(boxes),
        passed=passed,
        failed=failed,
        share_lower=lower,
        share_upper=upper,
        needed=needed,
        reason=_share_reason(devices, boxes, (lower, upper), needed, demand),
    )


def _share_verdict(bounds: tuple[float, float], share: float) -> Verdict:
    if bounds[0] >= share:
        return Verdict.PASS
    return Verdict.FAIL if bounds[1] < share else Verdict.INCONCLUSIVE


def _share_reason(
    devices: Sequence[FleetDevice],
    boxes: Sequence[Verdict],
    bounds: tuple[float, float],
    needed: int,
    demand: FleetDemand,
) -> str:
    passed = boxes.count(Verdict.PASS)
    counts = ", ".join(f"{boxes.count(v)} {v}" for v in Verdict if v in boxes)
    text = (
        f"of {len(boxes)} independent devices {counts}: at {demand.confidence:.1%} confidence at least {bounds[0]:.1%} "
        f"and, at the same, at most {bounds[1]:.1%} of such devices meet the limits (Clopper-Pearson; each device at "
        f"{demand.device_confidence:.1%})"
    )
    if demand.share is not None and _share_verdict(bounds, demand.share) is Verdict.INCONCLUSIVE:
        text += f"; to show {demand.share:.1%} it takes {_of(needed, len(boxes) - passed)}"
    if len(boxes) < len(devices):
        text += f"; {len(devices)} entries are on {len(boxes)} machines, and those of one machine count once"
    unmeasured = [f"{d.device}: {_why(d)}" for d in devices if d.verdict is Verdict.INVALID]
    return "; ".join([text, *unmeasured])


def _of(needed: int, not_passing: int) -> str:
    return f"{needed - not_passing} of {needed} devices that pass, chosen beforehand"


def _boxes(devices: Iterable[FleetDevice]) -> list[Verdict]:
    """A verdict for each machine: PASS or FAIL where all its entries say so."""
    by_machine: dict[str, list[Verdict]] = {}
    for device in devices:
        by_machine.setdefault(device.machine or f"unknown: {device.device}", []).append(device.verdict)
    return [_agreed(verdicts) for verdicts in by_machine.values()]


def _agreed(verdicts: Sequence[Verdict]) -> Verdict:
    if len(set(verdicts)) == 1:
        return verdicts[0]
    return Verdict.INVALID if Verdict.INVALID in verdicts else Verdict.INCONCLUSIVE
