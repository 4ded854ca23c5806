"""Tests of the table of every method."""

import pkgutil

import jax
import numpy as np
import pytest

from experiments.studies.every_method import study
from experiments.studies.every_method.custom_loops import CUSTOM_LOOPS
from experiments.studies.every_method.study import EveryMethod
from experiments.training import tasks
from gmc_jax import methods as published

CONFIG = EveryMethod(epochs=1).config


def test_every_method_of_the_library_has_a_line():
    ours = {module.name for module in pkgutil.iter_modules(published.__path__)}
    left_out = {"dmsgd_local", "asynchronous"}
    assert ours - left_out <= {*CONFIG.methods, *CUSTOM_LOOPS}
    assert not any("0." in name for name in CONFIG.methods)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "messages", "own", "shared"),
    [
        # w, snapshot, full gradient, x, y
        ("svrg", 1.1, 0, 5),
        ("katyusha_x", 1.1, 0, 5),
        ("ad_psgd", 1, 3, 0),
        ("a_psgd", 1, 1, 1),
    ],
)
def test_methods_with_custom_loops_learn(name, messages, own, shared):
    task = tasks.build(CONFIG, 0)._replace(steps=40)
    line = CUSTOM_LOOPS[name][1](task, CONFIG)
    assert line.accuracy > 0.5
    size = sum(leaf.size for leaf in jax.tree.leaves(task.params))
    assert line.bytes_per_step == pytest.approx(4 * messages * size, rel=0.01)
    assert (line.own, line.shared) == pytest.approx((own, shared), abs=0.01)


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
    counted = study.state_of(method, CONFIG, task)
    np.testing.assert_allclose(counted, (own, shared), atol=0.01)
