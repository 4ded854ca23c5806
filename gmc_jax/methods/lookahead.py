"""Lookahead, slow weights that follow the fast ones part of the way."""

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
def lookahead(
    inner: optax.GradientTransformation,
    channel: Channel,
    *,
    period: int = 5,
    slow_step_size: float = 0.5,
    buffers: Buffers | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Moves slow weights part of the way to the workers' mean every `period` steps.

        x_k <- x_k + inner(g_k)                                   `period` times
        z <- z + slow_step_size * (mean over k of x_k - z);  x_k <- z

    As a chain:

        periodic(inner, chain(averaged(channel), scale(-slow_step_size)), period)

    Here z are the slow weights, the anchor, and x_k the fast ones. With one worker it
    is the paper's method. With more workers, the slow weights follow their mean.

    Args:
      inner: the inner optimizer, from gradients to steps, learning rate included.
        `optax.inject_hyperparams` may inject all numeric arguments.
      channel: averages the pseudo-gradients over workers: `exact()`, or
        `no_communication()` for a lookahead of each worker.
      period: local steps between two synchronisations, at least 1. It is k in the
        paper.
      slow_step_size: alpha in the paper, in (0, 1].
      buffers: what a synchronisation does to the inner optimizer's buffers:
        `maintain_buffers()`, the default, `reset_buffers()` or
        `average_buffers(channel)`.

    Returns:
      A transformation from gradients to steps, which stands last in its chain.
      Parameters and the state of the inner optimizer differ between workers. Unlike
      `optax.lookahead` it takes plain parameters, which are the fast weights; its state
      holds the slow ones.

    Raises:
      TypeError: if `inner` is not a transformation, `channel` not a channel, or
        `buffers` not a strategy.
      ValueError: if `slow_step_size` is not in (0, 1], or `period` is not a whole
        number of at least 1.

    Example:
      >>> import gmc_jax, optax
      >>> tx = gmc_jax.lookahead(optax.adam(1e-3), gmc_jax.exact())

    Guarantees:
      With one worker it is `optax.lookahead`, at the fast weights.
      At a constant rate it is `slowmo` without slow momentum.

    References:
      Zhang, Lucas, Hinton and Ba, "Lookahead Optimizer: k steps forward, 1 step back",
      NeurIPS 2019.
    """
    checks.fraction(slow_step_size=slow_step_size)
    outer = optax.chain(
        averaged(channel), with_float32_state(optax.scale(-slow_step_size))
    )
    return periodic(inner, outer, period, buffers=buffers)
