"""Strategies by which workers take in what arrives from a synchronisation."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import optax
from jax.core import Tracer

from gmc_jax.core import Tree
from gmc_jax.transforms._own_share_first import own_share_first
from gmc_jax.utils import checks
from gmc_jax.utils.call_repr import call_repr
from gmc_jax.utils.trees import times


class Merge(NamedTuple):
    """A strategy by which a worker takes in what arrives from a synchronisation.

    Attributes:
      combine: `(now, sent, anchor) -> now`, this worker's parameters after the merge.
        `now` are its parameters, `sent` those of when it sent its pseudo-gradient, and
        `anchor` the anchor after the outer step. Trees of floats.
      wait: `(delay, period) -> int`, the steps from sending to the outer step. It
        raises ValueError for a delay that the strategy cannot have.
      average: from the transformation that averages pseudo-gradients to the one that
        takes its place.
    """

    combine: Callable[[Tree, Tree, Tree], Tree]
    wait: Callable[[int, int], int]
    average: Callable[[optax.GradientTransformation], optax.GradientTransformation] = (
        lambda average: average
    )


@call_repr
def mix(alpha: float) -> Merge:
    """Mixes the worker's own parameters with the anchor.

        x_k <- (1 - alpha) z + alpha x_k

    With a delay, the worker's steps since it sent are not in z, and count alpha times.
    With `alpha=0` they are dropped.

    Args:
      alpha: the weight of the worker's own parameters, in [0, 1]. With 0 the anchor
        replaces them; with 1 workers never receive anything.

    Returns:
      A strategy for `streaming`, for delays that are shorter than the period.

    Raises:
      ValueError: if `alpha` is not in [0, 1].

    References:
      Douillard et al., "Streaming DiLoCo with Overlapping Communication", 2025,
      arXiv:2501.18512.
    """
    checks.proportion(alpha=alpha)
    # By its program, so that a layout sees that workers are at the same point.
    replaces = not isinstance(alpha, Tracer) and alpha == 0

    def combine(now, sent, anchor):
        del sent
        if replaces:
            return anchor

        def mixed(x: jax.Array, z: jax.Array) -> jax.Array:
            return times(1 - alpha, z) + times(alpha, x)

        return jax.tree.map(mixed, now, anchor)

    def wait(delay, period):
        if delay == period:
            raise ValueError(
                f"`delay` must be less than `period` under `mix`, got {delay} for "
                f"both; all steps between two synchronisations would be dropped. Use "
                "`corrected()`, or a shorter delay."
            )
        return delay

    return Merge(combine, wait)


@call_repr
def corrected() -> Merge:
    """Moves the worker to the anchor, and keeps the steps taken since it sent.

        x_k <- z + (x_k - x_k when sent)

    Returns:
      A strategy for `streaming`, for any delay.

    Guarantees:
      If the anchor follows the mean, the mean over workers of x_k moves by the mean of
        all inner steps, for any delay.
      Without a delay it is `mix(0.0)`.

    References:
      Shen et al., "Faster Distributed Deep Net Training: Computation and Communication
      Decoupled Stochastic Gradient Descent", IJCAI 2019 (CoCoD-SGD).
    """

    def combine(now, sent, anchor):
        return jax.tree.map(lambda x, s, z: z + (x - s), now, sent, anchor)

    return Merge(combine, lambda delay, period: delay)


@call_repr
def eager(axis_name: str = "workers") -> Merge:
    """Counts the worker's own pseudo-gradient at once, and those of others later.

        D_k = mean of d(last) + (d_k - d_k(last)) / K
        z_k <- z_k + outer(D_k);  x_k <- z_k

    d_k = z_k - x_k is the pseudo-gradient of worker k when its fragment is due, d(last)
    are those of the synchronisation before, and K is the number of workers. What the
    others sent counts one synchronisation late. So all delays from 1 to the period give
    the same numbers. Anchors and outer momenta differ between workers.

    Args:
      axis_name: the named axis whose indices are the workers.

    Returns:
      A strategy for `streaming`, for delays of at least 1.

    Raises:
      TypeError: if `axis_name` is not a name.

    Guarantees:
      It equals averages through `gossip(topologies.complete(K), delay=1)`, to rounding.
      All that is sent counts once: over all workers, what counted and what is still to
        come sum to all pseudo-gradients, also if the number of workers changes.

    References:
      Kale, Douillard and Donchev, "Eager Updates for Overlapped Communication and
      Computation in DiLoCo", 2025, arXiv:2502.12996.
    """
    checks.axis(axis_name=axis_name)

    def combine(now, sent, anchor):
        del now, sent
        return anchor

    def wait(delay, period):
        del period
        if not delay:
            raise ValueError(
                "`delay` must be at least 1 under `eager`, got 0; without a delay "
                "there is nothing to be eager about. Use `mix(0.0)`, or a delay."
            )
        return 0

    return Merge(combine, wait, lambda average: own_share_first(average, axis_name))
