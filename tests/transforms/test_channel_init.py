"""`Channel.init` receives the shapes and dtypes that `average` gets, in every method.

Each factory is given channels that record both, for parameters of 32 bits, of 16 bits,
and of both.
"""

import functools
import inspect
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
import pytest

import gmc_jax
from gmc_jax import Channel, average_buffers, averaged, error_feedback, periodic
from gmc_jax.core import Tree, with_hooks
from gmc_jax.utils.trees import upcast, zeros_to_accumulate
from tests.support.factories import RIGHT, SGD, found

WORKERS = 3
DTYPES = {
    "float32": ("float32", "float32"),
    "bfloat16": ("bfloat16", "bfloat16"),
    "mixed": ("bfloat16", "float32"),
}
every_dtype = pytest.mark.parametrize("dtypes", DTYPES.values(), ids=DTYPES.keys())


@with_hooks
class RecordingState(NamedTuple):
    """What `init` received, as zeros."""

    received: Tree

    def conserved(self) -> Tree:
        return self.received


def recording(calls: list) -> Channel:
    """A channel that notes at each call what `init` and `average` received."""

    def init(tree):
        return RecordingState(jax.tree.map(jnp.zeros_like, tree))

    def average(tree, state):
        calls.append((forms(state.received), forms(tree)))
        return upcast(tree), zeros_to_accumulate(tree), RecordingState(state.received)

    return Channel(init, average, lambda tree: 0, "workers")


def forms(tree: Tree) -> Tree:
    return jax.tree.map(lambda leaf: (leaf.shape, str(leaf.dtype)), tree)


def parameters(dtypes: tuple[str, str]) -> Tree:
    kernel, bias = dtypes
    return {"kernel": jnp.ones((4, 2), kernel), "bias": jnp.ones(4, bias)}


def traced(tx: optax.GradientTransformation, params: Tree) -> None:
    """Traces two updates, all branches included."""
    tx = optax.with_extra_args_support(tx)

    def worker(gradient, params):
        state = tx.init(params)
        for _ in range(2):
            updates, state = tx.update(gradient, state, params, snapshot_grads=gradient)
            params = optax.apply_updates(params, updates)
        return state

    gradients = jax.tree.map(lambda leaf: jnp.stack([leaf] * WORKERS), params)
    workers = jax.vmap(worker, in_axes=(0, None), axis_name="workers")
    jax.eval_shape(workers, gradients, params)


def parts(name: str) -> dict[str, type]:
    """The arguments of a factory that are a channel, or may contain one."""
    hints = inspect.get_annotations(found(name), eval_str=True)
    kinds = Channel, optax.GradientTransformation
    return {k: hint for k, hint in hints.items() if hint in kinds and k != "return"}


def with_channel(name: str, channel: Channel) -> Tree:
    """What a factory makes of a channel, wherever one goes in."""
    made = {Channel: channel, optax.GradientTransformation: error_feedback(channel)}
    given = {argument: made[kind] for argument, kind in parts(name).items()}
    return found(name)(**RIGHT[name] | given)


SPECIAL = {
    "average_buffers": lambda channel: periodic(
        optax.adam(0.1), averaged(channel), 2, buffers=average_buffers(channel)
    ),
    "averaged behind optimizers": lambda channel: periodic(
        SGD, optax.chain(averaged(channel), optax.sgd(0.7, 0.9, nesterov=True)), 2
    ),
    "in_frequencies": lambda channel: averaged(gmc_jax.in_frequencies(channel)),
    "count_bytes": lambda channel: averaged(gmc_jax.count_bytes(channel)),
    "count_entries": lambda channel: averaged(gmc_jax.count_entries(channel)),
    "with_float32_state": lambda channel: gmc_jax.with_float32_state(
        optax.chain(averaged(channel), optax.adam(0.1))
    ),
}
NO_TRANSFORMATION = {"a_psgd", "ad_psgd", "average_buffers", "link_traffic"}
MADE = SPECIAL | {
    name: functools.partial(with_channel, name)
    for name in RIGHT
    if parts(name) and name not in NO_TRANSFORMATION | SPECIAL.keys()
}


@every_dtype
@pytest.mark.parametrize("make", MADE.values(), ids=MADE.keys())
def test_a_channel_starts_with_what_it_averages(make, dtypes):
    calls = []
    traced(make(recording(calls)), parameters(dtypes))
    assert calls
    for received, averaged_tree in calls:
        assert received == averaged_tree
