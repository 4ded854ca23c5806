"""Tests of the channel of one who is alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gmc_jax
from gmc_jax import (
    averaged,
    count_entries,
    message_bits,
    no_communication,
    relative_cost,
    wire_bytes,
)
from tests.support import harness
from tests.support.channels import draw_trees
from tests.support.harness import start, step_of, targets


def test_everyones_mean_is_its_own():
    trees = draw_trees("mixed")
    mean, lost, _ = harness.average(no_communication(), trees)
    jax.tree.map(
        lambda x, y: np.testing.assert_array_equal(np.float32(x), y), trees, mean
    )
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(lost))
    assert {str(leaf.dtype) for leaf in jax.tree.leaves((mean, lost))} == {"float32"}


def test_nothing_is_sent_and_nothing_counts():
    tx = averaged(count_entries(no_communication()))
    batch = jax.tree.map(lambda b: b[0], targets(start(), 1))
    state = start(), tx.init(start())
    train, state = gmc_jax.distribute(step_of(tx), state, batch)
    assert (
        wire_bytes(train, state, batch)
        == message_bits(no_communication(), start())
        == 0
    )
    state, _ = train(state, batch)
    assert relative_cost(state) == 0


def test_a_leaf_that_is_not_floating_is_an_error():
    with pytest.raises(TypeError, match="hold real floats"):
        no_communication().average({"step": jnp.ones(3, int)}, ())
    assert no_communication(axis_name="replicas").axis_name == "replicas"
