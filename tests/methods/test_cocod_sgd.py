"""Tests of CoCoD-SGD; its paper is in test_laws, its parts in test_delayed_sync."""

import numpy as np
import optax
import pytest

import gmc_jax
from gmc_jax import cocod_sgd, exact
from tests.support import harness
from tests.support.virtual_iterates import SCHEDULE, problem


@pytest.mark.slow
def test_one_worker_takes_the_steps_of_the_inner_optimizer():
    alone = problem()._replace(
        hessians=problem().hessians[:1],
        targets=problem().targets[:1],
        noise=problem().noise[:, :1],
    )
    ours, _ = harness.run(cocod_sgd(optax.sgd(SCHEDULE), exact(), period=3), alone)
    sgd, _ = harness.run(gmc_jax.dmsgd(SCHEDULE, exact(), momentum=0), alone)
    np.testing.assert_allclose(ours.reshape(sgd.shape), sgd, rtol=0, atol=1e-12)


def test_errors_name_what_is_wrong():
    with pytest.raises(ValueError, match="`period`"):
        cocod_sgd(optax.sgd(0.1), exact(), period=0)
