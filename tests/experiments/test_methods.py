"""The registry: every method is made as its line says."""

import inspect

import jax.numpy as jnp
import pytest

import gmc_jax
from experiments.methods import COMPRESSORS, METHODS, channel

PARAMS = {"weights": jnp.zeros((40, 20)), "bias": jnp.zeros(200)}


@pytest.mark.parametrize("method", METHODS)
def test_momentum_reaches_the_methods_that_have_one(method):
    entry = METHODS[method]

    assert entry.has_momentum == (
        "momentum" in inspect.signature(entry.factory).parameters
    )
    entry.build(0.1, channel(method, "top_k", 0.1, 0), 0.9).init(PARAMS)


def test_labels_are_told_apart():
    labels = {entry.label for entry in METHODS.values()}

    assert len(labels) == len(METHODS)


def test_all_methods_of_the_library_can_be_compared():
    factories = {getattr(m.factory, "func", m.factory) for m in METHODS.values()}
    published = {
        gmc_jax.dmsgd,
        gmc_jax.ef_sgd,
        gmc_jax.ef_momentum,
        gmc_jax.gmc,
        gmc_jax.gmc_server_momentum,
        gmc_jax.gmc_rate_inside,
        gmc_jax.dgc,
    }

    assert factories >= published


@pytest.mark.parametrize(
    ("method", "compressor", "bits"),
    [
        ("gmc", "top_k", 100 * 64),
        ("gmc", "random_k", 100 * 32),
        ("gmc", "random_block", 100 * 32),
        ("gmc", "sampled_top_k", 130 * 64),
        ("gmc", "identity", 1000 * 32),
        ("dmsgd", "top_k", 1000 * 32),
    ],
)
def test_a_worker_sends_what_its_compressor_selects(method, compressor, bits):
    sent = gmc_jax.message_bits(channel(method, compressor, 0.1, 0), PARAMS)

    assert compressor in COMPRESSORS
    assert sent == bits
