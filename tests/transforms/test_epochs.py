"""Tests of epochs alone; Katyusha X is in methods/test_katyusha_x."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gmc_jax import epochs, full_gradient_due


def test_the_last_update_of_an_epoch_moves_to_the_next_start():
    tx = epochs(optax.sgd(1.0), 2, lambda k, y, x, last: y + 10 * k + 0 * (x + last))
    params = jnp.zeros(1)
    updates: Any
    state: Any = tx.init(params)
    trace, due = [], []
    for _ in range(5):
        due.append(bool(full_gradient_due(state)))
        updates, state = tx.update(-jnp.ones(1), state, params)
        params = params + updates
        trace.append(float(params[0]))
    assert trace == [1, 12, 13, 34, 35]
    assert due == [True, False, True, False, True]
    np.testing.assert_array_equal(state.last, [14])
    np.testing.assert_array_equal(state.evaluate(params), [14])


def test_the_epoch_length_must_be_a_whole_number():
    with pytest.raises(ValueError, match="`epoch_length`"):
        epochs(optax.sgd(1.0), 0)


def test_random_lengths_follow_the_documented_rule():
    """The length of epoch k is drawn with the seed and k alone."""
    tx = epochs(optax.sgd(1.0), 3, random_length=True, seed=3)
    lengths = []
    state: Any = tx.init(jnp.zeros(1))
    step = jax.jit(tx.update)
    for _ in range(40):
        if full_gradient_due(state):
            lengths.append(int(state.length))
        _, state = step(jnp.zeros(1), state, jnp.zeros(1))
    keys = [jax.random.fold_in(jax.random.key(3), k + 1) for k in range(len(lengths))]
    assert lengths == [int(jax.random.geometric(key, 1 / 3)) for key in keys]
    assert len(set(lengths)) > 2
