"""Tests of the table of every method."""

import pkgutil

import numpy as np
import pytest

from experiments import every_method, tasks
from experiments.every_method import EveryMethod
from gmc_jax import methods as published

CONFIG = EveryMethod(epochs=1).config


def test_every_method_of_the_library_has_a_line():
    simulations = {"a_psgd", "ad_psgd", "asynchronous"}
    of_two_gradients = {"svrg", "katyusha_x"}
    ours = {module.name for module in pkgutil.iter_modules(published.__path__)}
    left_out = {"dmsgd_local", *simulations, *of_two_gradients}
    assert ours - left_out <= set(CONFIG.methods)
    assert not any("0." in name for name in CONFIG.methods)


@pytest.mark.parametrize(
    ("method", "own", "shared"),
    [
        ("dmsgd", 0, 2),  # w, m
        ("gmc", 1, 2),  # e; w, d
        ("dgc", 2, 1),  # u, v; w
        ("local_sgd", 2, 1),  # x, m; z
        ("slowmo", 2, 2),  # x, m; z, u
        ("d2", 3, 0),  # x, m, x + u
        ("osgp", 3, 0),  # x, m, what is under way
    ],
)
def test_state_is_counted_in_vectors_of_the_parameters(method, own, shared):
    task = tasks.build(CONFIG, 0)
    counted = every_method.state_of(method, CONFIG, task)
    np.testing.assert_allclose(counted, (own, shared), atol=0.01)
