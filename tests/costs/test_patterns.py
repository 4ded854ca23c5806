"""Tests of patterns: periods, two channels, delays, and shapes."""

from typing import Any

import jax
import jax.numpy as jnp
import pytest

from gmc_jax import (
    Traffic,
    all_gather,
    all_reduce,
    exact,
    gossip,
    link_traffic,
    low_rank,
    random_block,
    top_k,
    topologies,
)
from gmc_jax.clocks.link import Link
from gmc_jax.costs.compression_cost import CompressionCost
from gmc_jax.costs.patterns import Load, Pattern, Sync

PARAMS = jax.ShapeDtypeStruct((1000,), jnp.float32)
COST = CompressionCost(entry=0.01, byte=0.001)


def test_a_period_divides_the_load_of_the_mean_step_and_not_of_the_longest():
    sync = Sync(all_gather(top_k(0.1)), COST)
    every, _ = Pattern("each step", (sync,)).loads(PARAMS, 8)
    mean, longest = Pattern("every tenth", (sync._replace(period=10),)).loads(PARAMS, 8)
    assert longest == every
    assert every[:2] == ((5600, 14), pytest.approx(10 + 5.6))
    assert mean[:2] == (Traffic(560, 1.4), pytest.approx(1.56))
    assert every[2:] == mean[2:] == ((0, 0), 0)
    link = Link(latency=0.5, bandwidth=56.0)
    assert mean.seconds(link, 100) == pytest.approx(1.56 + 0.7 + 10)


def test_fragments_divide_the_longest_step_and_not_the_bytes_of_the_mean():
    """Each of them has hops of its own."""
    sync = Sync(all_gather(top_k(0.1)), COST, period=10)
    whole, peak = Pattern("whole", (sync,)).loads(PARAMS, 8)
    streams = Pattern("streaming", (sync._replace(fragments=5),))
    mean, longest = streams.loads(PARAMS, 8)
    assert longest.traffic == (peak.traffic.bytes / 5, peak.traffic.hops)
    assert longest.encoding == pytest.approx(peak.encoding / 5)
    assert mean.traffic == pytest.approx((560, 5 * whole.traffic.hops))
    assert mean.encoding == pytest.approx(whole.encoding)


def test_the_channels_of_a_method_with_two_add_up():
    """As in CSER: blocks at every step, larger ones at every fourth."""
    block, reset = all_reduce(random_block(0.01)), all_reduce(random_block(0.4))
    pattern = Pattern("CSER", (Sync(block), Sync(reset, COST, 4)))
    mean, longest = pattern.loads(PARAMS, 8)
    one, other = (link_traffic(channel, PARAMS, 8) for channel in (block, reset))
    encoding = 10 + 0.001 * other.bytes
    assert longest == Load(Traffic(one.bytes + other.bytes, 28), encoding)
    assert mean == Load(Traffic(one.bytes + other.bytes / 4, 17.5), encoding / 4)


def test_a_few_neighbours_stand_for_thousands_of_workers():
    few = Sync(gossip(topologies.ring(3)), workers=3)
    all_of_them = Sync(gossip(topologies.ring(20)))
    expected = Pattern("ring", (all_of_them,)).loads(PARAMS, 20)
    assert Pattern("ring", (few,)).loads(PARAMS, 20) == expected


LINK = Link(latency=0.5, bandwidth=56.0)


def test_with_a_delay_a_step_takes_the_longer_of_computing_and_sending():
    """And encodes: 107 seconds on the link, 15.6 of encoding."""
    channel = all_gather(top_k(0.1), delay=1)
    now, late = (
        Pattern("mine", (Sync(channel, COST, delay=delay),)).loads(PARAMS, 8)[0]
        for delay in (0, 1)
    )
    assert (
        late.traffic == now.traffic == link_traffic(all_gather(top_k(0.1)), PARAMS, 8)
    )
    for step_time in (10, 107, 200):
        assert now.seconds(LINK, step_time) == pytest.approx(15.6 + 107)
        took = step_time + late.seconds(LINK, step_time)
        assert took == pytest.approx(max(step_time, 107) + 15.6)


def test_a_delay_hides_one_step_of_each_synchronisation():
    """Of ten steps, four send a fragment each: 25 seconds and 7 of latencies."""
    sync = Sync(all_gather(top_k(0.1)), period=10, fragments=4, delay=3)
    mean, longest = Pattern("streaming", (sync,)).loads(PARAMS, 8)
    for step_time, waited in ((10, 22), (32, 0), (50, 0)):
        assert longest.seconds(LINK, step_time) == pytest.approx(waited)
        assert mean.seconds(LINK, step_time) == pytest.approx(0.4 * waited)


def test_only_what_is_late_is_hidden():
    late, now = all_gather(top_k(0.1)), exact()
    both = Pattern("mine", (Sync(late, delay=1), Sync(now)))
    load, _ = both.loads(PARAMS, 8)
    assert load.late == link_traffic(late, PARAMS, 8)
    waits = link_traffic(now, PARAMS, 8).seconds(LINK)
    assert load.seconds(LINK, 1000) == pytest.approx(waits)
    twice = Pattern("mine", (Sync(late, delay=1), Sync(late, delay=1)))
    assert twice.loads(PARAMS, 8)[0].seconds(LINK, 10) == pytest.approx(2 * 107 - 10)


def test_traffic_is_counted_for_shapes_as_many_as_there_are_entries():
    """Ten matrices of 10 by 10: each sends two factors, of 10 entries."""
    matrix = jax.ShapeDtypeStruct((10, 10), jnp.float32)
    sync = Sync(low_rank(1), COST, shapes=matrix)
    load, _ = Pattern("PowerSGD", (sync,)).loads(PARAMS, 2)
    assert load.traffic == (10 * 2 * 4 * 10, 4)
    assert load.encoding == pytest.approx(10 + 0.8)


def test_errors_name_what_is_wrong():
    wrong: Any = top_k(0.1)
    with pytest.raises(TypeError, match="`channel` must be a channel"):
        Pattern("mine", (Sync(wrong),))
    with pytest.raises(ValueError, match="`period` must be a whole number"):
        Pattern("mine", (Sync(exact(), period=0),))
    with pytest.raises(ValueError, match="`fragments` must be a whole number"):
        Pattern("mine", (Sync(exact(), fragments=0),))
    with pytest.raises(ValueError, match="`fragments` must be at most `period`, 2"):
        Pattern("mine", (Sync(exact(), period=2, fragments=3),))
    with pytest.raises(ValueError, match="`workers` must be a whole number"):
        Pattern("mine", (Sync(exact(), workers=-1),))
    with pytest.raises(ValueError, match=r"`ratio` must be in \(0, 1]"):
        Pattern("mine", (Sync(exact()),), ratio=2.0)
    with pytest.raises(ValueError, match="`delay` must be a whole number"):
        Pattern("mine", (Sync(exact(), delay=-1),))
