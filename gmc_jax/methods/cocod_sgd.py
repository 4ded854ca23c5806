"""CoCoD-SGD, local steps beside a mean that arrives one period later."""

from __future__ import annotations

import optax

from gmc_jax.core import Channel
from gmc_jax.transforms._of_floating import of_floating
from gmc_jax.transforms.delayed_sync import delayed_sync
from gmc_jax.utils import checks
from gmc_jax.utils.call_repr import call_repr


@call_repr
def cocod_sgd(
    inner: optax.GradientTransformation, channel: Channel, *, period: int
) -> optax.GradientTransformationExtraArgs:
    """Takes local steps while the mean of the parameters before them is computed.

        x_i <- x_i + inner(g_i)                          `period` times
        x_i <- mean over j of s_j + (x_i - s_i);  s_i <- x_i

    Here s_i is what worker i sent at the last synchronisation, a period before. It does
    not wait for the mean, and adds its own steps since then to it. As a chain:

        chain(inner, delayed_sync(channel, period))

    Workers send their differences to the last mean, so a lossy channel loses parts of
    moves, and never of the parameters themselves. What it loses of a worker's moves is
    sent later.

    Args:
      inner: the inner optimizer, from gradients to steps, learning rate included.
        `optax.inject_hyperparams` may inject all numeric arguments. The paper has
        `optax.sgd`.
      channel: averages the differences over workers; `exact()` in the paper.
      period: local steps between two synchronisations, at least 1. A mean arrives as
        many steps after it was sent.

    Returns:
      A transformation from gradients to steps, which stands last in its chain.
      Parameters, what is in flight, and the state of the inner optimizer differ between
      workers.

    Raises:
      TypeError: if `inner` is not a transformation, or `channel` not a channel.
      ValueError: if `period` is not a whole number of at least 1.

    Example:
      >>> import gmc_jax, optax
      >>> tx = gmc_jax.cocod_sgd(optax.sgd(0.1), gmc_jax.exact(), period=5)

    Guarantees:
      The mean of the workers' parameters moves by the mean of their steps, at every
      step and for any channel.
      With one worker, through `exact()`, it is the inner optimizer.

    References:
      Shen et al., "Faster Distributed Deep Net Training: Computation and Communication
      Decoupled Stochastic Gradient Descent", IJCAI 2019: Algorithm 1.
    """
    checks.transformation(inner=inner)
    return optax.chain(of_floating(inner), delayed_sync(channel, period))
