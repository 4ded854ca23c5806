"""Strategies for the inner optimizer's buffers when workers synchronise."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import optax

from gmc_jax.core import Channel, Tree
from gmc_jax.transforms._average_in_dtype import average_in_dtype
from gmc_jax.transforms._conserved import is_conserved
from gmc_jax.transforms._mirrors import mirrors
from gmc_jax.utils import checks
from gmc_jax.utils.call_repr import call_repr


class Buffers(NamedTuple):
    """A strategy for the buffers of an inner optimizer when workers synchronise.

    Attributes:
      init: `(inner, fresh) -> state`, the state of the strategy. `inner` is the inner
        optimizer, a transformation, and `fresh` its initial state.
      synchronise: `(inner, own, fresh, state) -> (own, state)`. `own` is this worker's
        state of the inner optimizer. `fresh` is an initial state at the point where
        workers synchronise.
    """

    init: Callable[[optax.GradientTransformation, Tree], Tree]
    synchronise: Callable[
        [optax.GradientTransformation, Tree, Tree, Tree], tuple[Tree, Tree]
    ]


@call_repr
def maintain_buffers() -> Buffers:
    """Keeps each worker's own buffers.

    Returns:
      A strategy for `periodic` and the methods made of it.

    References:
      Wang, Tantia, Ballas and Rabbat, "SlowMo", ICLR 2020: Algorithm 1, line 2.
    """

    def synchronise(inner, own, fresh, state):
        del inner, fresh
        return own, state

    return Buffers(_no_state, synchronise)


@call_repr
def reset_buffers() -> Buffers:
    """Resets buffers to their initial values; counters, and so schedules, go on.

    Buffers are the leaves that mirror the parameters: momenta and Adam's moments. What
    a state conserves is not a buffer (see `with_hooks`): residuals, messages in flight,
    anchors, corrections and trackers do not change.

    An inner optimizer that stores a point of its own, such as the schedule-free
    optimizers of optax, needs this strategy: it restarts from the point where workers
    synchronise.

    Adam's counter goes on too. So Adam does not correct the bias of its new moments
    towards 0, and takes larger steps after a synchronisation. The paper maintains
    Adam's moments.

    Returns:
      A strategy for `periodic` and the methods made of it.

    References:
      Wang, Tantia, Ballas and Rabbat, "SlowMo", ICLR 2020: Algorithm 1, line 2.
    """

    def synchronise(inner, own, fresh, state):
        return jax.tree.map(_pick, _are_buffers(inner, own), fresh, own), state

    return Buffers(_no_state, synchronise)


@call_repr
def average_buffers(channel: Channel) -> Buffers:
    """Averages over workers the buffers that `reset_buffers` would reset.

    Args:
      channel: averages all buffers as one tree. A dense channel sends as much as the
        parameters for each vector that the inner optimizer stores.

    Returns:
      A strategy for `periodic` and the methods made of it.

    Raises:
      TypeError: if `channel` is not a channel.

    References:
      Wang, Tantia, Ballas and Rabbat, "SlowMo", ICLR 2020: Algorithm 1, line 2. Yu, Jin
      and Yang, "On the Linear Speedup Analysis of Communication Efficient Momentum
      SGD", ICML 2019.
    """
    checks.channel(channel=channel)

    def init(inner, fresh):
        return channel.init(_buffers(_are_buffers(inner, fresh), fresh))

    def synchronise(inner, own, fresh, state):
        del fresh
        are_buffers = _are_buffers(inner, own)
        buffers = _buffers(are_buffers, own)
        mean, _, state = average_in_dtype(channel, buffers, state, buffers)
        means = iter(jax.tree.leaves(mean))
        averaged = [
            next(means).astype(leaf.dtype) if is_buffer else leaf
            for is_buffer, leaf in zip(
                jax.tree.leaves(are_buffers), jax.tree.leaves(own), strict=True
            )
        ]
        return jax.tree.unflatten(jax.tree.structure(own), averaged), state

    return Buffers(init, synchronise)


def _no_state(inner: optax.GradientTransformation, fresh: Tree) -> Tree:
    del inner, fresh
    return ()


def _are_buffers(inner: optax.GradientTransformation, state: Tree) -> Tree:
    """Which leaves mirror a parameter and are not conserved."""
    return jax.tree.map(
        lambda mirror, conserved: mirror and not conserved,
        mirrors(inner, state),
        is_conserved(state),
    )


def _pick(first: bool, one: jax.Array, other: jax.Array) -> jax.Array:
    return one if first else other


def _buffers(are_buffers: Tree, state: Tree) -> list[jax.Array]:
    pairs = zip(jax.tree.leaves(are_buffers), jax.tree.leaves(state), strict=True)
    return [leaf for is_buffer, leaf in pairs if is_buffer]
