"""What becomes of a base optimizer's buffers where workers meet."""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import jax
import optax

from gmc_jax.core import Channel, Tree
from gmc_jax.transforms.error_feedback import average_as

Mirrors: TypeAlias = Tree
"""Bools in the structure of a state: whether a leaf has a parameter it belongs to."""


class Buffers(NamedTuple):
    """A strategy for the buffers of a base optimizer, where workers meet.

    Attributes:
      init: `(mirrors, fresh) -> state`, of the strategy itself.
      meet: `(mirrors, own, fresh, state) -> (own, state)`: `own` is this worker's state
        of the base, and `fresh` what the base would start with where workers meet.
    """

    init: Callable[[Mirrors, Tree], Tree]
    meet: Callable[[Mirrors, Tree, Tree, Tree], tuple[Tree, Tree]]


def maintain_buffers() -> Buffers:
    """Buffers stay as they are, each worker's own.

    Returns:
      A strategy for `periodic` and the methods made of it.

    References:
      Wang, Tantia, Ballas and Rabbat, "SlowMo", ICLR 2020: Algorithm 1, line 2.
    """

    def meet(mirrors, own, fresh, state):
        del mirrors, fresh
        return own, state

    return Buffers(_nothing, meet)


def reset_buffers() -> Buffers:
    """What mirrors the parameters starts again; counters, and so schedules, go on.

    Returns:
      A strategy for `periodic` and the methods made of it.

    References:
      Wang, Tantia, Ballas and Rabbat, "SlowMo", ICLR 2020: Algorithm 1, line 2.
    """

    def meet(mirrors, own, fresh, state):
        return jax.tree.map(_pick, mirrors, fresh, own), state

    return Buffers(_nothing, meet)


def average_buffers(channel: Channel) -> Buffers:
    """What mirrors the parameters is averaged over workers.

    Args:
      channel: what averages. It meets all buffers as one tree, so that a dense one
        sends as much as the parameters for each vector that the base remembers.

    Returns:
      A strategy for `periodic` and the methods made of it.

    References:
      Wang, Tantia, Ballas and Rabbat, "SlowMo", ICLR 2020: Algorithm 1, line 2. Yu, Jin
      and Yang, "On the Linear Speedup Analysis of Communication Efficient Momentum
      SGD", ICML 2019.
    """

    def init(mirrors, fresh):
        return channel.init(_mirroring(mirrors, fresh))

    def meet(mirrors, own, fresh, state):
        del fresh
        buffers = _mirroring(mirrors, own)
        mean, _, state = average_as(channel, buffers, state, buffers)
        means = iter(jax.tree.leaves(mean))
        averaged = [
            next(means).astype(leaf.dtype) if mirrors_one else leaf
            for mirrors_one, leaf in zip(
                jax.tree.leaves(mirrors), jax.tree.leaves(own), strict=True
            )
        ]
        return jax.tree.unflatten(jax.tree.structure(own), averaged), state

    return Buffers(init, meet)


def mirrors_of(inner: optax.GradientTransformation, state: Tree) -> Mirrors:
    """Which leaves of a state of `inner` have a parameter that they belong to."""
    return optax.tree.map_params(
        inner, lambda _: True, state, transform_non_params=lambda _: False
    )


def _nothing(mirrors: Mirrors, fresh: Tree) -> Tree:
    del mirrors, fresh
    return ()


def _pick(first: bool, one: jax.Array, other: jax.Array) -> jax.Array:
    return one if first else other


def _mirroring(mirrors: Mirrors, state: Tree) -> list[jax.Array]:
    pairs = zip(jax.tree.leaves(mirrors), jax.tree.leaves(state), strict=True)
    return [leaf for mirrors_one, leaf in pairs if mirrors_one]
