"""What holds under JAX's switches, over the tables of channels and of methods.

Users set them to find their own faults: without compilation, with NaN as an error,
where ranks or dtypes are mixed. Nothing of ours may be what they find. By default one
of each kind meets each switch; the whole product is slow.
"""

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterator

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.support.channels import (
    CHANNELS,
    VARIANTS,
    assert_law_of,
    draw_trees,
    in_flight,
)
from tests.support.harness import WORKERS, start, step_of, targets
from tests.support.methods import METHODS

# What shows where a program is traced, and what shows where it runs.
TRACED = {
    "no promotion": {
        "jax_numpy_rank_promotion": "raise",
        "jax_numpy_dtype_promotion": "strict",
    },
    "x64": {"jax_enable_x64": True},
    "no leaks": {"jax_check_tracer_leaks": True},
    "other keys": {
        "jax_enable_custom_prng": True,
        "jax_default_prng_impl": "rbg",
        "jax_threefry_partitionable": False,
    },
}
RUN = {
    "disable_jit": {"jax_disable_jit": True},
    "debug_nans": {"jax_debug_nans": True, "jax_debug_infs": True},
    "x64": {"jax_enable_x64": True},
    "products in float32": {"jax_default_matmul_precision": "float32"},
}
# Without them every operation is compiled by itself, so that each is seen.
AS_ONE_PROGRAM = {"x64", "products in float32"}


def compiled_under(switch: str) -> Callable:
    """Runs a function as one program where that shows all that may go wrong."""
    return jax.jit if switch in AS_ONE_PROGRAM else lambda function: function


@contextlib.contextmanager
def switched(settings: dict) -> Iterator[None]:
    """JAX with other settings."""
    before = {name: getattr(jax.config, name) for name in settings}
    try:
        for name, value in settings.items():
            jax.config.update(name, value)
        yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)


CENTRAL = [name for name in CHANNELS if name not in VARIANTS]


def product(names, switches, by_default: set) -> list:
    return [
        pytest.param(
            *pair,
            marks=() if pair in by_default else pytest.mark.slow,
            id=" ".join(pair),
        )
        for pair in itertools.product(names, switches)
    ]


def averages(name: str, trees):
    """Every worker's mean, lost and in flight, of a channel that is traced anew."""
    channel = CHANNELS[name].channel

    def average(tree):
        mean, lost, state = channel.average(tree, channel.init(tree))
        return mean, lost, in_flight(state)

    return jax.vmap(average, axis_name=channel.axis_name)(trees)


@pytest.mark.parametrize(
    ("name", "switch"),
    product(
        CENTRAL,
        TRACED,
        {(name, "no promotion") for name in CENTRAL},
    ),
)
def test_channels_are_traced_under_every_switch(name, switch):
    """Integers of Python, ranks and dtypes are mixed nowhere without a word."""
    trees = draw_trees("mixed")
    expected = jax.eval_shape(lambda trees: averages(name, trees), trees)
    with switched(TRACED[switch]):
        ours = jax.eval_shape(lambda trees: averages(name, trees), trees)
    chex.assert_trees_all_equal_shapes_and_dtypes(ours, expected)


@pytest.mark.parametrize(
    ("name", "switch"),
    product(CENTRAL, RUN, {("random_block", "disable_jit")}),
)
def test_channels_run_under_every_switch(name, switch):
    trees = draw_trees("mixed")
    with switched(RUN[switch]):
        run = compiled_under(switch)(functools.partial(averages, name))
        mean, lost, late = run(jax.tree.map(jnp.asarray, trees))
    assert_law_of(name, trees, mean, lost, rtol=1e-6, late=late)


def steps(method: str, count: int):
    """Parameters and metrics of the last of some steps of 8 workers."""
    tx = METHODS[method].tx
    params = start()
    state, batches = (params, tx.init(params)), targets(params, count)

    def worker(batches):
        now = state
        for t in range(count):
            now, _ = step_of(tx)(now, jax.tree.map(lambda x, t=t: x[t], batches))
        return now[0]

    return jax.vmap(worker, in_axes=1, axis_name="workers", axis_size=WORKERS)(
        jax.tree.map(jnp.asarray, batches)
    )


SOME = {"gmc", "cser", "slowmo", "sgp", "signum"}


@pytest.mark.parametrize(
    ("method", "switch"),
    product(METHODS, TRACED, {(method, "no promotion") for method in SOME}),
)
def test_methods_are_traced_under_every_switch(method, switch):
    settings = dict(TRACED[switch])
    if method in ("diloco", "streaming_diloco"):  # The Adam of optax mixes dtypes.
        settings.pop("jax_numpy_dtype_promotion", None)
    with switched(settings):
        params = jax.eval_shape(lambda: steps(method, 1))
    for leaf in jax.tree.leaves(params):
        assert leaf.dtype == np.float32


@pytest.mark.slow
@pytest.mark.parametrize("switch", RUN)
@pytest.mark.parametrize("method", METHODS)
def test_methods_run_under_every_switch(method, switch):
    """A step without and one with what happens in every second one."""
    with switched(RUN[switch]):
        ours = compiled_under(switch)(functools.partial(steps, method, 2))()
    chex.assert_tree_all_finite(ours)
