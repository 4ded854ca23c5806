"""DoubleSqueeze, SGD that compresses both directions with error feedback."""

from __future__ import annotations

import optax

from gmc_jax.core import Channel
from gmc_jax.transforms._learning_rate import descent
from gmc_jax.transforms.error_feedback import error_feedback
from gmc_jax.utils import checks
from gmc_jax.utils.call_repr import call_repr


@call_repr
def double_squeeze(
    learning_rate: optax.ScalarOrSchedule, channel: Channel, server_channel: Channel
) -> optax.GradientTransformationExtraArgs:
    """Compresses gradients to a server and its answer, both with error feedback.

        v_k = g_k + e_k;                e_k <- v_k - C(v_k)
        v = e + mean over k of C(v_k);  e <- v - C(v)
        w_{t+1} = w_t - lr_t C(v)

    The chain, where `lr` is `scale_by_learning_rate(learning_rate)`:

        chain(error_feedback(channel), error_feedback(server_channel), lr)

    It is `dist_ef_sgdm` without momentum, and with residuals in units of gradients: a
    residual is multiplied by the rate of the step at which it is sent. There is no
    server: every worker computes its part, as there. For an answer that is sent, and
    is as small, use `chain(error_feedback(two_phase(compressor)), lr)`.

    Args:
      learning_rate: lr_t, at least 0: a number or a schedule.
        `optax.inject_hyperparams` may inject all numeric arguments. The paper's is
        constant.
      channel: averages the compressed gradients over workers.
      server_channel: compresses the server's answer: `simulated_server(compressor)`.

    Returns:
      A transformation from gradients to steps. The workers' residuals differ between
      workers; the server's is the same on all.

    Raises:
      TypeError: if `channel` or `server_channel` is not a channel.
      ValueError: if the channels average over different axes, or `learning_rate` is a
        negative or non-finite number.

    Example:
      >>> from gmc_jax import all_gather, double_squeeze, scaled_sign, simulated_server
      >>> tx = double_squeeze(
      ...     0.1, all_gather(scaled_sign()), simulated_server(scaled_sign())
      ... )

    Guarantees:
      At a constant rate, w_t - lr * (e + mean over k of e_k) is exactly SGD with the
      gradients taken at w_t, for any two compressors.
      Through `exact()` and `simulated_server(dense())` it is SGD on the mean gradient.

    References:
      Tang, Yu, Lian, Zhang and Liu, "DoubleSqueeze: Parallel Stochastic Gradient
      Descent with Double-Pass Error-Compensated Compression", ICML 2019: Algorithm 1.
    """
    checks.channel(channel=channel, server_channel=server_channel)
    checks.one_axis(channel=channel, server_channel=server_channel)
    checks.learning_rate(learning_rate=learning_rate)
    return optax.chain(
        error_feedback(channel),
        error_feedback(server_channel),
        descent(learning_rate),
    )
