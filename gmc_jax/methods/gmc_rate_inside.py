"""The alternative to GMC with the learning rate inside the residual."""

from __future__ import annotations

import optax

from gmc_jax.core import Channel
from gmc_jax.transforms._learning_rate import descent
from gmc_jax.transforms._momentum import momentum_value
from gmc_jax.transforms.error_feedback import error_feedback
from gmc_jax.transforms.global_momentum import global_momentum
from gmc_jax.utils import checks
from gmc_jax.utils.call_repr import call_repr


@call_repr
def gmc_rate_inside(
    learning_rate: optax.ScalarOrSchedule,
    channel: Channel,
    *,
    momentum: float | None = 0.9,
) -> optax.GradientTransformationExtraArgs:
    """GMC whose residuals are in units of steps.

        v_k = e_k + lr_t g_k - momentum (w_t - w_{t-1});  e_k <- v_k - C(v_k)
        w_{t+1} = w_t - mean over k of C(v_k)

    The chain, where `lr` is `scale_by_learning_rate(learning_rate)`:

        chain(lr, global_momentum(error_feedback(channel), momentum))

    Divided by the rate of its step, the residual is in units of gradients, as in `gmc`.
    In these units it is multiplied by lr_{t-1} / lr_t from one step to the next, which
    is at least 1 under a falling rate. The residual of `gmc` is multiplied by 1.

    Args:
      learning_rate: lr_t, at least 0: a number or a schedule.
        `optax.inject_hyperparams` may inject all numeric arguments.
      channel: averages the compressed steps over workers, such as
        `all_gather(top_k(0.01))`.
      momentum: in [0, 1); None means 0.

    Returns:
      A transformation from gradients to steps. Residuals differ between workers. They
      are in units of steps and signed as updates are: the state holds -e_k. The
      momentum, which is the last step, is the same on all.

    Raises:
      TypeError: if `channel` is not a channel.
      ValueError: if `momentum` is not in [0, 1), or `learning_rate` is a negative or
        non-finite number.

    Example:
      >>> import gmc_jax
      >>> channel = gmc_jax.all_gather(gmc_jax.top_k(0.01))
      >>> tx = gmc_jax.gmc_rate_inside(0.1, channel)

    Guarantees:
      At a constant rate and for a compressor that commutes with scaling, it is `gmc`,
      and its residual is the rate times GMC's.
      Under any schedule and for any compressor, with b the momentum, z_t = (w_t - b
      w_{t-1} - mean over k of e_{t,k}) / (1 - b) moves by -lr_t / (1 - b) times the
      mean gradient.

    References:
      Shi, Zhao, Xie, Gao and Li, "Global Momentum Compression for Sparse Communication
      in Distributed Learning", arXiv:1905.12948: Algorithm 4, in the appendix.
    """
    checks.momentum(momentum=momentum)
    checks.learning_rate(learning_rate=learning_rate)
    return optax.chain(
        descent(learning_rate),
        global_momentum(error_feedback(channel), momentum_value(momentum)),
    )
