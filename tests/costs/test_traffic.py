"""What goes over links: counted in the program, in what XLA makes of it, and by events.

Rings are simulated message by message in NumPy, with what they carry, and the seconds
that come out are those of the closed forms.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import Mesh, PartitionSpec

from gmc_jax import (
    Channel,
    all_gather,
    all_reduce,
    count_entries,
    dense,
    disagreement,
    drop_all,
    exact,
    gossip,
    join_channels,
    link_traffic,
    majority_vote,
    message_bits,
    no_communication,
    random_block,
    random_k,
    sampled_top_k,
    scaled_sign,
    simulated_server,
    threshold,
    top_k,
    topologies,
    wire_bytes,
)
from gmc_jax.clocks.link import Link
from gmc_jax.core import Tree
from gmc_jax.costs.traffic import Traffic

WORKERS = 8
PARAMS = {
    "bias": jax.ShapeDtypeStruct((70,), jnp.bfloat16),
    "kernel": jax.ShapeDtypeStruct((40, 50), jnp.float32),
}
FLAT = jax.ShapeDtypeStruct((1000,), jnp.float32)
SLOW = {"top_k per leaf", "sampled_top_k", "gathered random_k", "threshold"}
CHANNELS = {
    "exact": exact(),
    "dense": all_gather(dense()),
    "top_k": all_gather(top_k(0.1)),
    "top_k per leaf": all_gather(top_k(0.1), per_leaf=True),
    "sampled_top_k": all_gather(sampled_top_k(0.1)),
    "gathered random_k": all_gather(random_k(0.1)),
    "random_k": all_reduce(random_k(0.1)),
    "random_block per leaf": all_reduce(random_block(0.1), per_leaf=True),
    "threshold": all_gather(threshold(1.0, 0.1)),
    "scaled_sign": all_gather(scaled_sign()),
    "gossip": gossip(topologies.ring(WORKERS)),
    "disagreement": disagreement(topologies.torus(2, 4)),
    "majority_vote": majority_vote(),
    "count_entries": count_entries(all_gather(top_k(0.1))),
    "simulated_server": simulated_server(top_k(0.1)),
    "drop_all": drop_all(),
    "no_communication": no_communication(),
}


def on_the_links(operation: str, size: int, workers: int) -> tuple[float, int]:
    """Bytes and hops of a collective of XLA."""
    others = workers - 1
    return {
        "all-reduce": (2 * others * size / workers, 2 * others),
        "all-gather": (others * size, others),
        "all-to-all": (others * size / workers, others),
        "collective-permute": (size, 1),
    }[operation]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name in SLOW else ())
        for name in CHANNELS
    ],
)
def test_what_is_counted_is_what_xla_sends(name):
    """In the program compiled for eight devices."""
    channel = CHANNELS[name]

    def on_a_device(tree: Tree) -> Tree:
        tree = jax.tree.map(lambda leaf: leaf[0], tree)
        mean, lost, _ = channel.average(tree, channel.init(tree))
        return jax.tree.map(lambda leaf: leaf[None], (mean, lost))

    spec = PartitionSpec("workers")
    mesh = Mesh(np.array(jax.devices()[:WORKERS]), ("workers",))
    everyone = jax.shard_map(
        on_a_device, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False
    )
    stacked = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((WORKERS, *leaf.shape), leaf.dtype), PARAMS
    )
    sent = wire_bytes(everyone, stacked)
    assert sent == sent.always
    sums = [
        on_the_links(operation, size, WORKERS)
        for operation, size, _, _ in sent.operations
    ]
    size, hops = np.sum(sums, axis=0) if sums else (0, 0)

    traffic = link_traffic(channel, PARAMS, WORKERS)

    assert traffic == (pytest.approx(size), hops)
    assert (size > 0) == (
        name not in {"simulated_server", "drop_all", "no_communication"}
    )


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
    # Ballots of whole words for each worker, and as many results.
    share = 4 * -(-1000 // (32 * workers))
    assert of(majority_vote()) == (pytest.approx(2 * others * share), 2 * others)


def test_a_whole_message_gathered_costs_half_the_workers_times_a_dense_mean():
    """At ratio 1, without indices: (K - 1) n against 2 (K - 1) / K n."""
    gathered = link_traffic(all_gather(dense()), FLAT, 64)
    reduced = link_traffic(exact(), FLAT, 64)
    assert gathered.bytes == pytest.approx(64 / 2 * reduced.bytes)
    assert 2 * gathered.hops == reduced.hops


def test_of_neighbours_the_busiest_counts():
    star = np.zeros((5, 5))
    star[0, 1:] = star[1:, 0] = 1
    traffic = link_traffic(gossip(topologies.from_adjacency(star)), FLAT, 5)
    assert traffic == (4 * 4000, 4)
    assert link_traffic(gossip(topologies.ring(5)), FLAT, 5) == (2 * 4000, 2)
    assert link_traffic(gossip(topologies.ring(1)), FLAT, 1) == (0, 0)
    with pytest.raises(ValueError, match="`topology` is of 5 workers, but the axis"):
        link_traffic(gossip(topologies.ring(5)), FLAT, 6)


def test_of_rounds_and_of_joined_channels_the_largest_counts():
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
    """A channel from outside the package, of which the collectives alone matter."""

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
        expected = on_the_links("all-reduce", 4000, workers)
        assert size == pytest.approx(times * expected[0]), once.__name__
        assert hops == times * expected[1]


def test_to_oneself_nothing_is_sent():
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


def test_reductions_side_by_side_are_one_and_those_in_turn_are_not():
    tree = [FLAT] * 7
    assert link_traffic(exact(), tree, 8) == (pytest.approx(7 * 7000), 14)
    twice = repeated(lambda x: lax.psum(lax.psum(x, "workers"), "workers"))
    assert link_traffic(twice, FLAT, 8) == (pytest.approx(2 * 7000), 28)
    apart = repeated(lambda x: lax.psum(jnp.sin(lax.psum(x, "workers")), "workers"))
    assert link_traffic(apart, FLAT, 8) == (pytest.approx(2 * 7000), 28)


def test_models_of_any_size_take_no_memory():
    """4 TB of parameters; and a message of which each leaf has its share."""
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
    with pytest.raises(ValueError, match="`workers` counts something"):
        link_traffic(exact(), FLAT, 0)
    broadcast = repeated(lambda x: lax.pbroadcast(x, ("workers",), 0))
    with pytest.raises(ValueError, match=r"`pbroadcast`.*Known are psum, .*ppermute"):
        link_traffic(broadcast, FLAT, 8)


# Rings, message by message.

LINK = Link(latency=0.3, bandwidth=7.0)


def pass_round(clocks: np.ndarray, size: float) -> np.ndarray:
    """Everybody sends a message to the next one, and waits for its own to arrive."""
    arrives = np.roll(clocks + LINK.latency + size / LINK.bandwidth, 1)
    return np.maximum(clocks + size / LINK.bandwidth, arrives)


@pytest.mark.parametrize("workers", [2, 3, 8])
def test_a_ring_of_messages_reduces_in_the_time_of_the_closed_form(workers):
    """First every share is summed on its way round, then the sums go round."""
    each = 1000 // workers
    vectors = np.random.default_rng(0).normal(size=(workers, workers, each))
    held, clocks = vectors.copy(), np.zeros(workers)
    for turn in range(2 * (workers - 1)):
        sending = [(held[k], (k - turn) % workers) for k in range(workers)]
        messages = [(share, vector[share].copy()) for vector, share in sending]
        for receiver in range(workers):
            share, message = messages[receiver - 1]
            summing = turn < workers - 1
            held[receiver, share] = message + summing * held[receiver, share]
        clocks = pass_round(clocks, 4 * each)
    np.testing.assert_allclose(held, np.stack([vectors.sum(axis=0)] * workers))

    params = jax.ShapeDtypeStruct((workers * each,), jnp.float32)
    ours = link_traffic(exact(), params, workers).seconds(LINK)
    np.testing.assert_allclose(clocks, ours, rtol=1e-12)


@pytest.mark.parametrize("workers", [2, 3, 8])
def test_a_ring_of_messages_gathers_in_the_time_of_the_closed_form(workers):
    """Each worker hands on what it heard last: first the values, then the indices."""
    clocks = np.zeros(workers)
    for _ in ("values", "indices"):
        heard = [[k] for k in range(workers)]
        for _ in range(workers - 1):
            last = [known[-1] for known in heard]
            for receiver, known in enumerate(heard):
                known.append(last[receiver - 1])
            clocks = pass_round(clocks, 4 * 100)
        assert all(sorted(known) == list(range(workers)) for known in heard)

    ours = link_traffic(all_gather(top_k(0.1)), FLAT, workers).seconds(LINK)
    np.testing.assert_allclose(clocks, ours, rtol=1e-12)
