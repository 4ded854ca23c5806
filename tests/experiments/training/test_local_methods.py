"""Methods with local steps, gossip or signs: what a worker sends on average."""

import jax.numpy as jnp
import pytest

import gmc_jax
from experiments.training.compression import Compression
from experiments.training.local_methods import FRAGMENTS, LOCAL_METHODS, PERIOD

PARAMS = jnp.zeros(960)
DENSE = 32 * 960


@pytest.mark.parametrize(
    ("method", "bits"),
    [
        ("local_sgd", DENSE / PERIOD),
        ("slowmo", DENSE / PERIOD),
        ("slowmo_local_adam_0.4", DENSE / PERIOD),
        # A vote sends signs, and then the results for an eighth of them.
        ("signum", 960 * (1 + 1 / 8)),
        ("adam", DENSE),
    ],
)
def test_a_worker_sends_this_many_bits_in_a_step(method, bits):
    assert LOCAL_METHODS[method].bits(Compression("top_k", 0.1), PARAMS) == bits


def test_streaming_diloco_sends_one_fragment_at_a_time():
    layers = {f"Dense_{layer}": {"kernel": PARAMS} for layer in range(4)}
    tx = LOCAL_METHODS["streaming_diloco"].build(0.1, Compression("top_k", 0.1), 0.9)
    assert gmc_jax.message_bits(tx, layers) == 4 * DENSE / PERIOD
    assert gmc_jax.peak_message_bits(tx, layers) == 4 * DENSE / FRAGMENTS


def test_post_local_sgd_synchronises_at_every_step_of_the_first_half():
    steps = 10 * PERIOD
    sent = LOCAL_METHODS["post_local_sgd"].bits(
        Compression("top_k", 0.1, steps=steps), PARAMS
    )
    assert sent == pytest.approx(DENSE * (1 + 1 / PERIOD) / 2)
