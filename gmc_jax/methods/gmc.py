"""GMC, Global Momentum Compression."""

from __future__ import annotations

import optax

from gmc_jax.core import Channel
from gmc_jax.transforms._learning_rate import descent
from gmc_jax.transforms._momentum import momentum_value
from gmc_jax.transforms.error_feedback import error_feedback
from gmc_jax.transforms.global_momentum import global_momentum
from gmc_jax.utils import checks
from gmc_jax.utils.described import described


@described
def gmc(
    learning_rate: optax.ScalarOrSchedule,
    channel: Channel,
    *,
    momentum: float | None = 0.9,
) -> optax.GradientTransformationExtraArgs:
    """Global Momentum Compression: global momentum enters before the compression.

        u_k = e_k + g_k - (momentum / lr_t) (w_t - w_{t-1})
        w_{t+1} = w_t - lr_t mean over k of C(u_k);  e_k <- u_k - C(u_k)

    Every worker adds the same momentum, made of the steps that all took together, so
    compression errors feed back with momentum that knows of all workers: on non-IID
    data local momentum does not. The step stays as sparse as the union of messages.

    The rate that divides the momentum is the current one, lr_t, which makes the exact
    channel heavy ball under any schedule. The published formula was not at hand; this
    is the reading under which the paper's appendix is consistent. It suits rates that
    fall: as they do, momentum grows in units of gradients, and where a rate jumps up
    again (a warm restart) what is still owed of it is sent at the new rate, a large
    step. For such schedules, `chain(global_momentum(error_feedback(channel), momentum),
    scale_by_learning_rate(schedule))` keeps the buffer of `optax.trace`.

    It gives steps, signed and scaled, and so stands last in its chain. An optimizer
    behind it, such as `optax.adam`, would take steps for gradients and go uphill, and
    no error tells of it; `chain(error_feedback(channel), optax.adam(rate))` is Adam on
    compressed means. Weight decay belongs in front, as part of g_k:
    `optax.chain(optax.add_decayed_weights(1e-4), gmc(...))`.

    Args:
      learning_rate: a number, a schedule, or an array from `optax.inject_hyperparams`,
        which may inject all numbers.
      channel: what averages, such as `all_gather(top_k(0.001))`.
      momentum: in [0, 1) (None is 0); 0.9 is reconstructed from the paper's remarks.

    Returns:
      A transformation from gradients to steps. Its state holds one residual for each
      worker, in units of gradients, and one shared vector, the last averaged message.

    Raises:
      ValueError: if `momentum` does not lie in [0, 1), or a rate is negative or not
        finite.

    Example:
      >>> import gmc_jax
      >>> tx = gmc_jax.gmc(0.1, gmc_jax.all_gather(gmc_jax.top_k(0.001)))

    Guarantees:
      Through `exact()` it is momentum SGD on the mean gradient: heavy ball under any
      schedule that is not 0 (where it is, momentum starts again), and
      `optax.sgd(learning_rate, momentum)` at a constant rate.
      At a constant rate, for any compressor, with b the momentum, z_t =
      (w_t - b w_{t-1} - lr mean of e_{t,k}) / (1 - b) moves by -lr / (1 - b) times the
      mean gradient.
      With `momentum=0`, at a constant rate and for a compressor that commutes with
      scaling, it is `ef_sgd`.

    References:
      Algorithm 1 of Shi, Zhao, Xie, Gao and Li, "Global Momentum Compression for Sparse
      Communication in Distributed Learning", arXiv:1905.12948.
    """
    checks.momentum(momentum=momentum)
    checks.learning_rate(learning_rate=learning_rate)
    return optax.chain(
        global_momentum(
            error_feedback(channel), momentum_value(momentum), learning_rate
        ),
        descent(learning_rate),
    )
