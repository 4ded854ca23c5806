"""What becomes of a base optimizer's buffers where workers meet."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import optax

from gmc_jax.core import Channel, Tree, has_hook
from gmc_jax.transforms._average_in_dtype import average_in_dtype
from gmc_jax.utils import checks
from gmc_jax.utils.described import described


class Buffers(NamedTuple):
    """A strategy for the buffers of a base optimizer, where workers meet.

    Attributes:
      init: `(base, fresh) -> state`, of the strategy itself, where the base, a
        transformation, starts with `fresh`.
      meet: `(base, own, fresh, state) -> (own, state)`: `own` is this worker's state of
        the base, and `fresh` what the base would start with where workers meet.
    """

    init: Callable[[optax.GradientTransformation, Tree], Tree]
    meet: Callable[[optax.GradientTransformation, Tree, Tree, Tree], tuple[Tree, Tree]]


@described
def maintain_buffers() -> Buffers:
    """Buffers stay as they are, each worker's own.

    Returns:
      A strategy for `periodic` and the methods made of it.

    References:
      Wang, Tantia, Ballas and Rabbat, "SlowMo", ICLR 2020: Algorithm 1, line 2.
    """

    def meet(base, own, fresh, state):
        del base, fresh
        return own, state

    return Buffers(_nothing, meet)


@described
def reset_buffers() -> Buffers:
    """Buffers start again; counters, and so schedules, go on.

    Buffers are what mirrors the parameters: momenta and Adam's moments. What a state
    conserves is none (see `with_hooks`): residuals are still owed, messages still
    arrive, anchors, corrections and trackers stay what they are.

    A base that remembers where parameters were needs it, such as the schedule-free
    optimizers of optax: it starts again from where workers met.

    Adam counts on as well, and corrects a bias that its new moments have not yet lost:
    after a meeting it steps further. The paper maintains its moments.

    Returns:
      A strategy for `periodic` and the methods made of it.

    References:
      Wang, Tantia, Ballas and Rabbat, "SlowMo", ICLR 2020: Algorithm 1, line 2.
    """

    def meet(base, own, fresh, state):
        return jax.tree.map(_pick, _are_buffers(base, own), fresh, own), state

    return Buffers(_nothing, meet)


@described
def average_buffers(channel: Channel) -> Buffers:
    """Buffers are averaged over workers: what `reset_buffers` would start again.

    Args:
      channel: what averages. It meets all buffers as one tree, so that a dense one
        sends as much as the parameters for each vector that the base remembers.

    Returns:
      A strategy for `periodic` and the methods made of it.

    Raises:
      TypeError: if `channel` is no channel.

    References:
      Wang, Tantia, Ballas and Rabbat, "SlowMo", ICLR 2020: Algorithm 1, line 2. Yu, Jin
      and Yang, "On the Linear Speedup Analysis of Communication Efficient Momentum
      SGD", ICML 2019.
    """
    checks.channel(channel=channel)

    def init(base, fresh):
        return channel.init(_buffers(_are_buffers(base, fresh), fresh))

    def meet(base, own, fresh, state):
        del fresh
        chosen = _are_buffers(base, own)
        buffers = _buffers(chosen, own)
        mean, _, state = average_in_dtype(channel, buffers, state, buffers)
        means = iter(jax.tree.leaves(mean))
        averaged = [
            next(means).astype(leaf.dtype) if is_buffer else leaf
            for is_buffer, leaf in zip(
                jax.tree.leaves(chosen), jax.tree.leaves(own), strict=True
            )
        ]
        return jax.tree.unflatten(jax.tree.structure(own), averaged), state

    return Buffers(init, meet)


def _nothing(base: optax.GradientTransformation, fresh: Tree) -> Tree:
    del base, fresh
    return ()


def _are_buffers(base: optax.GradientTransformation, state: Tree) -> Tree:
    """Which leaves belong to a parameter, and to no state that conserves them."""
    mirrors = optax.tree.map_params(
        base, lambda _: True, state, transform_non_params=lambda _: False
    )
    leaves, treedef = jax.tree.flatten(mirrors)
    conserved = _conserved(treedef.unflatten(range(len(leaves))))
    return treedef.unflatten(
        belongs and place not in conserved for place, belongs in enumerate(leaves)
    )


def _conserved(state: Tree) -> set[int]:
    """The leaves that states conserve, those inside others included."""

    def is_inside(node: Tree) -> bool:
        return node is not state and has_hook(node, "conserved")

    own = state.conserved() if has_hook(state, "conserved") else ()
    nodes = jax.tree.leaves(state, is_leaf=is_inside)
    return set(jax.tree.leaves(own)).union(
        *[_conserved(node) for node in nodes if is_inside(node)]
    )


def _pick(first: bool, one: jax.Array, other: jax.Array) -> jax.Array:
    return one if first else other


def _buffers(chosen: Tree, state: Tree) -> list[jax.Array]:
    pairs = zip(jax.tree.leaves(chosen), jax.tree.leaves(state), strict=True)
    return [leaf for is_buffer, leaf in pairs if is_buffer]
