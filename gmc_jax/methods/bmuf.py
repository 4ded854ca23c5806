"""BMUF, Blockwise Model-Update Filtering: block momentum."""

from __future__ import annotations

import optax

from gmc_jax.core import Channel
from gmc_jax.transforms._momentum import momentum_trace
from gmc_jax.transforms.averaged import averaged
from gmc_jax.transforms.buffers import Buffers
from gmc_jax.transforms.periodic import periodic
from gmc_jax.transforms.with_float32_state import with_float32_state
from gmc_jax.utils import checks
from gmc_jax.utils.described import described


@described
def bmuf(
    inner: optax.GradientTransformation,
    channel: Channel,
    *,
    period: int,
    block_learning_rate: float = 1.0,
    block_momentum: float | None = 0.5,
    nesterov: bool = False,
    buffers: Buffers | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Filters how far workers came in a block of steps through a momentum.

        x_k <- x_k + inner(g_k)                    `period` times
        D = block_learning_rate * (z - mean over k of x_k);  v <- block_momentum * v + D
        z <- z - v  (Nesterov: z - D - block_momentum * v);  x_k <- z

    Here z is where the block started. With Nesterov's block momentum workers start the
    next one further along v than the filtered model, by block_momentum * v.

    Args:
      inner: the base, from gradients to steps, learning rate included. All numbers
        below may be injected by `optax.inject_hyperparams`.
      channel: what averages, `exact()` in the paper.
      period: steps in a block.
      block_learning_rate: zeta, greater than 0; 1 in the paper.
      block_momentum: eta, in [0, 1) (None is 0); the paper takes 1 - 1 / workers.
      nesterov: whether the block momentum is Nesterov's.
      buffers: what becomes of the base's buffers at a meeting; see `periodic`.

    Returns:
      A transformation from gradients to steps, the last in its chain. Parameters differ
      between workers; z and v do not.

    Raises:
      ValueError: if `block_momentum` does not lie in [0, 1), `block_learning_rate` is
        not finite and greater than 0, or `period` is not a whole number of at least 1.

    Example:
      >>> import gmc_jax, optax
      >>> tx = gmc_jax.bmuf(
      ...     optax.sgd(0.1), gmc_jax.exact(), period=50, block_momentum=7 / 8
      ... )

    Guarantees:
      Without Nesterov, over a base at a constant rate, it is `slowmo` with the block
      learning rate for its slow learning rate.

    References:
      Chen and Huo, "Scalable Training of Deep Learning Machines by Incremental Block
      Training with Intra-block Parallel Optimization and Blockwise Model-Update
      Filtering", ICASSP 2016.
    """
    checks.momentum(block_momentum=block_momentum)
    checks.positive(block_learning_rate=block_learning_rate)
    checks.flag(nesterov=nesterov)
    outer = optax.chain(
        averaged(channel),
        with_float32_state(optax.scale(block_learning_rate)),
        momentum_trace(block_momentum, nesterov),
        optax.scale(-1.0),
    )
    return periodic(inner, outer, period, buffers=buffers)
