"""Tests of the channel that sends nothing; the law is in test_laws."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gmc_jax
from gmc_jax import (
    averaged,
    count_entries,
    drop_all,
    message_bits,
    relative_cost,
    wire_bytes,
)
from tests.support import harness
from tests.support.channels import draw_trees
from tests.support.harness import WORKERS, start, step_of, targets


def test_everything_is_lost_and_nothing_arrives():
    trees = draw_trees("mixed")
    mean, lost, _ = harness.average(drop_all(), trees)
    chex.assert_trees_all_equal(
        lost, jax.tree.map(lambda x: jnp.asarray(x, "float32"), trees)
    )
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(mean))


def test_nothing_is_sent_and_nothing_counts():
    tx = averaged(count_entries(drop_all()))
    batch = jax.tree.map(lambda b: b[0], targets(start(), 1))
    state = start(), tx.init(start())
    train, state = gmc_jax.distribute(step_of(tx), state, batch)
    assert wire_bytes(train, state, batch) == message_bits(drop_all(), start()) == 0
    state, _ = train(state, batch)
    assert relative_cost(state) == 0
    assert len(batch["bias"]) == WORKERS


def test_a_leaf_that_is_not_floating_is_an_error():
    with pytest.raises(TypeError, match="hold real floats"):
        drop_all().average({"step": jnp.ones(3, int)}, ())


def test_the_axis_may_have_another_name():
    assert drop_all(axis_name="replicas").axis_name == "replicas"
