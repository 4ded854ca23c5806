"""Overlap-Local-SGD, local steps that a late mean of the workers pulls back."""

from __future__ import annotations

import optax

from gmc_jax.core import Channel
from gmc_jax.transforms._of_floating import of_floating
from gmc_jax.transforms.pull_to_anchor import pull_to_anchor
from gmc_jax.utils import checks
from gmc_jax.utils.call_repr import call_repr


@call_repr
def overlap_local_sgd(
    inner: optax.GradientTransformation,
    channel: Channel,
    *,
    period: int,
    pull: float = 0.6,
    anchor_momentum: float | None = 0.7,
) -> optax.GradientTransformationExtraArgs:
    """Takes local steps, and pulls workers back to a mean computed beside them.

        x_i <- x_i + inner(g_i)                          `period` times
        v <- anchor_momentum * v + mean over j of s_j - z;  z <- z + v
        x_i <- x_i - pull * (x_i - z);  s_i <- x_i

    Here s_i is what worker i sent at the last synchronisation, a period before, and z
    the anchor. No worker waits for the mean: it arrives with the next synchronisation.
    As a chain:

        chain(inner, pull_to_anchor(channel, pull, period, decay=anchor_momentum))

    The authors' code divides the moves of the anchor by the learning rate of inner
    steps inside v, as `slowmo` may do. That is the same at a constant rate.

    Args:
      inner: the inner optimizer, from gradients to steps, learning rate included.
        `optax.inject_hyperparams` may inject all numeric arguments. The authors have
        `optax.sgd` with Nesterov's momentum.
      channel: averages the differences s_i - z over workers; `exact()` in the paper.
      period: local steps between two synchronisations, at least 1. It is tau in the
        paper. A mean arrives as many steps after it was sent.
      pull: alpha in the paper, in [0, 1]; 0.6 in the authors' script.
      anchor_momentum: beta in the paper, in [0, 1); None means 0. It is 0.7 in the
        authors' script.

    Returns:
      A transformation from gradients to steps, which stands last in its chain.
      Parameters, what is in flight, and the state of the inner optimizer differ between
      workers. z and v are the same on all.

    Raises:
      TypeError: if `inner` is not a transformation, or `channel` not a channel.
      ValueError: if `pull` is not in [0, 1], `anchor_momentum` is not in [0, 1), or
        `period` is not a whole number of at least 1.

    Example:
      >>> import gmc_jax, optax
      >>> inner = optax.sgd(0.1, momentum=0.9, nesterov=True)
      >>> tx = gmc_jax.overlap_local_sgd(inner, gmc_jax.exact(), period=2)

    Guarantees:
      Without `anchor_momentum`, through `exact()`, the mean of the workers' parameters
      moves from one synchronisation to the next by 1 - pull of the mean of their steps.
      With `pull=0` each worker trains alone.

    References:
      Wang, Liang and Joshi, "Overlap Local-SGD: An Algorithmic Approach to Hide
      Communication Delays in Distributed SGD", ICASSP 2020: written after the published
      code, not the paper.
    """
    checks.transformation(inner=inner)
    checks.momentum(anchor_momentum=anchor_momentum)
    pulled = pull_to_anchor(channel, pull, period, decay=anchor_momentum)
    return optax.chain(of_floating(inner), pulled)
