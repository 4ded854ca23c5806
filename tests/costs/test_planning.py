"""Tests of predicted steps: identities, break-even points, and monotonicity."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gmc_jax
from gmc_jax import all_gather, dense, exact, link_traffic, planning
from gmc_jax.clocks.link import Link
from gmc_jax.costs.candidates import candidates, compressed
from gmc_jax.costs.compression_cost import CPU_2_CORES, FREE, CompressionCost
from gmc_jax.costs.planning import DENSE, Pattern, Prediction, Sync, predict

LINK = Link(latency=0.02, bandwidth=125e6)
SIZE = 10**8
FAMILIES = {
    name: compressed(name, CPU_2_CORES)
    for name in ("top_k", "sampled_top_k", "random_block")
}
NO_CODE = {name: {1.0: FREE} for name in CPU_2_CORES}


def of(pattern: Pattern, workers: int = 8, link: Link = LINK, size: int = SIZE):
    return predict(dataclasses.replace(pattern, family=None), size, workers, link, 0.5)


def test_the_dense_pattern_computed_by_hand():
    dense = of(DENSE, 64)
    assert (dense.speed_up, dense.breaks_even, dense.ratio) == (1, False, None)
    network = 2 * 63 * (0.02 + 4 * SIZE / 64 / 125e6)
    assert dense.network == pytest.approx(network, rel=1e-12)
    assert dense.seconds == dense.longest == pytest.approx(0.5 + network, rel=1e-12)
    assert dense.busy == pytest.approx(network / (0.5 + network))
    sent = 2 * 63 / 64 * 4 * SIZE / 125e6
    assert dense.utilisation == pytest.approx(sent / (0.5 + network))


def test_with_one_worker_nothing_is_sent_and_compression_is_slower():
    assert of(DENSE, 1)[2:7] == ((0, 0), 0.5, 0, 0, 0.5)
    alone = predict(FAMILIES["random_block"](0.01), SIZE, 1, LINK, 0.5)
    assert alone.network == 0
    entry = CPU_2_CORES["random_block"][0.01].entry
    assert alone.seconds == pytest.approx(0.5 + entry * SIZE)
    assert (alone.break_even_ratio, alone.faster_between) == (0, None)


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES.keys())
def test_an_infinite_bandwidth_leaves_computing_encoding_and_latencies(family):
    row = of(family(0.01), 8, Link(latency=0.02))
    assert row.seconds == pytest.approx(0.5 + row.encoding + 14 * 0.02)
    assert row.utilisation == 0
    assert of(family(0.01), 8, Link()).network == 0


def test_gathering_dense_vectors_takes_half_the_workers_times_a_dense_mean():
    gathered = of(Pattern("all", (Sync(all_gather(dense())),)), 64, Link(0, 1e6))
    exactly = of(DENSE, 64, Link(0, 1e6))
    assert gathered.network == pytest.approx(32 * exactly.network)


def test_a_period_divides_the_time_on_the_link_but_not_of_the_longest_step():
    (sync,) = DENSE.syncs
    local = of(Pattern("local", (sync._replace(period=12),)))
    dense = of(DENSE)
    assert local.network == pytest.approx(dense.network / 12)
    assert local.longest == dense.seconds
    assert local.traffic.bytes == pytest.approx(dense.traffic.bytes / 12)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("workers", [4, pytest.param(64, marks=pytest.mark.slow)])
def test_below_the_break_even_ratio_it_is_faster_and_above_it_is_not(name, workers):
    family = FAMILIES[name]
    border = predict(family(0.01), SIZE, workers, LINK, 0.5).break_even_ratio
    assert border is not None
    assert 0 < border < 1
    assert of(family(border * 0.999), workers).breaks_even
    assert not of(family(border * 1.001), workers).breaks_even


@pytest.mark.slow
def test_without_encoding_a_sparse_gather_breaks_even_at_one_over_the_workers():
    """(K - 1) 8 r d bytes against 2 (K - 1) / K 4 d: r = 1 / K."""
    for workers in (2, 10, 1000):
        family = compressed("top_k", NO_CODE)
        row = predict(family(0.01), SIZE, workers, LINK, 0.5)
        assert row.break_even_ratio == pytest.approx(1 / workers, rel=2e-4)
    block = predict(compressed("random_block", NO_CODE)(0.01), SIZE, 1000, LINK, 0.5)
    assert block.break_even_ratio == pytest.approx(1, rel=2e-4)


def test_gathering_one_entry_in_a_thousand_is_slower_from_a_thousand_workers():
    workers = {
        name: [of(compressed(name, NO_CODE)(0.001), k).breaks_even for k in (900, 1100)]
        for name in ("top_k", "random_block")
    }
    assert workers == {"top_k": [True, False], "random_block": [True, True]}


@pytest.mark.parametrize("name", FAMILIES)
def test_below_the_bandwidth_it_is_faster_and_above_it_is_not(name):
    pattern = FAMILIES[name](0.01)
    between = of(pattern).faster_between
    assert between is not None
    low, high = between
    assert low == 0
    assert of(pattern, link=Link(0.02, 0.999 * high)).breaks_even
    assert not of(pattern, link=Link(0.02, 1.001 * high)).breaks_even


def test_a_pattern_of_fewer_hops_and_more_bytes_is_faster_above_a_bandwidth():
    ring = Pattern(
        "ring", (Sync(gmc_jax.gossip(gmc_jax.topologies.ring(3)), workers=3),)
    )
    between = of(ring, 64).faster_between
    assert between is not None
    low, high = between
    assert high == math.inf
    assert low == pytest.approx(2 / 64 * 4 * SIZE / (124 * 0.02))
    assert of(ring, 64, Link(0.02, 1.001 * low)).breaks_even
    assert not of(ring, 64, Link(0.02, 0.999 * low)).breaks_even


def test_some_patterns_are_faster_at_any_bandwidth_and_some_at_none():
    (sync,) = DENSE.syncs
    rare = Pattern("rare", (sync._replace(period=2),))
    assert of(rare).faster_between == (0, math.inf)
    assert of(FAMILIES["top_k"](0.5), 64).faster_between is None
    assert of(DENSE).faster_between is None
    free = compressed("random_block", NO_CODE)(0.5)
    assert of(free).faster_between == (0, math.inf)


sizes = st.integers(2, 10**6)
counts = st.integers(1, 3000)
ratios = st.floats(1e-4, 1.0)
links = st.builds(
    Link, latency=st.floats(0, 1), bandwidth=st.floats(1e3, 1e11, exclude_min=True)
)
checked = settings(deadline=None, derandomize=True, max_examples=15)


@given(sizes, counts, ratios, ratios, links)
@checked
def test_a_larger_ratio_never_takes_less(size, workers, one, other, link):
    family = FAMILIES["random_block"]
    less, more = (of(family(x), workers, link, size) for x in sorted((one, other)))
    assert less.seconds <= more.seconds
    assert less.traffic.bytes <= more.traffic.bytes


@given(sizes, sizes, counts, ratios, links)
@checked
@pytest.mark.slow
def test_more_parameters_never_take_less(one, other, workers, ratio, link):
    for pattern in (FAMILIES["random_block"](ratio), DENSE):
        less, more = (of(pattern, workers, link, x) for x in sorted((one, other)))
        assert less.seconds <= more.seconds


@given(sizes, counts, st.lists(links, min_size=2, max_size=2))
@checked
@pytest.mark.slow
def test_a_better_link_never_takes_more(size, workers, pair):
    better = Link(
        min(link.latency for link in pair), max(link.bandwidth for link in pair)
    )
    for link in pair:
        for pattern in (DENSE, FAMILIES["random_block"](0.1)):
            row = of(pattern, workers, link, size)
            assert of(pattern, workers, better, size).seconds <= row.seconds
            assert 0 <= row.utilisation <= row.busy * (1 + 1e-9) <= 1 + 1e-9
            assert row.longest >= row.seconds * (1 - 1e-9)


@pytest.fixture(scope="module")
def planned() -> list[Prediction]:
    return gmc_jax.plan(SIZE, 1024, LINK, 0.5, ratios=[0.01, 0.001], periods=[12])


@pytest.mark.slow
def test_a_plan_is_sorted_and_the_same_every_time(planned):
    seconds = [row.seconds for row in planned]
    assert seconds == sorted(seconds)
    again = gmc_jax.plan(SIZE, 1024, LINK, 0.5, ratios=[0.01, 0.001], periods=[12])
    assert again == planned


@pytest.mark.slow
def test_a_plan_shows_that_gathers_do_not_scale(planned):
    rows = {(row.name, row.ratio): row for row in planned}
    dense = rows["dense all-reduce", None]
    for ratio in (0.01, 0.001):
        sparse, block = (
            rows[f"GMC, {name}", ratio] for name in ("top_k", "random_block")
        )
        assert not sparse.breaks_even
        assert sparse.traffic.bytes > dense.traffic.bytes
        assert sparse.break_even_ratio is not None
        assert sparse.break_even_ratio < 1 / 1024
        assert block.breaks_even
        assert block.speed_up == pytest.approx(dense.seconds / block.seconds)


@pytest.mark.slow
def test_members_of_a_family_share_their_break_even_ratio(planned):
    ratios = {
        row.break_even_ratio for row in planned if row.name == "GMC, sampled_top_k"
    }
    assert len(ratios) == 1


def test_parameters_may_be_a_number_or_a_tree():
    tree = {"half": jax.ShapeDtypeStruct((1000,), jnp.bfloat16), "one": jnp.ones(3)}
    row = predict(DENSE, tree, 8, LINK, 0.5)
    assert row.traffic == link_traffic(exact(), tree, 8)
    assert predict(DENSE, 1003, 8, LINK, 0.5).traffic == row.traffic
    large = planning.shapes(3 * 2**31 + 2)
    assert [leaf.size for leaf in large] == [2**31 - 1] * 3 + [5]
    assert predict(FAMILIES["random_block"](0.1), 2**31 - 1, 2, LINK, 0.5).breaks_even
    assert predict(DENSE, 10**12, 2, LINK, 0.5).traffic.bytes == 4 * 10**12


@pytest.mark.parametrize("count", [1e6, np.float64(1e6), np.int64(10**6)])
def test_a_whole_number_of_parameters_may_be_a_float(count):
    assert predict(DENSE, count, 8, LINK, 0.5) == of(DENSE, size=10**6)
    with pytest.raises(ValueError, match="`parameters` must be a whole number"):
        predict(DENSE, 1e6 + 0.5, 8, LINK, 0.5)


@pytest.mark.slow
def test_a_trillion_parameters_can_be_planned():
    rows = gmc_jax.plan(1e12, 64, LINK, 0.5, ratios=[0.001], periods=[48])
    assert max(row.seconds for row in rows) > 60_000
    for row in rows:
        if row.name == "dense all-reduce":
            assert row.traffic.bytes == pytest.approx(2 * 63 / 64 * 4e12, rel=1e-12)
        elif row.name == "GMC, top_k":
            assert row.traffic.bytes == pytest.approx(63 * 8e9, rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("length", [10, 2**27])
def test_a_plan_of_many_leaves_predicts_what_each_pattern_sends(length):
    """From 2^31 entries on up to the rounding of each leaf's message."""
    half, one = (
        jax.ShapeDtypeStruct((length, 2), dtype)
        for dtype in (jnp.bfloat16, jnp.float32)
    )
    tree = {"a": [half, one] * 4, "b": one}
    planned = gmc_jax.plan(tree, 8, LINK, 0.5, ratios=[0.01], periods=[7])
    for pattern in candidates(tree, 8, [0.01], [7], CPU_2_CORES):
        (row,) = (row for row in planned if row.name == pattern.name)
        mean, _ = pattern.loads(tree, 8)
        rounding = 1e-15 if length == 10 else 1e-6
        assert row.traffic.bytes == pytest.approx(mean.traffic.bytes, rel=rounding)
        assert row.traffic.hops == mean.traffic.hops
        assert row.encoding == pytest.approx(mean.encoding, rel=rounding)


def test_with_a_delay_the_predicted_step_takes_the_longer_time():
    """10^8 signs of 8 workers are 0.98 seconds on the link."""
    channel = all_gather(gmc_jax.scaled_sign(), delay=1)
    cost = CompressionCost(1e-9, 0.0)
    network = 7 * 2 * 0.02 + 7 * (SIZE / 8 + 4) / 125e6
    for step_time, hidden in ((0.5, 0.5), (2.0, network)):
        row = predict(
            Pattern("late", (Sync(channel, cost, delay=1),)), SIZE, 8, LINK, step_time
        )
        assert row.network == pytest.approx(network)
        assert row.hidden == pytest.approx(hidden)
        assert row.seconds == pytest.approx(max(step_time, network) + 0.1)
        assert row.longest == row.seconds
        assert row.speed_up == pytest.approx(
            (of(DENSE).network + step_time) / row.seconds
        )


def test_the_peak_is_what_leaves_in_the_longest_step():
    (dense,) = DENSE.syncs
    parts = dense._replace(period=12, fragments=4)
    row = of(Pattern("streaming", (parts,)))
    assert row.peak == pytest.approx(of(DENSE).traffic.bytes / 4)
    assert row.traffic.bytes == pytest.approx(of(DENSE).traffic.bytes / 12)


def test_your_own_compressor_can_be_planned():
    cost = CompressionCost(1e-9, 0.0)
    channel = all_gather(gmc_jax.scaled_sign())
    row = of(Pattern("EF-signSGD", (Sync(channel, cost),)), 8)
    assert row.traffic.bytes == 7 * (SIZE / 8 + 4)
    assert row.encoding == pytest.approx(0.1)


def test_errors_name_what_is_wrong():
    no_pattern: Any = exact()
    with pytest.raises(TypeError, match="`pattern` must be a `Pattern`, got"):
        predict(no_pattern, SIZE, 8, LINK, 0.5)
    no_link: Any = 125_000_000
    with pytest.raises(TypeError, match="`link` must be a `Link`, got 125000000"):
        gmc_jax.plan(SIZE, 8, no_link, 0.5)
    for what, call in {
        "`parameters` must be a whole": lambda: predict(DENSE, 0, 8, LINK, 0.5),
        "`workers` must be a whole": lambda: predict(DENSE, SIZE, 0, LINK, 0.5),
        "`step_time` must be finite": lambda: predict(DENSE, SIZE, 8, LINK, 0.0),
        r"`ratios` must be in \(0": lambda: gmc_jax.plan(SIZE, 8, LINK, 1, ratios=[2]),
        "`periods` must be a whole": lambda: gmc_jax.plan(
            SIZE, 8, LINK, 1, periods=[0]
        ),
    }.items():
        with pytest.raises(ValueError, match=what):
            call()
