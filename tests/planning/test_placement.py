"""Two threads can halve p50 and multiply p99 by ten: which placement counts is what the budget says."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from records_for_tests import make_facts

from edgeprune.cpu_list import format_cpus
from edgeprune.planning.feasibility import ShapeFigures, tightness
from edgeprune.planning.placement import Placement, choose_placement, out_of_reach, placements, reachable
from edgeprune.records.cores import Core
from edgeprune.records.rung import Limits, Precision, Rung
from edgeprune.schema.base import parse_toml
from edgeprune.schema.profile import DeviceProfile


def shape(threads: int, p50_ms: float, p99_ms: float, runtime: str = "tflite") -> ShapeFigures:
    rung = Rung(runtime=runtime, precision=Precision.INT8, threads=threads)
    return ShapeFigures(rung=rung, p50_ms=p50_ms, p99_ms=p99_ms, artifact_bytes=1, peak_bytes=1)


ONE, TWO = shape(1, 0.8, 1.0), shape(2, 0.4, 9.0)


def test_a_limit_of_p99_takes_the_thread_count_with_the_shorter_tail() -> None:
    found = choose_placement([ONE, TWO, shape(2, 3.0, 3.0, "openvino")], Limits(p50_ms=1.0, p99_ms=2.0))
    assert [f.rung.name for f in found.kept] == ["tflite-int8-t1", "openvino-int8-t2"]
    ((left, reason),) = found.left_out
    assert (left, reason) == (TWO.rung, "p99 9.00 ms, and 1.00 ms with 1 thread(s)")


def test_a_limit_of_p50_alone_takes_the_faster() -> None:
    for limits in (Limits(p50_ms=1.0), Limits(artifact_bytes=5)):
        found = choose_placement([ONE, TWO], limits)
        assert found.kept == (TWO,)
        assert found.left_out == ((ONE.rung, "p50 0.800 ms, and 0.400 ms with 2 thread(s)"),)


def test_where_p50_is_the_nearer_limit_it_decides() -> None:
    found = choose_placement([ONE, TWO], Limits(p50_ms=0.5, p99_ms=100.0))
    assert found.kept == (TWO,)
    assert found.left_out[0][1].startswith("p50")


milliseconds = st.floats(0.1, 10.0)


@given(st.lists(st.tuples(milliseconds, milliseconds), min_size=1, max_size=4), milliseconds, milliseconds)
def test_no_other_count_is_further_from_the_limits(figures: list[tuple[float, float]], p50: float, p99: float) -> None:
    limits = Limits(p50_ms=p50, p99_ms=p99)
    shapes = [shape(number, *ms) for number, ms in enumerate(figures, 1)]
    (kept,) = choose_placement(shapes, limits).kept
    assert tightness(kept, limits) == min(tightness(s, limits) for s in shapes)
    assert len(choose_placement(shapes, limits).left_out) == len(shapes) - 1


def test_cores_are_chosen_by_the_same_percentile() -> None:
    fast, slow = (replace(shape(1, *ms), rung=replace(ONE.rung, cpus=cpus)) for ms, cpus in FAST_AND_SLOW)
    by_tail = choose_placement([fast, slow], Limits(p99_ms=2.0))
    assert by_tail.kept == (slow,)
    assert by_tail.left_out == ((fast.rung, "p99 9.00 ms, and 1.60 ms with 1 thread(s) on core(s) 0"),)
    assert choose_placement([fast, slow], Limits(p50_ms=1.0)).kept == (fast,)


FAST_AND_SLOW = (((0.8, 9.0), (4,)), ((1.5, 1.6), (0,)))


def profile(threads: str = "[1]", cpus: str = "[]") -> DeviceProfile:
    text = f'schema = 1\nname = "x"\nthreads = {threads}\ncpus = {cpus}\n[hardware]\narch = "any"\ncores = 16\n'
    return parse_toml(text + "[runtimes.tflite]\n[budget]\np50_ms = 1.0", DeviceProfile, where="x.toml")


def placed(cores: list[Core], threads: str = "[1]", cpus: str = "[]") -> list[str]:
    return [f"{p.threads}@{format_cpus(p.cpus)}" for p in placements(profile(threads, cpus), cores)]


ALIKE = [Core(cpus=(number,), capacity=1024) for number in range(4)]
LITTLE_AND_BIG = [Core(cpus=(n,), capacity=1024 if n >= 4 else 446) for n in range(6)]


def test_of_cores_that_are_alike_the_last_ones_are_the_only_choice() -> None:
    assert placed(ALIKE, "[1, 2, 4, 9]") == ["1@", "2@", "4@", "9@"]
    assert placed([], "[1, 2]") == ["1@", "2@"]


def test_the_fastest_cores_and_every_kind_of_core_are_choices() -> None:
    assert placed(LITTLE_AND_BIG, "[1, 2]") == ["1@5", "1@3", "2@4-5", "2@2-3"]
    # The fast ones with some of the others, beside the others alone.
    assert placed(LITTLE_AND_BIG, "[4, 5, 6, 7]") == ["4@2-5", "4@0-3", "5@", "6@", "7@"]
    fast_first = [Core(cpus=(n,), capacity=446 if n >= 2 else 1024) for n in range(6)]
    assert placed(fast_first, "[1, 5]") == ["1@1", "1@5", "5@0-1,3-5"]
    phone = [Core(cpus=(n,), capacity=1024 if n == 7 else 800 if n >= 4 else 300) for n in range(8)]
    assert placed(phone, "[1, 2, 4]") == ["1@7", "1@6", "1@3", "2@6-7", "2@5-6", "2@2-3", "4@4-7", "4@0-3"]


def test_threads_do_not_share_a_core_while_there_are_others() -> None:
    neighbours = [Core(cpus=(2 * n, 2 * n + 1)) for n in range(4)]
    assert placed(neighbours, "[1, 2, 4, 6]") == ["1@", "2@5,7", "4@1,3,5,7", "6@"]
    far_apart = [Core(cpus=(n, n + 4)) for n in range(4)]
    assert placed(far_apart, "[1, 2, 4]") == ["1@", "2@", "4@"]


def test_sets_of_the_profile_take_the_place_of_kinds() -> None:
    assert placed(LITTLE_AND_BIG, "[1, 2]", '["0-3", "5"]') == ["1@3", "1@5", "2@2-3"]
    assert placed(LITTLE_AND_BIG, "[2]", '["2-4", "3-4"]') == ["2@3-4"]
    neighbours = [Core(cpus=(2 * n, 2 * n + 1)) for n in range(4)]
    assert placed(neighbours, "[2, 4]", '["4-7"]') == ["2@5,7", "4@4-7"]
    # What the device lacks is refused with the reason where rungs are made.
    assert placed(ALIKE, "[1]", '["8"]') == ["1@8"]


def test_what_the_device_lacks_is_out_of_reach() -> None:
    apart = [Core(cpus=(0,)), Core(cpus=(1,)), Core(cpus=(), apart=(2,))]
    facts = replace(make_facts(), cores=2, topology=tuple(apart))
    assert [p.cpus for p in reachable(profile("[1, 3]", '["2", "0-1", "1,9", "0-2"]'), facts)] == [
        (2,),
        (1,),
        (0, 1, 2),
    ]
    assert out_of_reach(Placement(threads=3), facts) == "3 threads, and the device lets us use 2 core(s)"
    assert out_of_reach(Placement(threads=1, cpus=(9,)), facts) == "no core(s) 9 that the device lets us use: 0-2"
    fixed = replace(facts, topology=())
    assert out_of_reach(Placement(threads=1, cpus=(1,)), fixed) == "the device does not let us choose cores"
    assert reachable(profile(), fixed) == (Placement(threads=1),)


topologies = st.lists(st.sampled_from([1024, 900, 446, 160]), min_size=1, max_size=8)


@given(topologies, st.lists(st.integers(1, 8), min_size=1, max_size=3, unique=True))
def test_every_thread_count_is_placed_on_as_many_cores(speeds: list[int], threads: list[int]) -> None:
    cores = [Core(cpus=(number,), capacity=speed) for number, speed in enumerate(speeds)]
    found = placements(profile(str(threads)), cores)
    assert {p.threads for p in found} == set(threads)
    assert all(len(p.cpus) in {0, p.threads} and set(p.cpus) <= set(range(len(speeds))) for p in found)
    assert len(set(found)) == len(found)
