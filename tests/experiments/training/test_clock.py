"""Simulated seconds, against sums by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.training.clock import seconds_at
from experiments.training.compression import Compression
from experiments.training.methods import METHODS
from gmc_jax.clocks.link import Link

PARAMS = {"kernel": jnp.zeros((50, 20))}  # 4,000 bytes.
LINK = Link(latency=0.01, bandwidth=1e4)
COMPRESSION = Compression("top_k", 0.01, workers=4, steps=24, counts=False)
# A ring of 4 workers: 3/4 of the bytes twice, and six hops.
DENSE = 6 * 0.01 + 1.5 * 4000 / 1e4


def after(name, step_time):
    return seconds_at(METHODS[name], COMPRESSION, PARAMS, LINK, step_time)


def test_a_dense_step_computes_and_then_communicates():
    expected = np.arange(25) * (0.2 + DENSE)
    np.testing.assert_allclose(after("adamw", 0.2), expected, rtol=1e-6)


def test_a_sparse_step_gathers_values_and_indices():
    step = 0.2 + 6 * 0.01 + 3 * 80 / 1e4
    np.testing.assert_allclose(after("gmc", 0.2), np.arange(25) * step, rtol=1e-6)


def test_local_steps_communicate_once_a_period():
    meetings = np.arange(25) // 12
    expected = np.arange(25) * 0.2 + meetings * DENSE
    np.testing.assert_allclose(after("adamw_diloco", 0.2), expected, rtol=1e-6)


@pytest.mark.parametrize("step_time", [0.2, 5.0])
def test_messages_beside_the_computation_take_the_longer_of_the_two(step_time):
    expected = np.arange(25) * step_time
    # The one leaf is a fragment; its message travels beside the 13th step.
    expected += np.arange(-1, 24).clip(0) // 12 * max(0, DENSE - step_time)
    got = after("streaming_diloco", step_time)
    np.testing.assert_allclose(got, expected, rtol=1e-6)
