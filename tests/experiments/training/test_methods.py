"""The registry of methods."""

import pkgutil

import jax.numpy as jnp
import pytest

from experiments.training.compression import COMPRESSORS, Compression
from experiments.training.methods import METHODS
from gmc_jax import methods as published

PARAMS = {"weights": jnp.zeros((40, 20)), "bias": jnp.zeros(200)}


@pytest.mark.parametrize("compressor", COMPRESSORS)
def test_every_method_can_be_made_with_every_compressor(compressor):
    for method in METHODS.values():
        method.build(0.1, Compression(compressor, 0.1), 0.9).init(PARAMS)


def test_labels_are_unique():
    labels = {entry.label for entry in METHODS.values()}

    assert len(labels) == len(METHODS)


def test_all_methods_of_the_library_can_be_compared():
    ours = {module.name for module in pkgutil.iter_modules(published.__path__)}

    simulations = {"a_psgd", "ad_psgd", "asynchronous"}
    of_two_gradients = {"svrg", "katyusha_x"}
    others = {"dmsgd_local", *simulations, *of_two_gradients}
    assert ours - others <= METHODS.keys()


def test_votes_of_signs_cost_the_same_whoever_makes_them():
    lion, signum = (
        METHODS[name].bits(Compression("top_k", 0.1), jnp.zeros(1024))
        for name in ("distributed_lion", "signum")
    )
    assert lion == signum == 1024 * (1 + 1 / 8)


@pytest.mark.parametrize(
    ("method", "bits"), [("qsgd", 4), ("terngrad", 2), ("natural_compression", 8)]
)
def test_a_quantiser_has_this_many_bits_an_entry(method, bits):
    params = jnp.zeros(1024)
    sent = METHODS[method].bits(Compression("top_k", 0.1), params)
    assert 1024 * bits < sent <= 1024 * bits + 2 * 32
