"""Lookahead: slow weights that follow the fast ones part of the way."""

from __future__ import annotations

import optax

from gmc_jax.core import Channel
from gmc_jax.transforms.averaged import averaged
from gmc_jax.transforms.buffers import Buffers
from gmc_jax.transforms.periodic import periodic
from gmc_jax.transforms.with_float32_state import with_float32_state
from gmc_jax.utils import checks
from gmc_jax.utils.described import described


@described
def lookahead(
    inner: optax.GradientTransformation,
    channel: Channel,
    *,
    period: int = 5,
    slow_step_size: float = 0.5,
    buffers: Buffers | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Lets workers look `period` steps ahead, and goes part of the way with them.

        x_k <- x_k + inner(g_k)                                   `period` times
        z <- z + slow_step_size * (mean over k of x_k - z);  x_k <- z

    With one worker it is the paper's; with more, their mean is what the slow weights z
    follow.

    Args:
      inner: the base, from gradients to steps, learning rate included. All numbers
        below may be injected by `optax.inject_hyperparams`.
      channel: what averages: `exact()`, or `no_communication()` for a lookahead of each
        worker.
      period: k in the paper, steps between two meetings.
      slow_step_size: alpha in the paper, in (0, 1].
      buffers: what becomes of the base's buffers at a meeting; see `periodic`.

    Returns:
      A transformation from gradients to steps, the last in its chain. Unlike
      `optax.lookahead` it takes plain parameters, the fast weights; the slow ones are
      the anchor in its state.

    Raises:
      ValueError: if `slow_step_size` does not lie in (0, 1], or `period` is not a whole
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
