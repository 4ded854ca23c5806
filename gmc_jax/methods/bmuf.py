"""BMUF, Blockwise Model-Update Filtering."""

from __future__ import annotations

import optax

from gmc_jax.core import Channel
from gmc_jax.transforms._momentum import momentum_trace
from gmc_jax.transforms.averaged import averaged
from gmc_jax.transforms.buffers import Buffers
from gmc_jax.transforms.periodic import periodic
from gmc_jax.transforms.with_float32_state import with_float32_state
from gmc_jax.utils import checks
from gmc_jax.utils.call_repr import call_repr


@call_repr
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
    """Averages parameters after every `period` steps and adds a block momentum.

        x_k <- x_k + inner(g_k)                    `period` times
        D = block_learning_rate * (z - mean over k of x_k);  v <- block_momentum * v + D
        z <- z - v  (Nesterov: z - D - block_momentum * v);  x_k <- z

    As a chain:

        momentum = scale(block_learning_rate), trace(block_momentum, nesterov)
        periodic(inner, chain(averaged(channel), *momentum, scale(-1)), period)

    Here z is the anchor, where all workers last synchronised. With Nesterov's block
    momentum, z is not the paper's filtered model. It lies further along, by
    block_momentum * v, and workers start the next block there.

    Args:
      inner: the inner optimizer, from gradients to steps, learning rate included.
        `optax.inject_hyperparams` may inject all numeric arguments.
      channel: averages the pseudo-gradients over workers; `exact()` in the paper.
      period: local steps between two synchronisations, at least 1. It is the length of
        a block in the paper.
      block_learning_rate: zeta in the paper, greater than 0; 1 in the paper.
      block_momentum: eta in the paper, in [0, 1); None means 0. The paper takes
        `1 - 1 / workers`.
      nesterov: whether the block momentum is Nesterov's, as in `optax.sgd`.
      buffers: what a synchronisation does to the inner optimizer's buffers:
        `maintain_buffers()`, the default, `reset_buffers()` or
        `average_buffers(channel)`.

    Returns:
      A transformation from gradients to steps, which stands last in its chain.
      Parameters and the state of the inner optimizer differ between workers. z and v
      are the same on all.

    Raises:
      TypeError: if `inner` is not a transformation, `channel` not a channel, or
        `buffers` not a strategy.
      ValueError: if `block_momentum` is not in [0, 1), `block_learning_rate` is not
        finite and greater than 0, or `period` is not a whole number of at least 1.

    Example:
      >>> import gmc_jax, optax
      >>> tx = gmc_jax.bmuf(
      ...     optax.sgd(0.1), gmc_jax.exact(), period=50, block_momentum=7 / 8
      ... )

    Guarantees:
      Without Nesterov's momentum, over an inner optimizer at a constant rate, it is
      `slowmo` whose slow learning rate is the block learning rate.

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
