"""DGC, Deep Gradient Compression."""

from __future__ import annotations

import optax

from gmc_jax.core import Channel
from gmc_jax.transforms._learning_rate import descent
from gmc_jax.transforms._momentum import momentum_value
from gmc_jax.transforms.momentum_correction import momentum_correction
from gmc_jax.utils import checks
from gmc_jax.utils.described import described


@described
def dgc(
    learning_rate: optax.ScalarOrSchedule,
    channel: Channel,
    *,
    momentum: float | None = 0.9,
    factor_masking: bool = True,
    nesterov: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """Deep Gradient Compression: local momentum, accumulated until it is sent.

        u_k <- momentum * u_k + g_k;  v_k <- v_k + u_k
        w_{t+1} = w_t - lr_t mean over k of C(v_k)
        v_k <- v_k - C(v_k);  u_k <- 0 where v_k was sent (with factor masking)

    With `nesterov` the first line is that of the published code,

        u_k <- momentum * (u_k + g_k);  v_k <- v_k + u_k + g_k

    DGC compresses tensor by tensor: `all_gather(top_k(0.001), per_leaf=True)`; the GMC
    paper compares with the whole vector. What else belongs to it stands around it:
    `clip_by_local_norm` in front clips each worker's gradient before it is accumulated,
    and `join_channels` warms the sparsity up, an epoch for each ratio.

    Args:
      learning_rate: a number, a schedule, or an array from `optax.inject_hyperparams`,
        which may inject all numbers.
      channel: what averages.
      momentum: in [0, 1) (None is 0).
      factor_masking: whether momentum is cleared where it was just sent.
      nesterov: whether the momentum is Nesterov's, as in `optax.sgd`.

    Returns:
      A transformation from gradients to steps. Momentum and accumulated gradient, in
      units of gradients, differ between workers.

    Raises:
      ValueError: if `momentum` does not lie in [0, 1), or a rate is negative or not
        finite.

    Example:
      >>> import gmc_jax
      >>> channel = gmc_jax.all_gather(gmc_jax.top_k(0.001), per_leaf=True)
      >>> tx = gmc_jax.dgc(0.1, channel)

      With clipping, and with the warm-up of the paper, the ratio a fourth in each of
      the first epochs:

      >>> import optax
      >>> epoch, ratios = 390, [0.25, 0.0625, 0.015625, 0.004, 0.001]
      >>> channel = gmc_jax.join_channels(
      ...     [
      ...         gmc_jax.all_gather(gmc_jax.top_k(ratio), per_leaf=True)
      ...         for ratio in ratios
      ...     ],
      ...     boundaries=[epoch, 2 * epoch, 3 * epoch, 4 * epoch],
      ... )
      >>> tx = optax.chain(
      ...     gmc_jax.clip_by_local_norm(1.0), gmc_jax.dgc(0.1, channel, nesterov=True)
      ... )

    Guarantees:
      Through `exact()` it is momentum SGD without factor masking and SGD with it, at
      1 + momentum times the rate with `nesterov`.
      Without masking, at a constant rate and for any compressor, w_t - lr mean of v_k
      is momentum SGD with the gradients taken at w_t, and with b the momentum
      w_t - lr mean of v_k - lr b / (1 - b) mean of u_k moves by -lr / (1 - b) times the
      mean gradient.
      With masking w_t - lr mean of v_k moves by -lr times the mean of what was added
      to v_k.

    References:
      Lin, Han, Mao, Wang and Dally, "Deep Gradient Compression: Reducing the
      Communication Bandwidth for Distributed Training", ICLR 2018.
    """
    checks.momentum(momentum=momentum)
    checks.learning_rate(learning_rate=learning_rate)
    return optax.chain(
        momentum_correction(
            channel, momentum_value(momentum), factor_masking, nesterov
        ),
        descent(learning_rate),
    )
