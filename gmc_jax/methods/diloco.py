"""DiLoCo, Distributed Low-Communication training."""

from __future__ import annotations

import optax

from gmc_jax.core import Channel
from gmc_jax.transforms.averaged import averaged
from gmc_jax.transforms.buffers import Buffers
from gmc_jax.transforms.periodic import periodic
from gmc_jax.transforms.with_float32_state import with_float32_state
from gmc_jax.utils import checks
from gmc_jax.utils.call_repr import call_repr


@call_repr
def diloco(
    inner: optax.GradientTransformation,
    channel: Channel,
    *,
    period: int = 500,
    outer_learning_rate: float = 0.7,
    outer_momentum: float | None = 0.9,
    buffers: Buffers | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Takes many local steps of AdamW, then one outer step of Nesterov's momentum SGD.

        x_k <- x_k + inner(g_k)                          `period` times
        D = z - mean over k of x_k;  m <- outer_momentum * m + D
        z <- z - outer_learning_rate * (D + outer_momentum * m);  x_k <- z

    As a chain:

        outer = sgd(outer_learning_rate, outer_momentum, nesterov=True)
        periodic(inner, chain(averaged(channel), outer), period)

    Here z is the anchor, where all workers last synchronised, and D the mean
    pseudo-gradient. Unlike in `slowmo`, D is not divided by the inner learning rate, so
    D shrinks as that rate falls. For another outer optimizer, or for error feedback,
    use `periodic` with your own `outer`.

    Args:
      inner: the inner optimizer, from gradients to steps, learning rate included.
        `optax.inject_hyperparams` may inject all numeric arguments. The paper has
        `optax.adamw`.
      channel: averages the pseudo-gradients over workers; `exact()` in the paper.
      period: local steps between two synchronisations, at least 1. It is H in the
        paper.
      outer_learning_rate: greater than 0; 0.7 in the paper.
      outer_momentum: in [0, 1); None means 0. The paper has 0.9.
      buffers: what a synchronisation does to the inner optimizer's buffers:
        `maintain_buffers()`, the default, `reset_buffers()` or
        `average_buffers(channel)`.

    Returns:
      A transformation from gradients to steps, which stands last in its chain.
      Parameters and the state of the inner optimizer differ between workers. z and m
      are the same on all.

    Raises:
      TypeError: if `inner` is not a transformation, `channel` not a channel, or
        `buffers` not a strategy.
      ValueError: if `outer_momentum` is not in [0, 1), `outer_learning_rate` is not
        finite and greater than 0, or `period` is not a whole number of at least 1.

    Example:
      >>> import gmc_jax, optax
      >>> tx = gmc_jax.diloco(optax.adamw(4e-4, weight_decay=0.1), gmc_jax.exact())

    Guarantees:
      With `outer_learning_rate=1` and `outer_momentum=0` it is the inner optimizer with
      periodic averages: over `optax.sgd`, `local_sgd`.

    References:
      Douillard et al., "DiLoCo: Distributed Low-Communication Training of Language
      Models", 2023, arXiv:2311.08105: Algorithm 1.
    """
    checks.momentum(outer_momentum=outer_momentum)
    checks.positive(outer_learning_rate=outer_learning_rate)
    nesterov = with_float32_state(
        optax.sgd(outer_learning_rate, outer_momentum, nesterov=True)
    )
    outer = optax.chain(averaged(channel), nesterov)
    return periodic(inner, outer, period, buffers=buffers)
