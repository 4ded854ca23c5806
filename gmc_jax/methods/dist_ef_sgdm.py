"""dist-EF-SGDM, error feedback on the way up and on the way down."""

from __future__ import annotations

import optax

from gmc_jax.core import Channel
from gmc_jax.transforms._learning_rate import descent
from gmc_jax.transforms._momentum import momentum_trace
from gmc_jax.transforms.error_feedback import error_feedback
from gmc_jax.utils import checks
from gmc_jax.utils.described import described


@described
def dist_ef_sgdm(
    learning_rate: optax.ScalarOrSchedule,
    channel: Channel,
    server_channel: Channel,
    *,
    momentum: float | None = 0.9,
) -> optax.GradientTransformationExtraArgs:
    """Compresses what workers send and what the server answers, each with its residual.

        m_k <- momentum * m_k + g_k
        p_k = g_k + momentum * m_k + (lr_{t-1} / lr_t) e_k;  e_k <- p_k - C(p_k)
        q = mean over k of C(p_k) + (lr_{t-1} / lr_t) e;     e <- q - C(q)
        w_{t+1} = w_t - lr_t C(q)

    Both residuals are kept in units of steps, lr_{t-1} e_k and lr_{t-1} e, which is
    what the factor lr_{t-1} / lr_t says and needs no division: the same for
    compressors that commute with scaling, such as those of the paper.

    Every worker plays the server, which makes the server's residual one vector that all
    of them hold, and its answer free: behind `all_gather` what a worker receives is the
    messages of all workers, whatever the server would make of them. With a server,
    `message_bits(channel, params)` would go up and
    `message_bits(server_channel, params)` down, for each worker and step. Where
    messages carry no indices, `relative_cost` behind `count_entries(channel)` takes the
    answer to be as large as a message, which with signs both ways it is (in words of 32
    of them); of sparse messages it counts the mean before the server compresses it.

    Weight decay belongs in front, as part of g_k. The published code keeps it out of
    the compression, with a buffer of its own.

    Args:
      learning_rate: a number, a schedule, or an array from `optax.inject_hyperparams`,
        which may inject all numbers.
      channel: what averages the messages of the workers.
      server_channel: what the server answers through, `simulated_server(compressor)`.
      momentum: in [0, 1) (None is 0); Nesterov's.

    Returns:
      A transformation from gradients to steps. Momenta and the first residual (in units
      of steps, signed as updates are) differ between workers; the second, the server's,
      is the same on all.

    Raises:
      ValueError: if `momentum` does not lie in [0, 1), or a rate is negative or not
        finite.

    Example:
      Signs with one scale for each leaf, as the paper has them for its blocks:

      >>> from gmc_jax import all_gather, dist_ef_sgdm, scaled_sign, simulated_server
      >>> tx = dist_ef_sgdm(
      ...     0.1,
      ...     all_gather(scaled_sign(), per_leaf=True),
      ...     simulated_server(scaled_sign(), per_leaf=True),
      ... )

    Guarantees:
      With `momentum=0`, w_t minus the mean of the workers' residuals minus the server's
      is exactly SGD with the gradients taken at w_t, under any schedule and for any two
      compressors.
      Through `exact()` and `simulated_server(dense())` it is Nesterov's momentum SGD on
      the mean gradient.

    References:
      Zheng, Huang and Kwok, "Communication-Efficient Distributed Blockwise Momentum SGD
      with Error-Feedback", NeurIPS 2019; read from code, not from the paper.
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
