"""1-bit Adam, which compresses the momentum once the variance is frozen."""

from __future__ import annotations

import optax

from gmc_jax.channels.exact import exact
from gmc_jax.channels.join_channels import join_channels
from gmc_jax.channels.no_communication import no_communication
from gmc_jax.core import Channel
from gmc_jax.transforms._learning_rate import decayed_descent
from gmc_jax.transforms.error_feedback import error_feedback
from gmc_jax.transforms.freezing_adam import freezing_adam
from gmc_jax.utils import checks
from gmc_jax.utils.call_repr import call_repr


@call_repr
def one_bit_adam(
    learning_rate: optax.ScalarOrSchedule,
    channel: Channel,
    *,
    freeze_step: int,
    server_channel: Channel | None = None,
    momentum: float = 0.9,
    variance_decay: float = 0.999,
    epsilon: float = 1e-8,
    weight_decay: float = 0.0,
) -> optax.GradientTransformationExtraArgs:
    """Adam at first; later its momentum is averaged in few bits, with frozen variance.

        where t < freeze_step:
          g = mean over k of g_k
          m <- momentum * m + (1 - momentum) g
          v <- variance_decay * v + (1 - variance_decay) g^2
        from then on:
          p_k = momentum * m + (1 - momentum) g_k + e_k;  e_k <- p_k - C(p_k)
          q = mean over k of C(p_k) + e;  e <- q - C'(q);  m <- C'(q)
        x_{t+1} = x_t - lr_t (m / (sqrt(v) + epsilon) + weight_decay * x_t)

    The chain, where `lr` is `scale_by_learning_rate(learning_rate)`:

        up = error_feedback(join_channels([exact(), channel], [freeze_step]))
        down = error_feedback(join_channels(
            [no_communication(), server_channel], [freeze_step]))
        chain(freezing_adam(chain(up, down), freeze_step),
              add_decayed_weights(weight_decay), lr)

    Signs have no zero. So an entry whose momentum is always 0, such as an unused row of
    an embedding, moves by the scale of its leaf over epsilon: leave it out with
    `optax.partition`, or give it a mask.

    Args:
      learning_rate: lr_t, at least 0: a number or a schedule.
        `optax.inject_hyperparams` may inject all numeric arguments but `freeze_step`.
      channel: averages the momenta over workers: `all_gather(scaled_sign())`. The scale
        of `scaled_sign` is the mean magnitude; the published code has the root of the
        mean square. `per_leaf=True` gives each leaf a scale of its own.
      freeze_step: the number of dense steps, at least 1: 15 to 25 % of the steps in the
        paper, and at least those of the learning rate's warm-up.
      server_channel: C', compresses the server's answer, as in `dist_ef_sgdm`:
        `simulated_server(scaled_sign())`. None for no second compression.
      momentum: the decay of m, in [0, 1); beta_1 in the paper.
      variance_decay: the decay of v, in [0, 1); beta_2 in the paper.
      epsilon: positive.
      weight_decay: lambda, at least 0, as part of the step.

    Returns:
      A transformation from gradients to steps. The residuals e_k differ between
      workers. The server's residual, m and v are the same on all. Residuals are in
      units of gradients. Adam's bias is not corrected, as in the published code.

    Raises:
      TypeError: if `channel` or `server_channel` is not a channel.
      ValueError: if the channels average over different axes, `freeze_step` is not a
        whole number of at least 1, `momentum` or `variance_decay` is not in [0, 1),
        `epsilon` is not positive and finite, `learning_rate` is a negative or
        non-finite number, or `weight_decay` is negative or not finite.

    Example:
      Signs with one scale for each leaf, both ways:

      >>> from gmc_jax import all_gather, one_bit_adam, scaled_sign, simulated_server
      >>> tx = one_bit_adam(
      ...     1e-3,
      ...     all_gather(scaled_sign(), per_leaf=True),
      ...     freeze_step=1_000,
      ...     server_channel=simulated_server(scaled_sign(), per_leaf=True),
      ... )

    Guarantees:
      In the first `freeze_step` steps it is Adam on the mean gradient, without the
        correction of bias, and no residual is left.
      Through `exact()` the later steps are those of `optax.ema(momentum)` on the mean
        gradient, divided by the frozen sqrt(v) + epsilon.
      The mean residual, the server's residual and m together move as the momentum of
        the mean gradients does, for any two compressors:
        m + e + mean of e_k <- momentum * m + (1 - momentum) g + e + mean of e_k.

    References:
      Tang, Gan, Awan, Rajbhandari, Li, Lian, Liu, Zhang and He, "1-bit Adam:
      Communication Efficient Large-Scale Training with Adam's Convergence Speed", ICML
      2021: Algorithm 1, without the correction of bias, as in DeepSpeed's code.
    """
    checks.channel(channel=channel)
    checks.positive_int(freeze_step=freeze_step)
    checks.learning_rate(learning_rate=learning_rate)
    checks.nonnegative(weight_decay=weight_decay)
    axis_name = channel.axis_name
    dense = exact(axis_name=axis_name)
    feedback = error_feedback(join_channels([dense, channel], [freeze_step]))
    if server_channel is not None:
        checks.channel(server_channel=server_channel)
        checks.one_axis(channel=channel, server_channel=server_channel)
        answered = no_communication(axis_name=axis_name), server_channel
        server = error_feedback(join_channels(answered, [freeze_step]))
        feedback = optax.chain(feedback, server)
    adam = freezing_adam(
        feedback,
        freeze_step,
        momentum=momentum,
        variance_decay=variance_decay,
        epsilon=epsilon,
    )
    return optax.chain(adam, decayed_descent(learning_rate, weight_decay))
