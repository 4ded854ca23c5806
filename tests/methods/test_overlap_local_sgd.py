"""Tests of Overlap-Local-SGD; its paper is in test_laws."""

import numpy as np
import optax
import pytest

import gmc_jax
from gmc_jax import exact, overlap_local_sgd
from tests.support import harness
from tests.support.virtual_iterates import SCHEDULE, problem


@pytest.mark.slow
def test_without_a_pull_workers_train_alone():
    tx = overlap_local_sgd(optax.sgd(SCHEDULE), exact(), period=3, pull=0.0)
    ours, _ = harness.run(tx, problem())
    sgd = gmc_jax.dmsgd_local(SCHEDULE, gmc_jax.no_communication(), momentum=0)
    alone, _ = harness.run(sgd, problem())
    np.testing.assert_allclose(ours, alone, rtol=0, atol=1e-12)


def test_errors_name_what_is_wrong():
    sgd = optax.sgd(0.1)
    with pytest.raises(ValueError, match="`period`"):
        overlap_local_sgd(sgd, exact(), period=0)
    with pytest.raises(ValueError, match="`pull`"):
        overlap_local_sgd(sgd, exact(), period=2, pull=1.1)
    with pytest.raises(ValueError, match="`anchor_momentum`"):
        overlap_local_sgd(sgd, exact(), period=2, anchor_momentum=1.0)
