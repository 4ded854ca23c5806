"""Tests of the bytes and hops on links: closed forms, and channels of your own."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from gmc_jax import (
    Channel,
    all_gather,
    all_reduce,
    count_entries,
    dense,
    exact,
    gossip,
    join_channels,
    link_traffic,
    majority_vote,
    message_bits,
    random_block,
    top_k,
    topologies,
)
from gmc_jax.costs.traffic import Traffic

FLAT = jax.ShapeDtypeStruct((1000,), jnp.float32)


@pytest.mark.parametrize("workers", [1, 2, 5, 64, 4096])
def test_closed_forms_for_any_number_of_workers(workers):
    others, dense, sparse = workers - 1, 4 * 1000, 4 * 10

    def of(channel: Channel) -> Traffic:
        return link_traffic(channel, FLAT, workers)

    assert of(exact()) == (
        pytest.approx(2 * others / workers * dense),
        2 * others,
    )
    assert of(all_reduce(random_block(0.01))) == (
        pytest.approx(2 * others / workers * sparse),
        2 * others,
    )
    # Values and indices are two gathers.
    assert of(all_gather(top_k(0.01))) == (2 * others * sparse, 2 * others)
    # Each worker counts the ballots of its share, in whole words, and sends the result.
    share = 4 * -(-1000 // (32 * workers))
    assert of(majority_vote()) == (pytest.approx(2 * others * share), 2 * others)


def test_gathering_dense_vectors_costs_half_the_workers_times_a_dense_mean():
    """(K - 1) n bytes against 2 (K - 1) / K n."""
    gathered = link_traffic(all_gather(dense()), FLAT, 64)
    reduced = link_traffic(exact(), FLAT, 64)
    assert gathered.bytes == pytest.approx(64 / 2 * reduced.bytes)
    assert 2 * gathered.hops == reduced.hops


def test_traffic_is_that_of_the_busiest_worker():
    star = np.zeros((5, 5))
    star[0, 1:] = star[1:, 0] = 1
    traffic = link_traffic(gossip(topologies.from_adjacency(star)), FLAT, 5)
    assert traffic == (4 * 4000, 4)
    assert link_traffic(gossip(topologies.ring(5)), FLAT, 5) == (2 * 4000, 2)
    assert link_traffic(gossip(topologies.ring(1)), FLAT, 1) == (0, 0)
    with pytest.raises(
        ValueError, match=r"as many workers as the axis .* got one of 5"
    ):
        link_traffic(gossip(topologies.ring(5)), FLAT, 6)


def test_rounds_and_joined_channels_count_as_the_largest():
    rounds = gossip(topologies.one_peer_exponential(8), delay=1)
    assert link_traffic(rounds, FLAT, 8) == (4000, 1)
    block, sparse = all_reduce(random_block(0.5)), all_gather(top_k(0.01))
    for channels in ([block, sparse], [sparse, block]):
        joined = link_traffic(join_channels(channels, [3]), FLAT, 8)
        assert joined == link_traffic(block, FLAT, 8)
    assert link_traffic(
        count_entries(join_channels([sparse, sparse], [3])), FLAT, 8
    ) == (link_traffic(sparse, FLAT, 8))


def repeated(once, axis_name: str = "workers") -> Channel:
    """A channel of a user, of which only the collectives matter."""

    def average(tree, state):
        return once(tree), tree, state

    return Channel(lambda params: (), average, lambda tree: 0, axis_name)


def test_channels_of_your_own_are_counted_in_loops_and_groups():
    def many(tree):
        return lax.fori_loop(0, 3, lambda _, x: lax.pmax(x, "own"), tree)

    def until(tree):
        return lax.while_loop(lambda x: x[0] < 1, lambda x: lax.psum(x, "own"), tree)

    def scattered(tree):
        return lax.psum_scatter(tree, "own", tiled=True)

    def halves(tree):
        groups = [[0, 1, 2, 3], [4, 5, 6, 7]]
        return lax.psum(tree, "own", axis_index_groups=groups)

    for once, times, workers in (
        (many, 3, 8),
        (until, 1, 8),
        (scattered, 0.5, 8),
        (halves, 1, 4),
    ):
        size, hops = link_traffic(repeated(once, "own"), FLAT, 8)
        all_reduced = 2 * (workers - 1) / workers * 4000
        assert size == pytest.approx(times * all_reduced), once.__name__
        assert hops == times * 2 * (workers - 1)


def test_what_a_worker_keeps_is_not_sent():
    def swap(tree, one, other):
        pairs = [(k, k) for k in range(8) if k not in (one, other)]
        return lax.ppermute(
            tree, "workers", sorted({*pairs, (one, other), (other, one)})
        )

    assert link_traffic(repeated(lambda x: swap(x, 3, 3)), FLAT, 8) == (0, 0)
    turns = repeated(lambda x: swap(swap(x, 0, 1), 2, 3))
    assert link_traffic(turns, FLAT, 8) == (4000, 1)
    again = repeated(lambda x: swap(swap(x, 0, 1), 1, 2))
    assert link_traffic(again, FLAT, 8) == (8000, 2)


def test_independent_reductions_have_the_hops_of_one_and_dependent_ones_do_not():
    tree = [FLAT] * 7
    assert link_traffic(exact(), tree, 8) == (pytest.approx(7 * 7000), 14)
    twice = repeated(lambda x: lax.psum(lax.psum(x, "workers"), "workers"))
    assert link_traffic(twice, FLAT, 8) == (pytest.approx(2 * 7000), 28)
    apart = repeated(lambda x: lax.psum(jnp.sin(lax.psum(x, "workers")), "workers"))
    assert link_traffic(apart, FLAT, 8) == (pytest.approx(2 * 7000), 28)


def test_models_of_any_size_take_no_memory():
    """4 TB of parameters; and a message with a part for each leaf."""
    leaf = jax.ShapeDtypeStruct((2**30,), jnp.float32)
    whole = link_traffic(exact(), [leaf] * 931, 2)
    assert whole.bytes == 931 * 2**32
    channel = all_gather(top_k(0.001), per_leaf=True)
    sparse = link_traffic(channel, [leaf] * 3, 3)
    assert sparse.bytes == 2 * message_bits(channel, [leaf] * 3) / 8


def test_errors_name_what_is_wrong():
    wrong: Any = top_k(0.1)
    with pytest.raises(TypeError, match="`channel` must be a channel, got the comp"):
        link_traffic(wrong, FLAT, 8)
    with pytest.raises(ValueError, match="`workers` must be a whole number"):
        link_traffic(exact(), FLAT, 0)
    broadcast = repeated(lambda x: lax.pbroadcast(x, ("workers",), 0))
    with pytest.raises(
        ValueError, match=r"got `pbroadcast`.*Known are psum, .*ppermute"
    ):
        link_traffic(broadcast, FLAT, 8)
