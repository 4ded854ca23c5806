"""Methods whose hyper-parameters `optax.inject_hyperparams` turns into state."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gmc_jax import (
    d2,
    d_psgd,
    double_averaging,
    exact,
    gradient_tracking,
    local_sgd,
    majority_vote,
    post_local_sgd,
    sgp,
    signum,
    topologies,
)
from tests.runners import start

RING = topologies.ring(8)
INJECTED = {
    "local_sgd": functools.partial(local_sgd, channel=exact(), period=3),
    "post_local_sgd": functools.partial(post_local_sgd, channel=exact(), start=2),
    "double_averaging": functools.partial(
        double_averaging, channel=exact(), buffer_channel=exact(), period=3
    ),
    "signum": functools.partial(signum, channel=majority_vote(), weight_decay=0.1),
    "d_psgd": functools.partial(d_psgd, topology=RING),
    "d2": functools.partial(d2, topology=topologies.lazy(RING)),
    "gradient_tracking": functools.partial(gradient_tracking, topology=RING),
    "sgp": functools.partial(sgp, topology=RING),
}


def moved(tx):
    """How far one step leads."""

    @functools.partial(jax.vmap, axis_name="workers", in_axes=None, axis_size=8)
    def step(params, state):
        return tx.update(jax.tree.map(jnp.ones_like, params), state, params)[0]

    return jax.jit(step)(start(), tx.init(start()))


@pytest.mark.parametrize("name", INJECTED)
def test_injected_rates_and_momenta_change_nothing(name):
    factory = INJECTED[name]
    static = {"delay"} if name == "sgp" else set()
    injected = optax.inject_hyperparams(factory, static_args=static)(
        learning_rate=0.1, momentum=0.8
    )
    step = moved(injected)
    plain = moved(factory(learning_rate=0.1, momentum=0.8))
    chex.assert_trees_all_close(step, plain, rtol=1e-5)
    assert all(np.any(leaf) for leaf in jax.tree.leaves(step))


def test_what_shapes_the_program_is_not_injected():
    tx = optax.inject_hyperparams(functools.partial(sgp, topology=RING))(0.1, delay=2)
    with pytest.raises(TypeError, match=r"`delay` shapes .* `static_args`"):
        jax.jit(lambda state: tx.update(start(), state, start()))(tx.init(start()))
