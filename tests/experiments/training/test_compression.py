"""How a comparison compresses: what methods send."""

import jax.numpy as jnp
import pytest

import gmc_jax
from experiments.training.compression import Compression
from experiments.training.methods import METHODS

PARAMS = {"weights": jnp.zeros((40, 20)), "bias": jnp.zeros(200)}


@pytest.mark.parametrize(
    ("method", "compressor", "bits"),
    [
        ("gmc", "top_k", 100 * 64),
        ("gmc", "random_k", 100 * 32),
        ("gmc", "random_block", 100 * 32),
        ("gmc", "sampled_top_k", 130 * 64),
        ("gmc", "chunked_top_k", 100 * 32 + (25 + 13) * 32),
        ("gmc", "integers", 1000 * 8 + 2 * 32),
        ("gmc_two_phase", "top_k", 1000 * 8 + 2 * 32),
        ("power_sgd", "top_k", (2 * (40 + 20) + 200) * 32),
        ("gmc", "dense", 1000 * 32),
        ("dmsgd", "top_k", 1000 * 32),
        ("cser", "random_block", 50 * 32 + 100 * 32 / 2),
        ("dist_ef_sgdm", "top_k", 100 * 64),
    ],
)
def test_a_worker_sends_what_its_compressor_selects(method, compressor, bits):
    assert METHODS[method].bits(Compression(compressor, 0.1), PARAMS) == bits


def test_cser_spends_what_the_others_do():
    """At the GMC paper's ratio, one half on steps and one on resets of 1/16."""
    channel, reset, period = Compression("random_block", 1 / 1024).step_and_reset()
    params = jnp.zeros(2048 * 16)

    assert period == 128
    assert gmc_jax.message_bits(channel, params) == 16 * 32
    assert gmc_jax.message_bits(reset, params) == 2048 * 32
    bits = METHODS["cser"].bits(Compression("random_block", 1 / 1024), params)
    assert bits == 32 * params.size / 1024
