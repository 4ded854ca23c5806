"""Tests of block momentum; its paper is in test_laws, SlowMo's half in test_slowmo."""

import numpy as np
import optax
import pytest

from gmc_jax import bmuf, exact, local_sgd
from tests.support import harness
from tests.support.virtual_iterates import SCHEDULE, problem


@pytest.mark.parametrize("nesterov", [False, True])
def test_without_block_momentum_it_is_local_sgd(nesterov):
    ours, _ = harness.run(
        bmuf(
            optax.sgd(SCHEDULE),
            exact(),
            period=4,
            block_momentum=0.0,
            nesterov=nesterov,
        ),
        problem(),
    )
    local, _ = harness.run(local_sgd(SCHEDULE, exact(), period=4), problem())
    np.testing.assert_allclose(ours, local, rtol=0, atol=1e-12)


def test_errors_name_what_is_wrong():
    with pytest.raises(ValueError, match="`block_momentum`"):
        bmuf(optax.sgd(0.1), exact(), period=2, block_momentum=1)
    with pytest.raises(ValueError, match="`block_learning_rate`"):
        bmuf(optax.sgd(0.1), exact(), period=2, block_learning_rate=np.inf)
    with pytest.raises(ValueError, match="`period`"):
        bmuf(optax.sgd(0.1), exact(), period=0)
