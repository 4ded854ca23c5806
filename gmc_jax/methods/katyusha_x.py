"""Katyusha X, SVRG with momentum between epochs."""

from __future__ import annotations

import math
from collections.abc import Callable

import optax

from gmc_jax.core import Channel, Tree
from gmc_jax.transforms._svrg_steps import svrg_steps
from gmc_jax.transforms.epochs import NextStart, epochs
from gmc_jax.utils import checks
from gmc_jax.utils.call_repr import call_repr


@call_repr
def katyusha_x(
    learning_rate: float,
    channel: Channel,
    *,
    epoch_length: int,
    strong_convexity: float | None = None,
    random_length: bool = False,
    seed: int = 0,
    projection: Callable[[Tree], Tree] | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Runs epochs of `svrg`, and starts each beyond the point where the last ended.

        y_k = the end of an epoch of SVRG from x_k;  y_0 = x_1 = the start
        x_{k+1} = (3/2 y_k + 1/2 x_k - (1 - tau) y_{k-1}) / (1 + tau)

    Here k counts epochs and tau = sqrt(m lr sigma) / 2, at most 1/2. This is for a mean
    loss that is sigma-strongly convex, even if the losses of single samples are not
    convex. For a mean loss that is convex, but not strongly,

        x_{k+1} = ((3k + 1) y_k + (k + 1) x_k - (2k - 2) y_{k-1}) / (2k + 4)

    The chain, where `lr` is `scale_by_learning_rate(learning_rate)`:

        epochs(chain(variance_reduced(channel), lr), epoch_length, next_start)

    The loop is that of `svrg`.

    Args:
      learning_rate: lr, eta in the paper: a number of at least 0. The theory asks for
        at most min(1, sqrt(b / m)) / (2 L), with mini-batches of b samples whose losses
        are L-smooth. `optax.inject_hyperparams` may inject nothing but the seed: name
        the other arguments in `static_args`.
      channel: averages the differences of gradients over workers; `exact()` in the
        paper.
      epoch_length: m, the steps of an epoch: the number of samples over the size of the
        mini-batch.
      strong_convexity: sigma, greater than 0; None for the convex version.
      random_length: whether the length of each epoch is drawn at random, with mean
        `epoch_length`, as in the theory.
      seed: of the random lengths, an int.
      projection: of the parameters after each step: one of `optax.projections`, or a
        proximal operator.

    Returns:
      A transformation from gradients to steps, which stands last in its chain. Nothing
      differs between workers. The model is evaluated at y, where the last epoch ended.

    Raises:
      TypeError: if `learning_rate` is a schedule, a number other than the seed is
        injected, `channel` is not a channel, or `projection` not a function; from
        `update` if it is called without `snapshot_grads`.
      ValueError: if `epoch_length` is not a whole number of at least 1,
        `strong_convexity` is not finite and greater than 0, or `learning_rate` is a
        negative or non-finite number.

    Example:
      >>> import gmc_jax
      >>> tx = gmc_jax.katyusha_x(
      ...     0.1, gmc_jax.exact(), epoch_length=100, strong_convexity=1e-3
      ... )

    Guarantees:
      With tau = 1/2 it is `svrg`.

    References:
      Allen-Zhu, "Katyusha X: Practical Momentum Method for Stochastic Sum-of-Nonconvex
      Optimization", ICML 2018: Algorithms 1 and 2 (X^s and X^w).
    """
    if callable(learning_rate):
        raise TypeError(
            "`learning_rate` must be a number, got a function; the momentum between "
            "epochs is computed from one constant rate. Pass a number."
        )
    checks.known(learning_rate=learning_rate, strong_convexity=strong_convexity)
    checks.positive_int(epoch_length=epoch_length)
    if strong_convexity is not None:
        checks.positive(strong_convexity=strong_convexity)
    steps = svrg_steps(learning_rate, channel, projection)
    next_start = _convex
    if strong_convexity is not None:
        tau = min(0.5, math.sqrt(epoch_length * learning_rate * strong_convexity) / 2)
        next_start = _strongly_convex(tau)
    return epochs(
        steps, epoch_length, next_start, random_length=random_length, seed=seed
    )


def _strongly_convex(tau: float) -> NextStart:
    def next_start(k, y, x, last):
        del k
        return (1.5 * y + 0.5 * x - (1 - tau) * last) / (1 + tau)

    return next_start


def _convex(k, y, x, last):
    k = k.astype(y.dtype)
    return ((3 * k + 1) * y + (k + 1) * x - (2 * k - 2) * last) / (2 * k + 4)
