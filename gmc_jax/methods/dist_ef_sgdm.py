"""dist-EF-SGDM, error feedback on the way to the server and on the way back."""

from __future__ import annotations

import optax

from gmc_jax.core import Channel
from gmc_jax.transforms._learning_rate import descent
from gmc_jax.transforms._momentum import momentum_trace
from gmc_jax.transforms.error_feedback import error_feedback
from gmc_jax.utils import checks
from gmc_jax.utils.call_repr import call_repr


@call_repr
def dist_ef_sgdm(
    learning_rate: optax.ScalarOrSchedule,
    channel: Channel,
    server_channel: Channel,
    *,
    momentum: float | None = 0.9,
) -> optax.GradientTransformationExtraArgs:
    """Compresses messages to and from a server, both with error feedback.

        m_k <- momentum * m_k + g_k
        p_k = g_k + momentum * m_k + (lr_{t-1} / lr_t) e_k;  e_k <- p_k - C(p_k)
        q = mean over k of C(p_k) + (lr_{t-1} / lr_t) e;     e <- q - C(q)
        w_{t+1} = w_t - lr_t C(q)

    The chain, where `lr` is `scale_by_learning_rate(learning_rate)`:

        feedback = error_feedback(channel), error_feedback(server_channel)
        chain(trace(momentum, nesterov=True), lr, *feedback)

    Here e is the residual of the server, and q is what the server compresses. The state
    keeps both residuals in units of steps, lr_{t-1} e_k and lr_{t-1} e. That needs no
    division, and gives the same steps for compressors that commute with scaling, such
    as those of the paper.

    There is no server: every worker computes the server's part. So the server's
    residual is one vector, the same on all workers, and its answer is not sent. Through
    `all_gather` a worker receives the messages of all workers, however small the answer
    is. With a server, each worker would send `message_bits(channel, params)` a step and
    receive `message_bits(server_channel, params)`. For messages without indices,
    `relative_cost` behind `count_entries(channel)` counts an answer as large as a
    message. That is right for signs both ways, counted in words of 32 signs. For sparse
    messages it counts the mean before the server compresses it.

    Weight decay stands in front, as part of g_k. The published code does not compress
    it, and keeps it in a buffer of its own.

    Args:
      learning_rate: lr_t, at least 0: a number or a schedule.
        `optax.inject_hyperparams` may inject all numeric arguments.
      channel: averages the compressed steps over workers.
      server_channel: compresses the server's answer: `simulated_server(compressor)`.
      momentum: each worker's own, in [0, 1); None means 0. It is Nesterov's, as in
        `optax.sgd`.

    Returns:
      A transformation from gradients to steps. Momenta and the workers' residuals
      differ between workers. The server's residual is the same on all. Residuals are in
      units of steps and signed as updates are.

    Raises:
      TypeError: if `channel` or `server_channel` is not a channel.
      ValueError: if the channels average over different axes, `momentum` is not in
        [0, 1), or `learning_rate` is a negative or non-finite number.

    Example:
      Signs with one scale for each leaf, as the paper has them for its blocks:

      >>> from gmc_jax import all_gather, dist_ef_sgdm, scaled_sign, simulated_server
      >>> tx = dist_ef_sgdm(
      ...     0.1,
      ...     all_gather(scaled_sign(), per_leaf=True),
      ...     simulated_server(scaled_sign(), per_leaf=True),
      ... )

    Guarantees:
      With `momentum=0`, w_t minus the mean of the workers' residuals and minus the
      server's, both in units of steps, is exactly SGD with the gradients taken at w_t,
      under any schedule and for any two compressors.
      Through `exact()` and `simulated_server(dense())` it is Nesterov's momentum SGD on
      the mean gradient.

    References:
      Zheng, Huang and Kwok, "Communication-Efficient Distributed Blockwise Momentum SGD
      with Error-Feedback", NeurIPS 2019: written after the published code, not the
      paper.
    """
    checks.channel(channel=channel, server_channel=server_channel)
    checks.one_axis(channel=channel, server_channel=server_channel)
    checks.momentum(momentum=momentum)
    checks.learning_rate(learning_rate=learning_rate)
    return optax.chain(
        momentum_trace(momentum, nesterov=True),
        descent(learning_rate),
        error_feedback(channel),
        error_feedback(server_channel),
    )
