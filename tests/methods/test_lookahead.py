"""Tests of Lookahead, against optax's."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gmc_jax import exact, lookahead, no_communication
from tests.support import harness, problems


@pytest.mark.parametrize(
    "channel", [no_communication(), exact()], ids=["no_communication", "exact"]
)
def test_of_one_worker_it_is_optaxs(channel):
    one = problems.quadratics(1)
    inner = optax.sgd(0.02, 0.9)
    ours, _ = harness.run(lookahead(inner, channel, period=5, slow_step_size=0.3), one)
    theirs = optax.lookahead(inner, sync_period=5, slow_step_size=0.3)
    with jax.enable_x64(True):
        params: Any = optax.LookaheadParams.init_synced(jnp.asarray(one.start))
        state = theirs.init(params)
        fast = [one.start]
        for t in range(one.steps):
            gradient = jnp.asarray(one.gradient(0, t, np.asarray(params.fast)))
            updates, state = theirs.update(gradient, state, params)
            params = optax.apply_updates(params, updates)
            fast.append(np.asarray(params.fast))
    np.testing.assert_allclose(ours.reshape(51, 20), np.stack(fast), rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [0, 1.5])
def test_the_slow_weights_go_part_of_the_way(size):
    with pytest.raises(ValueError, match="`slow_step_size`"):
        lookahead(optax.sgd(0.1), exact(), slow_step_size=size)
