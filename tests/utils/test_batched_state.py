"""Which leaves of a state differ between workers."""

import jax
import jax.numpy as jnp
import pytest
from jax.custom_batching import custom_vmap
from jax.extend.core import Primitive
from jax.interpreters import batching

from gmc_jax.utils import batched_state as module
from gmc_jax.utils.batched_state import batched_results, batched_state

X = jnp.arange(3.0)


def traced(fn, *args):
    return jax.make_jaxpr(fn, axis_env=[("workers", 4)])(*args)


def psum(x):
    return jax.lax.psum(x, "workers")


@custom_vmap
def mean_of_batch(x):
    """Its rule batches nothing, although it is made of plain operations."""
    return 2 * x


@mean_of_batch.def_vmap
def _(size, batched, x):
    del size, batched
    return jnp.mean(x, axis=0), False


drawn_once_p = Primitive("drawn_once")
"""A primitive whose own rule batches nothing, as plain as it looks."""
drawn_once_p.def_abstract_eval(lambda x: x)
batching.primitive_batchers[drawn_once_p] = lambda args, dims: (
    drawn_once_p.bind(args[0][0]),
    None,
)


def index(x):
    return x + jax.lax.axis_index("workers")


def branch(x, batch):
    return jax.lax.cond(x[0] > 0, lambda: x + batch, lambda: x)


def loop(x, batch):
    return jax.lax.fori_loop(0, 2, lambda _, c: c + batch, x)


STEPS = {
    "plain": lambda x, y, b: (x + b, y * 2),
    "through another leaf": lambda x, y, b: (x + y, y + b),
    "mean": lambda x, y, b: (x + psum(b), y),
    "mean of the state": lambda x, y, b: (x + psum(y), y + b),
    "index": lambda x, y, b: (index(x), y + psum(x)),
    "branch": lambda x, y, b: (branch(x, b), branch(y, psum(b))),
    "loop": lambda x, y, b: (loop(x, b), loop(y, x)),
    "called": lambda x, y, b: (jax.jit(jnp.add)(x, b), jax.checkpoint(jnp.sin)(x)),
    "sorted": lambda x, y, b: (jax.lax.sort((x, b))[0], y + x),
    "own rule": lambda x, y, b: (x + mean_of_batch(b), y + mean_of_batch(b)),
    "primitive's own rule": lambda x, y, b: (drawn_once_p.bind(b), y + x),
    "own rule of the state": lambda x, y, b: (x + mean_of_batch(y), y + b),
}


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_it_is_what_rounds_from_nothing_come_to(step):
    program = traced(step, X, X, X)
    before, after = None, [False, False]
    while before != after:
        before = after
        after = batched_results(program, [*before, True], 4, "workers")
    assert batched_state(program, 2, 4, "workers") == after


def test_what_plain_operations_batch_takes_one_round(monkeypatch):
    rounds = []

    def counted(*args):
        rounds.append(args)
        return batched_results(*args)

    monkeypatch.setattr(module, "batched_results", counted)
    for name in ("plain", "through another leaf", "mean of the state", "branch"):
        rounds.clear()
        batched_state(traced(STEPS[name], X, X, X), 2, 4, "workers")
        assert len(rounds) == 1, name


def test_results_differ_if_they_depend_on_differing_arguments():
    def fn(x, y):
        return x + 1, y + psum(x), x * y, jax.lax.axis_index("workers") + 0 * y[0]

    found = batched_results(traced(fn, X, X), [True, False], 4, "workers")
    assert found == [True, False, True, True]
    found = batched_results(traced(fn, X, X), [False, False], 4, "workers")
    assert found == [False, False, False, True]
