"""Calls whose messages are late: what they return, have in flight and wait for."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gmc_jax import Channel, DelayedMessagesState
from gmc_jax.core import Tree
from gmc_jax.utils import jaxprs
from gmc_jax.utils.trees import find
from tests.support import problems


class Calls(NamedTuple):
    """What some calls returned, each with leading axes of calls and workers."""

    means: Tree
    lost: Tree
    states: Tree


def calls_of(channel: Channel, trees: Tree) -> Calls:
    """Averages trees, whose leading axes are calls and workers, one after another."""
    start = channel.init(jax.tree.map(lambda leaf: leaf[0, 0], trees))

    def everything(trees):
        def call(state, tree):
            mean, lost, state = channel.average(tree, state)
            return state, (mean, lost, state)

        return jax.lax.scan(call, start, trees)[1]

    workers = jax.vmap(everything, in_axes=1, out_axes=1, axis_name="workers")
    return Calls(*jax.tree.map(np.asarray, jax.jit(workers)(trees)))


def trees_of_calls(calls: int = 5, dtype: str = "float64") -> Tree:
    """Trees of three workers."""
    draw = np.random.default_rng(0)
    shapes = {"a": (4, 5), "b": (7,), "c": (4, 5), "empty": (0,)}
    return {
        name: draw.normal(size=(calls, 3, *shape)).astype(jnp.dtype(dtype))
        for name, shape in shapes.items()
    }


def in_flight(states: Tree) -> Tree:
    """What arrives in the next call of the one channel whose messages are late."""
    (state,) = find(states, DelayedMessagesState)
    return state.in_flight


def mean_in_flight(states: Tree) -> np.ndarray:
    """The mean over workers, flat: [steps + 1, d]."""
    return problems.flat(in_flight(states), leading=2).mean(axis=1)


def senders_that_wait(tx: optax.GradientTransformation, params: Tree) -> list[str]:
    """The collectives with an operand that depends on the updates or parameters.

    All others read nothing but the state, so they may run beside the gradient.
    """
    state = tx.init(params)
    program = jax.make_jaxpr(tx.update, axis_env=[("workers", 8)])(
        params, state, params
    )
    values = len(jax.tree.leaves(params))
    of_call = [True] * values
    followed = [*of_call, *[False] * len(jax.tree.leaves(state)), *of_call]
    waiting: list[jaxprs.JaxprEqn] = []
    jaxprs.flow(program, followed, visit=waiting.append)
    assert any(jaxprs.sends(each, "workers") for each in jaxprs.equations(program))
    return [
        equation.primitive.name
        for equation in waiting
        if jaxprs.sends(equation, "workers")
    ]
