"""The table of channels, and the law that they keep.

`tests/channels/test_laws.py` runs over the table, and so do the tests of JAX's
switches.
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from gmc_jax import (
    Channel,
    DelayedMessagesState,
    all_gather,
    all_reduce,
    alternating_low_rank,
    centroids,
    chunked_top_k,
    compressed_gossip,
    count_bytes,
    count_entries,
    dense,
    disagreement,
    drop_all,
    exact,
    float8,
    gossip,
    gossip_differences,
    gossip_differences_overlapped,
    in_frequencies,
    integers,
    join_channels,
    low_rank,
    majority_vote,
    mean_of_senders,
    no_communication,
    powers_of_two,
    qsgd,
    quantised,
    random_block,
    random_gossip,
    random_k,
    sampled_top_k,
    scaled_sign,
    simulated_server,
    terngrad,
    threshold,
    top_k,
    top_k_of_rows,
    topologies,
    two_phase,
)
from gmc_jax.core import Tree
from gmc_jax.utils.trees import accumulator_dtype, find
from tests.support.compressors import thinned

WORKERS = 8


class Row(NamedTuple):
    """A channel of eight workers, and what its laws need to know of it."""

    channel: Channel
    own_means: bool = False  # whether means differ between workers
    lossless: bool = False
    # Whether the mean of finite trees is finite up to the largest number of float32.
    stays_finite: bool = True
    # Whether a sum of floats is in the message, in the state or in what is lost: over
    # the entries of a leaf, of weighted messages, or of an entry and a multiple. Then
    # its last bit depends on its order, and on which products XLA contracts with it.
    adds_floats: bool = False
    # Whether its law is that of `mean_of_senders`, and not the law of channels.
    of_senders: bool = False
    # Whether messages arrive in the next call: the first mean is zero.
    late: bool = False


CHANNELS = {
    "exact": Row(exact(), lossless=True),
    "dense": Row(all_gather(dense()), lossless=True),
    "top_k": Row(all_gather(top_k(0.1))),
    "top_k per leaf": Row(all_gather(top_k(0.1), per_leaf=True)),
    "sampled_top_k": Row(all_gather(sampled_top_k(0.1, sample=0.5))),
    # Channels divide by the number of workers after the sum if a compressor does not
    # say that it is linear.
    "thinned per leaf": Row(all_gather(thinned(), per_leaf=True), stays_finite=False),
    "gathered random_k": Row(all_gather(random_k(0.1))),
    "random_k": Row(all_reduce(random_k(0.1))),
    "random_block": Row(all_reduce(random_block(0.1))),
    "random_block per leaf": Row(all_reduce(random_block(0.1), per_leaf=True)),
    "threshold": Row(all_gather(threshold(1.0, 0.1))),
    "scaled_sign": Row(all_gather(scaled_sign()), adds_floats=True),
    "scaled_sign per leaf": Row(
        all_gather(scaled_sign(), per_leaf=True), adds_floats=True
    ),
    "quantised": Row(
        all_gather(quantised(top_k(0.1), scaled_sign())), adds_floats=True
    ),
    "chunked_top_k": Row(all_gather(chunked_top_k(0.1, chunk=8), per_leaf=True)),
    "late top_k": Row(all_gather(top_k(0.1), per_leaf=True, delay=1), late=True),
    "simulated_server": Row(simulated_server(top_k(0.1)), own_means=True),
    "drop_all": Row(drop_all()),
    "no_communication": Row(no_communication(), own_means=True, lossless=True),
    "gossip": Row(gossip(topologies.ring(WORKERS)), own_means=True, lossless=True),
    # A difference may be twice as large as the numbers that it is made of.
    "disagreement": Row(
        disagreement(topologies.ring(WORKERS)), own_means=True, stays_finite=False
    ),
    "compressed_gossip": Row(
        compressed_gossip(topologies.ring(WORKERS), random_block(0.1)), own_means=True
    ),
    "gossip_differences": Row(
        gossip_differences(topologies.ring(WORKERS), random_block(0.1), 0.5),
        own_means=True,
        lossless=True,
        stays_finite=False,
        adds_floats=True,
    ),
    "gossip_differences_overlapped": Row(
        gossip_differences_overlapped(topologies.ring(WORKERS), random_block(0.1), 0.5),
        own_means=True,
        lossless=True,
        stays_finite=False,
        adds_floats=True,
    ),
    "random_gossip": Row(
        random_gossip(topologies.matcha(topologies.ring(WORKERS).edges, 0.5, seed=1)),
        own_means=True,
        lossless=True,
        stays_finite=False,
    ),
    "majority_vote": Row(majority_vote()),
    "low_rank": Row(low_rank(1), stays_finite=False, adds_floats=True),
    "alternating_low_rank": Row(
        alternating_low_rank(2), stays_finite=False, adds_floats=True
    ),
    # The owner of a slice loses K times what the mean of this slice does.
    "two_phase": Row(two_phase(scaled_sign()), stays_finite=False, adds_floats=True),
    "in_frequencies": Row(
        in_frequencies(all_gather(top_k_of_rows(3), per_leaf=True), chunk=5),
        stays_finite=False,
        adds_floats=True,
    ),
    "mean_of_senders": Row(
        mean_of_senders(top_k(0.1)), stays_finite=False, of_senders=True
    ),
    "count_entries": Row(count_entries(count_bytes(all_gather(top_k(0.1))))),
    "join_channels": Row(
        join_channels(
            [all_gather(top_k(0.1)), all_reduce(random_block(0.1))], boundaries=[1]
        )
    ),
    "integers": Row(all_gather(integers(8, bucket=8)), adds_floats=True),
    # The other quantisers, one a call.
    "joined quantisers": Row(
        join_channels(
            [
                all_gather(code)
                for code in (
                    *(powers_of_two(bucket=8), float8(bucket=8), centroids(bucket=8)),
                    *(qsgd(64, bucket=8), terngrad(bucket=8)),
                )
            ],
            boundaries=[1, 2, 3, 4],
        )
    ),
}

SHAPES = {
    "float32": {"float32": [(4, 5), (30,)]},
    "float64": {"float64": [(4, 5), (30,)]},
    "bfloat16": {"bfloat16": [(4, 5), (30,)]},
    "float8": {
        "float8_e4m3fn": [(4, 5)],
        "float8_e5m2": [(30,)],
        "float32": [(3,)],
        "bfloat16": [()],
    },
    "mixed": {
        "bfloat16": [(30,), (0,)],
        "float32": [(4, 5), ()],
        "float16": [(3,), (0, 3)],
    },
    "scalar and empty": {"float32": [(), (0, 3), (1,)], "bfloat16": [(0,)]},
    "all empty": {"float32": [(0,), (2, 0)]},
    "leafless": {},
}


VARIANTS = {
    *("dense", "top_k per leaf", "sampled_top_k", "thinned per leaf", "threshold"),
    *("gathered random_k", "random_block per leaf", "scaled_sign per leaf"),
    *("quantised", "chunked_top_k", "joined quantisers", "drop_all", "count_entries"),
    *("disagreement", "compressed_gossip", "gossip_differences_overlapped"),
    *("random_gossip", "alternating_low_rank", "in_frequencies"),
}
"""Rows whose costly tests are in the slow run, since most of their code is others'."""


def draw_trees(kind: str, seed: int = 0):
    """A tree of random numbers, of a kind of `SHAPES`, with a leading axis of workers.

    Its first level has a list of leaves for each dtype.
    """
    draw = np.random.default_rng(seed)
    return {
        dtype: [
            draw.normal(size=(WORKERS, *s)).astype(jnp.dtype(dtype)) for s in shapes
        ]
        for dtype, shapes in SHAPES[kind].items()
    }


def wide(leaf: jax.typing.ArrayLike) -> np.ndarray:
    """As float64."""
    return np.asarray(leaf).astype(np.float64)


def in_flight(state: Tree) -> Tree | None:
    """What arrives in the next call, if messages are late."""
    found = find(state, DelayedMessagesState)
    return found[0].in_flight if found else None


def assert_law(
    trees,
    mean: Tree,
    lost: Tree,
    rtol: float,
    own: bool = False,
    late: Tree | None = None,
) -> None:
    """The law of channels: the mean of `mean` is the mean of tree - lost.

    Where something is in flight, that is tree - lost. Unless means are each worker's
    own, all workers have the same bits. Trees are of the form that `draw_trees`
    returns.
    """

    def check(leaf, mean, lost, arriving):
        sent = (wide(leaf) - wide(lost)).mean(axis=0)
        arrived = wide(arriving).mean(axis=0)
        np.testing.assert_allclose(arrived, sent, rtol=rtol, atol=rtol)
        for worker in mean if not own else ():
            assert np.asarray(worker).tobytes() == np.asarray(mean[0]).tobytes()

    jax.tree.map(check, trees, mean, lost, mean if late is None else late)
    expected = {
        dtype: [np.zeros_like(x, accumulator_dtype(x.dtype)) for x in leaves]
        for dtype, leaves in trees.items()
    }
    chex.assert_trees_all_equal_shapes_and_dtypes(mean, expected)
    chex.assert_trees_all_equal_shapes_and_dtypes(lost, expected)


def assert_law_of(
    name: str, trees, mean: Tree, lost: Tree, rtol: float, late: Tree | None = None
) -> None:
    """The law of a row: that of channels, or of `mean_of_senders`."""
    row = CHANNELS[name]
    if not row.of_senders:
        assert_law(trees, mean, lost, rtol, row.own_means, late)
        return

    def check(leaf, mean, lost):
        sent = wide(leaf) - wide(lost)
        times = np.maximum(np.count_nonzero(sent, axis=0), 1)
        for worker in wide(mean):
            np.testing.assert_allclose(times * worker, sent.sum(axis=0), rtol, rtol)

    jax.tree.map(check, trees, mean, lost)
