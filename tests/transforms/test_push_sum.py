"""Tests of push-sum's precision; its equations are in methods/test_sgp."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gmc_jax import gossip, push_sum, topologies
from tests.support import harness


def test_weights_of_16_bit_trees_are_float32():
    uneven = topologies.pushing(np.eye(8, k=1) + np.eye(8, k=-1))
    tx = push_sum(gossip(uneven, delay=1))
    params = jax.tree.map(lambda x: x.astype("bfloat16"), harness.start())
    state, _ = harness.drive(
        harness.simulate,
        harness.step_of(tx),
        (params, tx.init(params)),
        harness.targets(params, 3),
    )
    assert {str(x.dtype) for x in jax.tree.leaves(state[0])} == {"bfloat16"}
    weights = jax.tree.leaves(state[1].weight)
    assert {str(x.dtype) for x in weights} == {"float32"}
    ((numerators, _),) = state[1].channel.in_flight
    assert {str(x.dtype) for x in jax.tree.leaves(numerators)} == {"bfloat16"}


def test_a_single_worker_keeps_its_weight():
    tx = push_sum(gossip(topologies.ring(1)))
    params = jnp.arange(3.0)

    def step(params):
        state: Any
        updates, state = tx.update(jnp.ones(3), tx.init(params), params)
        return params + updates, state.weight

    end, weight = jax.vmap(step, axis_name="workers")(params[None])
    np.testing.assert_array_equal(end[0], [1, 2, 3])
    np.testing.assert_array_equal(weight, [1])
