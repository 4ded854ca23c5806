"""What becomes of a base optimizer's buffers where workers meet."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import optax

from gmc_jax import checks
from gmc_jax.core import Channel, Tree
from gmc_jax.transforms.sending import average_as


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


def reset_buffers() -> Buffers:
    """What mirrors the parameters starts again; counters, and so schedules, go on.

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
        return jax.tree.map(_pick, _mirrors(base, own), fresh, own), state

    return Buffers(_nothing, meet)


def average_buffers(channel: Channel) -> Buffers:
    """What mirrors the parameters is averaged over workers.

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
        return channel.init(_mirroring(_mirrors(base, fresh), fresh))

    def meet(base, own, fresh, state):
        del fresh
        mirrors = _mirrors(base, own)
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


def _nothing(base: optax.GradientTransformation, fresh: Tree) -> Tree:
    del base, fresh
    return ()


def _mirrors(base: optax.GradientTransformation, state: Tree) -> Tree:
    """Which leaves of the base's state have a parameter that they belong to."""
    return optax.tree.map_params(
        base, lambda _: True, state, transform_non_params=lambda _: False
    )


def _pick(first: bool, one: jax.Array, other: jax.Array) -> jax.Array:
    return one if first else other


def _mirroring(mirrors: Tree, state: Tree) -> list[jax.Array]:
    pairs = zip(jax.tree.leaves(mirrors), jax.tree.leaves(state), strict=True)
    return [leaf for mirrors_one, leaf in pairs if mirrors_one]
