"""Tests of compressed messages between neighbours: their sums, and what is sent."""

import functools
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gmc_jax
from gmc_jax import (
    compressed_gossip,
    dense,
    gossip,
    gossip_differences,
    gossip_differences_overlapped,
    message_bits,
    random_block,
    random_k,
    scaled_sign,
    top_k,
    topologies,
    wire_bytes,
)
from tests.support import harness
from tests.support.compressors import thinned

TOPOLOGIES = {
    "ring": topologies.ring(8),
    "exponential": topologies.exponential(8),
    # Some workers have fewer neighbours, so messages without a weight fill the gaps.
    "path": topologies.from_adjacency(np.eye(8, k=1) + np.eye(8, k=-1)),
    "apart": gmc_jax.Topology((np.eye(8),)),
}
NEIGHBOURS = {"ring": 2, "exponential": 3, "path": 2, "apart": 0}
FACTORIES = [
    compressed_gossip,
    functools.partial(gossip_differences, consensus_step=0.5),
    functools.partial(gossip_differences_overlapped, consensus_step=0.5),
]


def trees(dtype: str = "float32") -> dict[str, np.ndarray]:
    draw = np.random.default_rng(0)
    shapes = {"kernel": (8, 4, 5), "bias": (8, 5)}
    return {
        name: np.asarray(draw.normal(size=shape), jnp.dtype(dtype))
        for name, shape in shapes.items()
    }


@pytest.mark.parametrize(
    ("name", "code", "per_leaf"),
    [
        ("ring", scaled_sign(), False),
        *(
            pytest.param(name, code, per_leaf, marks=pytest.mark.slow)
            for name in TOPOLOGIES
            for code in (top_k(0.2), random_k(0.3), random_block(0.3), thinned())
            for per_leaf in (False, True)
        ),
    ],
)
def test_means_are_the_rows_of_the_matrix_times_what_arrives(name, code, per_leaf):
    topology, values = TOPOLOGIES[name], trees()
    channel = compressed_gossip(topology, code, per_leaf=per_leaf, seed=3)
    mean, lost, _ = harness.average(channel, values, calls=2)
    for leaf, value in values.items():
        arrived = value - np.asarray(lost[leaf])
        expected = np.einsum("ij,j...->i...", topology.rounds[0], arrived)
        np.testing.assert_allclose(mean[leaf], expected, rtol=1e-5, atol=1e-6)
    if code.shared:  # Others draw for each worker.
        served = gmc_jax.simulated_server(code, per_leaf=per_leaf, seed=3)
        _, alike, _ = harness.average(served, values, calls=2)
        jax.tree.map(np.testing.assert_array_equal, lost, alike)


@pytest.mark.slow
def test_workers_draw_by_the_rule_of_all_gather():
    values = trees()
    _, lost, _ = harness.average(
        compressed_gossip(TOPOLOGIES["ring"], thinned(), seed=3), values, calls=2
    )
    _, gathered, _ = harness.average(
        gmc_jax.all_gather(thinned(), seed=3), values, calls=2
    )
    jax.tree.map(np.testing.assert_array_equal, lost, gathered)


def test_what_loses_nothing_is_gossip():
    values = trees()
    mean, lost, _ = harness.average(
        compressed_gossip(TOPOLOGIES["exponential"], dense()), values
    )
    expected, _, _ = harness.average(gossip(TOPOLOGIES["exponential"]), values)
    harness.close(mean, expected)
    assert not any(map(np.any, jax.tree.leaves(lost)))


@pytest.mark.filterwarnings("ignore:This step trains 8 separate models")
@pytest.mark.parametrize(
    ("make", "name", "code"),
    [
        (FACTORIES[1], "ring", top_k(0.2)),
        *(
            pytest.param(make, name, code, marks=pytest.mark.slow)
            for make in FACTORIES
            for name in TOPOLOGIES
            for code in (top_k(0.2), scaled_sign(), random_block(0.2))
        ),
    ],
)
def test_only_messages_cross_the_wire(make, name, code):
    """To each neighbour of the busiest worker one, and no vector as it is."""
    channel, params = make(TOPOLOGIES[name], code), harness.start()
    alone = message_bits(gmc_jax.all_gather(code), params)
    assert message_bits(channel, params) == NEIGHBOURS[name] * alone
    tx = gmc_jax.adapt_then_combine(channel)
    state = params, tx.init(params)
    batch = jax.tree.map(lambda b: b[0], harness.targets(params, 1))
    train, state = gmc_jax.distribute(harness.step_of(tx), state, batch)
    sent = wire_bytes(train, state, batch)
    assert {operation[0] for operation in sent.operations} <= {"collective-permute"}
    assert sent == sent.always == NEIGHBOURS[name] * alone // 8


def test_entries_count_places_as_values():
    """So that the relative cost of what travels with indices is twice as large."""
    tree = np.zeros(20, np.float32)
    assert compressed_gossip(TOPOLOGIES["ring"], top_k(0.2)).entries(tree) == 2 * 8
    drawn = compressed_gossip(TOPOLOGIES["ring"], random_block(0.2))
    assert drawn.entries(tree) == 2 * 4


@pytest.mark.parametrize("make", FACTORIES, ids=["plain", "differences", "overlapped"])
def test_errors_name_what_is_wrong(make):
    name = getattr(make, "func", make).__name__
    ring, code = topologies.ring(8), top_k(0.5)
    with pytest.raises(ValueError, match="must have one round, got 3"):
        make(topologies.one_peer_exponential(8), code)
    with pytest.raises(ValueError, match="doubly stochastic"):
        make(topologies.pushing([[0, 1, 1], [1, 0, 0], [1, 0, 0]]), code)
    with pytest.raises(TypeError, match="`topology` must be a topology"):
        make(cast(Any, np.eye(3)), code)
    with pytest.raises(TypeError, match="`compressor` must be"):
        make(ring, gossip(ring))
    with pytest.raises(ValueError, match="axis 'workers', which has 4, got one of 8"):
        harness.average(make(ring, code), np.ones((4, 2), np.float32))
    with pytest.raises(TypeError, match="hold real floats"):
        harness.average(make(ring, code), np.ones((8, 2), int))
    channel = make(ring, code)
    with pytest.raises(NameError, match=f"`{name}` needs the named axis"):
        channel.average(jnp.ones(2), channel.init(jnp.ones(2)))
    half = jax.ShapeDtypeStruct((2**30,), jnp.float32)
    with pytest.raises(ValueError, match=rf"`{name}\(..., per_leaf=True\)`"):
        channel.bits([half, half])


def test_what_is_no_number_stays_among_neighbours():
    values = np.ones((8, 20), np.float32)
    values[0, 3] = np.nan
    channel = compressed_gossip(TOPOLOGIES["path"], top_k(0.1))
    mean, _, _ = harness.average(channel, values)
    reached = np.isnan(np.asarray(mean)).any(axis=1)
    np.testing.assert_array_equal(reached, TOPOLOGIES["path"].rounds[0][:, 0] > 0)
