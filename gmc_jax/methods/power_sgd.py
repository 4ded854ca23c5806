"""PowerSGD, error feedback of low rank with a momentum behind it."""

from __future__ import annotations

import optax

from gmc_jax.core import Channel
from gmc_jax.transforms._learning_rate import descent
from gmc_jax.transforms._momentum import momentum_trace
from gmc_jax.transforms.error_feedback import error_feedback
from gmc_jax.utils import checks
from gmc_jax.utils.call_repr import call_repr


@call_repr
def power_sgd(
    learning_rate: optax.ScalarOrSchedule,
    channel: Channel,
    *,
    momentum: float | None = 0.9,
) -> optax.GradientTransformationExtraArgs:
    """Compresses gradients with error feedback, and adds momentum to their mean.

        p_k = g_k + e_k;  e_k <- p_k - C(p_k);  d = mean over k of C(p_k)
        m <- momentum * m + d
        x_{t+1} = x_t - lr_t (d + m)

    The chain, where `lr` is `scale_by_learning_rate(learning_rate)`, and the third part
    stands for the momentum and what is added to it:

        chain(error_feedback(channel), d + trace(momentum), lr)

    The channel is `low_rank(rank)`, where two all-reduces send two thin factors of each
    matrix, or `alternating_low_rank(rank)`, at half of the cost. Any other channel will
    do. The momentum is the paper's: m, which holds d already, is added to d. That is
    not Nesterov's d + momentum * m. A first step moves by 2 lr d.

    To begin dense, as PyTorch's hook does, join two channels:
    `join_channels([exact(), low_rank(2)], [1000])`.

    Weight decay stands in front, as part of g_k, or behind `error_feedback`, as in the
    published code, which does not compress it. For that write the chain out.

    Args:
      learning_rate: lr_t, at least 0: a number or a schedule.
        `optax.inject_hyperparams` may inject all numeric arguments.
      channel: averages the compressed gradients over workers: `low_rank(2)` in the
        paper's experiments on CIFAR, `low_rank(4)` on text.
      momentum: of the means, the same on all workers, in [0, 1); None means 0, which
        leaves m = d and so the steps 2 lr d.

    Returns:
      A transformation from gradients to steps. Residuals differ between workers. They
      are in units of gradients.

    Raises:
      TypeError: if `channel` is not a channel.
      ValueError: if `momentum` is not in [0, 1), or `learning_rate` is a negative or
        non-finite number.

    Example:
      >>> import gmc_jax
      >>> tx = gmc_jax.power_sgd(0.1, gmc_jax.low_rank(2))

    Guarantees:
      The mean over workers of e_k plus the sum of all d is the sum of the mean
      gradients, whatever the channel.
      Through `exact()` it is SGD on the mean gradient with this momentum.
      Where one worker has the mean of all gradients, it takes the same steps: through
      `low_rank` the method is linear in the gradients of a step.

    References:
      Vogels, Karimireddy and Jaggi, "PowerSGD: Practical Low-Rank Gradient Compression
      for Distributed Optimization", NeurIPS 2019: Algorithm 2.
    """
    checks.momentum(momentum=momentum)
    checks.learning_rate(learning_rate=learning_rate)
    return optax.chain(
        error_feedback(channel),
        _added_to(momentum_trace(momentum)),
        descent(learning_rate),
    )


def _added_to(
    inner: optax.GradientTransformation,
) -> optax.GradientTransformation:
    """Adds what a transformation makes of the updates to the updates."""

    def update(updates, state, params=None):
        changed, state = inner.update(updates, state, params)
        return optax.tree.add(updates, changed), state

    return optax.GradientTransformation(inner.init, update)
