"""Tests of the way back from the server: the law of a tree that is everybody's."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gmc_jax
from gmc_jax import (
    all_gather,
    dense,
    error_feedback,
    exact,
    message_bits,
    random_block,
    scaled_sign,
    simulated_server,
    top_k,
    wire_bytes,
)
from tests.support import harness
from tests.support.channels import draw_trees, wide
from tests.support.compressors import thinned
from tests.support.harness import WORKERS, start, step_of, targets

COMPRESSORS = {
    "dense": dense(),
    "top_k": top_k(0.1),
    "random_block": random_block(0.1),
    "scaled_sign": scaled_sign(),
    "thinned": thinned(),
}


def same_trees(kind: str):
    """A tree that all workers hold, and that tree with a leading axis of workers."""
    tree = jax.tree.map(lambda leaf: leaf[0], draw_trees(kind))
    return tree, jax.tree.map(lambda leaf: np.stack([leaf] * WORKERS), tree)


@pytest.mark.parametrize("per_leaf", [False, True])
@pytest.mark.parametrize("name", COMPRESSORS)
def test_of_the_same_tree_mean_and_lost_are_the_same_and_add_up(name, per_leaf):
    """Also where the compressor draws, and is not shared."""
    tree, trees = same_trees("mixed")
    channel = simulated_server(COMPRESSORS[name], per_leaf=per_leaf)
    mean, lost, state = harness.average(channel, trees, calls=2)

    def check(leaf, mean, lost):
        np.testing.assert_allclose(wide(mean[0]) + wide(lost[0]), wide(leaf), rtol=1e-6)
        for of_worker in (mean, lost):
            assert {worker.tobytes() for worker in np.asarray(of_worker)} == {
                np.asarray(of_worker[0]).tobytes()
            }

    jax.tree.map(check, tree, mean, lost)
    chex.assert_trees_all_equal_dtypes(mean, lost)
    np.testing.assert_array_equal(state.step, [2] * WORKERS)
    arrives = not any(np.any(leaf) for leaf in jax.tree.leaves(lost))
    assert arrives == (name == "dense")


def test_it_answers_what_gathering_the_same_messages_would():
    _, trees = same_trees("float32")
    gathered = harness.average(all_gather(top_k(0.1)), trees)
    answered = harness.average(simulated_server(top_k(0.1)), trees)
    chex.assert_trees_all_equal(gathered[1:], answered[1:])
    chex.assert_trees_all_close(gathered[0], answered[0], rtol=1e-6)


def test_it_draws_anew_at_every_call_and_with_another_seed():
    _, trees = same_trees("float32")
    _, first, _ = harness.average(simulated_server(thinned()), trees)
    for channel, calls in (
        (simulated_server(thinned()), 2),
        (simulated_server(thinned(), seed=1), 1),
    ):
        _, other, _ = harness.average(channel, trees, calls=calls)
        with pytest.raises(AssertionError):
            chex.assert_trees_all_equal(first, other)


def test_no_axis_is_needed_since_nobody_is_asked():
    tree, _ = same_trees("float32")
    channel = simulated_server(top_k(0.1), axis_name="replicas")
    assert channel.axis_name == "replicas"
    mean, lost, _ = jax.jit(channel.average)(tree, channel.init(tree))
    chex.assert_trees_all_close(jax.tree.map(jnp.add, mean, lost), tree, rtol=1e-6)


def test_behind_a_channel_it_sends_nothing_and_keeps_one_residual():
    """Bits say what a server would send down."""
    tx = gmc_jax.dist_ef_sgdm(0.1, exact(), simulated_server(top_k(0.1), per_leaf=True))
    batch = jax.tree.map(lambda b: b[0], targets(start(), 1))
    state = start(), tx.init(start())
    train, state = gmc_jax.distribute(step_of(tx), state, batch)
    assert wire_bytes(train, state, batch) == message_bits(exact(), start()) // 8
    assert message_bits(simulated_server(top_k(0.1), per_leaf=True), start()) == 64 * (
        1 + 2
    )
    assert message_bits(simulated_server(scaled_sign()), start()) == 32 + 32
    *_, server = state[1]
    assert jax.tree.map(jnp.shape, server.residual) == jax.tree.map(jnp.shape, start())


@pytest.mark.filterwarnings("ignore:This step trains 8 separate models")
def test_of_trees_that_differ_each_worker_would_have_its_own_residual():
    """Which the layout reports: it belongs behind a channel."""
    tx = error_feedback(simulated_server(top_k(0.1)))
    batch = jax.tree.map(lambda b: b[0], targets(start(), 1))
    state = start(), tx.init(start())
    with pytest.raises(ValueError, match="with this step they differ"):
        gmc_jax.distribute(step_of(tx), state, batch, replicated=lambda s: s[0])


def test_a_leaf_that_is_not_floating_is_an_error():
    channel = simulated_server(top_k(0.1))
    with pytest.raises(TypeError, match="hold real floats"):
        channel.average({"step": jnp.ones(3, int)}, channel.init(None))


def test_a_vector_of_more_than_int32_can_address_is_an_error():
    half = jax.ShapeDtypeStruct((2**30,), jnp.float32)
    with pytest.raises(ValueError, match=r"`simulated_server\(..., per_leaf=True\)`"):
        simulated_server(top_k(1e-3)).bits([half, half])
