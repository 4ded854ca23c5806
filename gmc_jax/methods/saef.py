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
from gmc_jax.utils.call_repr import call_repr


@call_repr
def saef(
    learning_rate: optax.ScalarOrSchedule,
    channel: Channel,
    *,
    momentum: float | None = 0.9,
    period: int | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Takes gradients one residual ahead, and averages the residuals periodically.

        g_k taken at x_t - e_k;  m_k <- momentum * m_k + g_k
        p_k = e_k + lr_t m_k;  e_k <- p_k - C(p_k)
        x_{t+1} = x_t - mean over k of C(p_k)
        after every `period` steps:  e_k <- mean over j of e_j

    The chain, where `lr` is `scale_by_learning_rate(learning_rate)`:

        ahead = detached(error_feedback(channel), 1)
        chain(trace(momentum), lr, average_residuals(ahead, period))

    It is `def_sgd` with `detach=1`, whose residuals are averaged every `period` steps.
    The loop gets the point of the gradient from `gmc_jax.query(opt_state, params)`. It
    differs between workers and costs no communication. After an average, the next
    gradient is taken along the averaged residual, as in the paper's algorithm. The
    published code takes that one gradient along the residual from before the average.
    Weight decay is as for `def_sgd`.

    Args:
      learning_rate: lr_t, at least 0: a number or a schedule.
        `optax.inject_hyperparams` may inject all numeric arguments.
      channel: averages the compressed steps over workers, such as
        `all_gather(top_k(0.05))`. Residuals are averaged densely over its axis.
      momentum: each worker's own, in [0, 1); None means 0.
      period: steps between two averages of the residuals, at least 1; None for no
        averages.

    Returns:
      A transformation from gradients to steps. Momenta and residuals differ between
      workers. Residuals are in units of steps and signed as updates are: the state
      holds -e_k.

    Raises:
      TypeError: if `channel` is not a channel.
      ValueError: if `momentum` is not in [0, 1), `period` is not a whole number of at
        least 1, or `learning_rate` is a negative or non-finite number.

    Example:
      >>> import gmc_jax
      >>> channel = gmc_jax.all_gather(gmc_jax.top_k(0.05))
      >>> tx = gmc_jax.saef(0.1, channel, period=20)

    Guarantees:
      Without a period it is `def_sgd` with `detach=1`.
      Through `exact()` it is `dmsgd`, to rounding.
      The virtual iterate, x_t - mean over k of e_k, moves by -lr_t times the mean of
      m_k, for any period, under any schedule and for any compressor.
      With one worker, or with `period=1`, the virtual iterate is exactly momentum SGD
      on the mean gradient (the buffer of `optax.trace`).

    References:
      Xu, Huo and Huang, "Step-Ahead Error Feedback for Distributed Training with
      Compressed Gradient", AAAI 2021, arXiv:2008.05823.
    """
    checks.momentum(momentum=momentum)
    checks.learning_rate(learning_rate=learning_rate)
    checks.channel(channel=channel)
    feedback = detached(error_feedback(channel), detach=1)
    if period is not None:
        feedback = average_residuals(feedback, period, axis_name=channel.axis_name)
    return optax.chain(
        momentum_trace(momentum),
        descent(learning_rate),
        feedback,
    )
