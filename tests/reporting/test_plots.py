from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest

from edgeprune.records.rung import GroupWidth
from edgeprune.reporting import plots


def parsed(svg: str) -> ET.Element:
    return ET.fromstring(svg.replace("<svg ", '<svg xmlns:xlink="x" ', 1))  # noqa: S314


def texts(svg: str) -> list[str]:
    return ["".join(e.itertext()) for e in parsed(svg).iter("text")]


def test_frontier_names_points_and_limits() -> None:
    points = [
        plots.Point(label="dense", role="dense", latency_ms=6.0, accuracy_percent=96.0),
        plots.Point(label="3", role="subject", latency_ms=2.0, accuracy_percent=95.0, lower_ms=1.9, upper_ms=2.2),
    ]
    svg = plots.plot_frontier(points, latency_name="p99", limit_ms=3.0, floor_percent=94.5)
    assert {"dense", "3", "budget 3.00 ms", "floor 94.5 %", "p99, ms (log scale)"} <= set(texts(svg))


def test_frontier_takes_one_point_and_no_limit() -> None:
    point = plots.Point(label="dense", role="dense", latency_ms=6.0, accuracy_percent=96.0)
    assert "dense" in texts(plots.plot_frontier([point], latency_name="p50", limit_ms=None, floor_percent=None))


@pytest.mark.parametrize("samples", [[5_000_000], [1_000_000] * 1000, [10**k for k in range(3, 10)]])
def test_distribution_takes_one_equal_or_wide_samples(samples: list[int]) -> None:
    series = [plots.Series(label="dense", role="dense", samples_ns=samples)]
    svg = plots.plot_distribution(series, [("p99", 3.0)], [("dense", 50.0, samples[0] / 1e6)])
    assert "p99 budget 3.00 ms" in texts(svg)


def test_distribution_of_many_samples_is_thinned_but_keeps_its_tail() -> None:
    x, y = plots._steps(range(1, 100_001))
    assert len(x) <= 400
    assert (x[-1], y[-1]) == (0.1, 100.0)
    assert y[-60:] == pytest.approx([100 * k / 100_000 for k in range(99_941, 100_001)])


def test_widths_and_markup_in_names() -> None:
    svg = plots.plot_widths(
        [GroupWidth(group="a<b>&$x$", before=16, after=8), GroupWidth(group="c", before=4, after=4)]
    )
    assert {"a<b>&$x$", "16 to 8", "4"} <= set(texts(svg))
    assert "8 removed in all" in parsed(svg).attrib["aria-label"]


def test_footprint_panels_have_scales_of_their_own() -> None:
    bars = [plots.Bar(label="dense", role="dense", value=1.2, text="1.2 MB")]
    svg = plots.plot_footprint([("artifact, MB", bars, 0.4), ("peak memory, MB", bars, None)])
    assert {"artifact, MB", "peak memory, MB", "limit 0.4", "1.2 MB"} <= set(texts(svg))


def test_no_pyplot_state_is_left() -> None:
    import sys

    plots.plot_widths([GroupWidth(group="c", before=4, after=4)])
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or pyplot.get_fignums() == []


def test_names_of_points_that_lie_together_stand_above_and_below() -> None:
    names = ("dense", "dense onnxruntime")
    points = [plots.Point(label=n, role="dense", latency_ms=6.0, accuracy_percent=96.0) for n in names]
    svg = plots.plot_frontier(points, latency_name="p99", limit_ms=None, floor_percent=None)
    found = {"".join(e.itertext()): float(e.attrib["y"]) for e in parsed(svg).iter("text") if "y" in e.attrib}
    assert found["dense onnxruntime"] > found["dense"] + 10
