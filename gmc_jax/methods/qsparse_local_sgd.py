"""Qsparse-local-SGD, local steps whose differences are compressed."""

from __future__ import annotations

import optax

from gmc_jax.core import Channel
from gmc_jax.transforms._momentum_sgd import momentum_sgd
from gmc_jax.transforms.buffers import Buffers
from gmc_jax.transforms.error_feedback import error_feedback
from gmc_jax.transforms.periodic import Period, periodic
from gmc_jax.utils.call_repr import call_repr


@call_repr
def qsparse_local_sgd(
    learning_rate: optax.ScalarOrSchedule,
    channel: Channel,
    *,
    period: Period,
    momentum: float | None = 0.0,
    nesterov: bool = False,
    buffers: Buffers | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Takes local steps; compresses differences with error feedback periodically.

        v_k <- momentum * v_k + g_k;  x_k <- x_k - lr_t v_k
        after every `period` steps:
        p_k = e_k + z - x_k;  e_k <- p_k - C(p_k)
        z <- z - mean over k of C(p_k);  x_k <- z

    The chain, where `lr` is `scale_by_learning_rate(learning_rate)`:

        outer = chain(error_feedback(channel), scale(-1))
        periodic(chain(trace(momentum), lr), outer, period)

    Here z is the anchor, where all workers last synchronised, and e_k the residual: the
    moves of worker k that the others have not received. It is in units of parameters,
    learning rates included, so a schedule needs no correction.

    All workers synchronise after the same steps, as in the paper's first algorithm. The
    second one, whose workers synchronise at steps of their own, is left out.

    Args:
      learning_rate: lr_t, at least 0: a number or a schedule.
        `optax.inject_hyperparams` may inject all numeric arguments.
      channel: averages the compressed differences over workers, such as
        `all_gather(top_k(0.01))`.
      period: local steps between two synchronisations, at least 1. It is H in the
        paper, and a number, or a function of the step.
      momentum: each worker's own, in [0, 1); None means 0. The paper's analysis has
        none, and its experiments have one.
      nesterov: whether the momentum is Nesterov's, as in `optax.sgd`.
      buffers: what a synchronisation does to the inner optimizer's buffers:
        `maintain_buffers()`, the default, `reset_buffers()` or
        `average_buffers(channel)`.

    Returns:
      A transformation from gradients to steps, which stands last in its chain.
      Parameters, momenta and residuals differ between workers. z is the same on all.

    Raises:
      TypeError: if `channel` is not a channel, or `buffers` not a strategy.
      ValueError: if `momentum` is not in [0, 1), `period` is a number but not a whole
        number of at least 1, or `learning_rate` is a negative or non-finite number.

    Example:
      >>> from gmc_jax import all_gather, qsparse_local_sgd, top_k
      >>> tx = qsparse_local_sgd(0.1, all_gather(top_k(0.01)), period=8)

    Guarantees:
      After a synchronisation, z minus the mean of the residuals has moved by the mean
      of all local steps, for any channel: nothing is lost.
      With `period=1` and `momentum=0` parameters move as under `ef_sgd`, to rounding.
      Through `exact()` it is `local_sgd`.

    References:
      Basu, Data, Karakus and Diggavi, "Qsparse-local-SGD: Distributed SGD with
      Quantization, Sparsification, and Local Computations", NeurIPS 2019: Algorithm 1.
    """
    inner = momentum_sgd(learning_rate, momentum, nesterov)
    outer = optax.chain(error_feedback(channel), optax.scale(-1.0))
    return periodic(inner, outer, period, buffers=buffers)
