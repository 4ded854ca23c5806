"""GMC, Global Momentum Compression."""

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
def gmc(
    learning_rate: optax.ScalarOrSchedule,
    channel: Channel,
    *,
    momentum: float | None = 0.9,
) -> optax.GradientTransformationExtraArgs:
    """Adds global momentum before the compression, with error feedback.

        u_k = e_k + g_k - (momentum / lr_t) (w_t - w_{t-1});  e_k <- u_k - C(u_k)
        w_{t+1} = w_t - lr_t mean over k of C(u_k)

    The chain, where `lr` is `scale_by_learning_rate(learning_rate)`:

        chain(global_momentum(error_feedback(channel), momentum, learning_rate), lr)

    Every worker adds the same momentum, made of the messages of all workers. So its
    residual also holds momentum of all workers. Local momentum, as in `dgc`, holds the
    worker's own gradients alone, which are biased on non-IID data. A step is nonzero
    only where some worker's message is.

    The momentum is divided by the current rate, lr_t. Through an exact channel that
    makes heavy ball under any schedule. This is reconstructed: the published formula
    was not at hand, and this reading is the one that agrees with the paper's appendix.

    It suits rates that fall. As the rate falls, the momentum grows in units of
    gradients. Where the rate jumps up again (a warm restart), the residual holds this
    momentum and is sent at the new rate, which makes a large step. For such schedules,
    `chain(global_momentum(error_feedback(channel), momentum),
    scale_by_learning_rate(schedule))` keeps the buffer of `optax.trace`.

    The updates are steps, signed and scaled, so `gmc` stands last in its chain. An
    optimizer behind it, such as `optax.adam`, would take steps for gradients and go
    uphill, without an error. Adam on compressed means is
    `chain(error_feedback(channel), optax.adam(rate))`. Weight decay stands in front, as
    part of g_k: `optax.chain(optax.add_decayed_weights(1e-4), gmc(...))`.

    Args:
      learning_rate: lr_t, at least 0: a number or a schedule.
        `optax.inject_hyperparams` may inject all numeric arguments.
      channel: averages the compressed gradients over workers, such as
        `all_gather(top_k(0.001))`.
      momentum: in [0, 1); None means 0. The default, 0.9, is reconstructed from the
        paper's remarks.

    Returns:
      A transformation from gradients to steps, which stands last in its chain.
      Residuals, in units of gradients, differ between workers. The momentum, which is
      the last averaged message, is the same on all.

    Raises:
      TypeError: if `channel` is not a channel.
      ValueError: if `momentum` is not in [0, 1), or `learning_rate` is a negative or
        non-finite number.

    Example:
      >>> import gmc_jax
      >>> tx = gmc_jax.gmc(0.1, gmc_jax.all_gather(gmc_jax.top_k(0.001)))

    Guarantees:
      Through `exact()` it is momentum SGD on the mean gradient:
      `optax.sgd(learning_rate, momentum)` at a constant rate, and heavy ball under any
      schedule (momentum starts anew after a rate of 0).
      At a constant rate and for any compressor, with b the momentum, z_t = (w_t - b
      w_{t-1} - lr mean over k of e_{t,k}) / (1 - b) moves by -lr / (1 - b) times the
      mean gradient.
      With `momentum=0`, at a constant rate and for a compressor that commutes with
      scaling, it is `ef_sgd`.

    References:
      Shi, Zhao, Xie, Gao and Li, "Global Momentum Compression for Sparse Communication
      in Distributed Learning", arXiv:1905.12948: Algorithm 1.
    """
    checks.momentum(momentum=momentum)
    checks.learning_rate(learning_rate=learning_rate)
    return optax.chain(
        global_momentum(
            error_feedback(channel), momentum_value(momentum), learning_rate
        ),
        descent(learning_rate),
    )
