"""SAEF, Step-Ahead Error Feedback."""

from __future__ import annotations

import optax

from gmc_jax.core import Channel
from gmc_jax.transforms._learning_rate import descent
from gmc_jax.transforms._momentum import momentum_trace
from gmc_jax.transforms.average_residuals import average_residuals
from gmc_jax.transforms.detached import detached
from gmc_jax.transforms.error_feedback import error_feedback
from gmc_jax.utils import checks
from gmc_jax.utils.described import described


@described
def saef(
    learning_rate: optax.ScalarOrSchedule,
    channel: Channel,
    *,
    momentum: float | None = 0.9,
    period: int | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Takes gradients a whole residual ahead, and averages residuals now and then.

        g_k taken at x_t - e_k;  m_k <- momentum * m_k + g_k
        p_k = e_k + lr_t m_k;  e_k <- p_k - C(p_k)
        x_{t+1} = x_t - mean over k of C(p_k)
        after every `period` steps: e_k <- mean over j of e_j

    It is `def_sgd` with `detach=1` and error averaging; the loop asks
    `gmc_jax.query(opt_state, params)` for a worker's own point. After an averaging step
    the averaged residual is both what is owed and what the next gradient is taken
    along, as in the paper's algorithm; the published code takes that one gradient still
    along the residual from before the average. Weight decay as for `def_sgd`.

    Args:
      learning_rate: a number, a schedule, or an array from `optax.inject_hyperparams`,
        which may inject all numbers.
      channel: what averages steps; residuals are averaged densely over its axis.
      momentum: in [0, 1) (None is 0).
      period: after how many steps residuals are averaged, at least 1; never if None.

    Returns:
      A transformation from gradients to steps. Momentum and residual (in units of
      steps, signed as updates are) differ between workers.

    Raises:
      ValueError: if `momentum` does not lie in [0, 1), `period` is not a whole number
        of at least 1, or a rate is negative or not finite.

    Example:
      >>> import gmc_jax
      >>> channel = gmc_jax.all_gather(gmc_jax.top_k(0.05))
      >>> tx = gmc_jax.saef(0.1, channel, period=20)

    Guarantees:
      Without a period it is `def_sgd` with `detach=1`; through `exact()` it is `dmsgd`,
      to rounding.
      x_t - mean of e_k moves by -lr_t times the mean of m_k, for any period, under any
      schedule and for any compressor.
      With one worker, or with `period=1`, that point is exactly momentum SGD on the
      mean gradient (the buffer of `optax.trace`).

    References:
      Xu, Huo and Huang, "Step-Ahead Error Feedback for Distributed Training with
      Compressed Gradient", AAAI 2021, arXiv:2008.05823.
    """
    checks.momentum(momentum=momentum)
    checks.learning_rate(learning_rate=learning_rate)
    checks.channel(channel=channel)
    ahead = detached(error_feedback(channel), detach=1)
    if period is not None:
        ahead = average_residuals(ahead, period, axis_name=channel.axis_name)
    return optax.chain(
        momentum_trace(momentum),
        descent(learning_rate),
        ahead,
    )
