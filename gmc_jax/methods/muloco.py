"""MuLoCo, DiLoCo with Muon as the inner optimizer."""

from __future__ import annotations

import optax

from gmc_jax.core import Channel
from gmc_jax.transforms._learning_rate import descent
from gmc_jax.transforms._momentum import momentum_trace
from gmc_jax.transforms.averaged import averaged
from gmc_jax.transforms.buffers import Buffers
from gmc_jax.transforms.periodic import periodic
from gmc_jax.utils import checks
from gmc_jax.utils.call_repr import call_repr


@call_repr
def muloco(
    inner: optax.GradientTransformation,
    channel: Channel,
    *,
    period: int = 30,
    outer_learning_rate: optax.ScalarOrSchedule = 0.7,
    outer_momentum: float | None = 0.6,
    buffers: Buffers | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Takes local steps of Muon, then a Nesterov step with the rate in its momentum.

        x_k <- x_k + inner(g_k)                          `period` times
        D = z - mean over k of x_k
        u <- outer_momentum * u + outer_lr_s D
        z <- z - outer_lr_s D - outer_momentum * u;  x_k <- z

    The chain, where `lr` is `scale_by_learning_rate(outer_learning_rate)`:

        outer = chain(averaged(channel), lr, trace(outer_momentum, nesterov=True))
        periodic(inner, outer, period)

    Here z is the anchor, where all workers last synchronised, D the mean
    pseudo-gradient, and s counts synchronisations. Unlike in `diloco`, u adds up steps
    and not pseudo-gradients: after a change of the outer rate, older moves of the
    anchor count by the rate that they were made with.

    For error feedback, use `periodic` with `error_feedback(channel)` in the place of
    `averaged(channel)`.

    Args:
      inner: the inner optimizer, from gradients to steps, learning rate included. The
        paper has `optax.contrib.muon`, which gives matrices to Muon and all other
        leaves to AdamW.
      channel: averages the pseudo-gradients over workers, such as `exact()`.
      period: local steps between two synchronisations, at least 1; 30 in the paper.
      outer_learning_rate: at least 0: a number, or a schedule of the synchronisations.
        `optax.inject_hyperparams` may inject all numeric arguments. The paper has 0.7
        for one worker.
      outer_momentum: in [0, 1); None means 0. The paper has 0.6 for one worker.
      buffers: what a synchronisation does to the inner optimizer's buffers:
        `maintain_buffers()`, the default, `reset_buffers()` or
        `average_buffers(channel)`.

    Returns:
      A transformation from gradients to steps, which stands last in its chain.
      Parameters and the state of the inner optimizer differ between workers. z and u
      are the same on all.

    Raises:
      TypeError: if `inner` is not a transformation, `channel` not a channel, or
        `buffers` not a strategy.
      ValueError: if `outer_momentum` is not in [0, 1), `outer_learning_rate` is a
        negative or non-finite number, or `period` is not a whole number of at least 1.

    Example:
      >>> import gmc_jax, optax
      >>> muon = optax.contrib.muon(0.02, weight_decay=0.1)
      >>> tx = gmc_jax.muloco(muon, gmc_jax.exact())

    Guarantees:
      At a constant outer rate it is `diloco`, and `bmuf` with Nesterov's momentum.
      With `outer_learning_rate=1` and `outer_momentum=0` it is the inner optimizer with
      periodic averages: over `optax.sgd`, `local_sgd`.

    References:
      Thérien et al., "MuLoCo: Muon is a Practical Inner Optimizer for DiLoCo", 2025,
      arXiv:2505.23725. The equations and defaults are second-hand: the paper was not
      at hand.
    """
    checks.momentum(outer_momentum=outer_momentum)
    checks.learning_rate(outer_learning_rate=outer_learning_rate)
    outer = optax.chain(
        averaged(channel),
        descent(outer_learning_rate),
        momentum_trace(outer_momentum, nesterov=True),
    )
    return periodic(inner, outer, period, buffers=buffers)
