"""DGC, Deep Gradient Compression."""

from __future__ import annotations

import optax

from gmc_jax.core import Channel
from gmc_jax.transforms._learning_rate import descent
from gmc_jax.transforms._momentum import momentum_value
from gmc_jax.transforms.momentum_correction import momentum_correction
from gmc_jax.utils import checks
from gmc_jax.utils.call_repr import call_repr


@call_repr
def dgc(
    learning_rate: optax.ScalarOrSchedule,
    channel: Channel,
    *,
    momentum: float | None = 0.9,
    factor_masking: bool = True,
    nesterov: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """Accumulates each worker's momentum until it is sent.

        u_k <- momentum * u_k + g_k;  v_k <- v_k + u_k
        w_{t+1} = w_t - lr_t mean over k of C(v_k)
        v_k <- v_k - C(v_k);  u_k <- 0 where v_k was sent (with factor masking)

    With `nesterov` the first line is that of the published code:

        u_k <- momentum * (u_k + g_k);  v_k <- v_k + u_k + g_k

    The chain, where `lr` is `scale_by_learning_rate(learning_rate)`:

        chain(momentum_correction(channel, momentum, factor_masking, nesterov), lr)

    DGC compresses each tensor by itself: `all_gather(top_k(0.001), per_leaf=True)`. The
    GMC paper compares with DGC on the whole vector. Two more parts of DGC are functions
    of their own. `clip_by_local_norm`, in front, clips each worker's gradient before it
    is accumulated. `join_channels` makes a channel whose ratio falls epoch by epoch,
    which is the warm-up.

    Args:
      learning_rate: lr_t, at least 0: a number or a schedule.
        `optax.inject_hyperparams` may inject all numeric arguments.
      channel: averages the compressed gradients over workers, such as
        `all_gather(top_k(0.001), per_leaf=True)`.
      momentum: each worker's own, in [0, 1); None means 0.
      factor_masking: whether momentum is set to 0 where it was just sent.
      nesterov: whether the momentum is Nesterov's, as in `optax.sgd`.

    Returns:
      A transformation from gradients to steps. Momenta and accumulated gradients, in
      units of gradients, differ between workers.

    Raises:
      TypeError: if `channel` is not a channel.
      ValueError: if `momentum` is not in [0, 1), or `learning_rate` is a negative or
        non-finite number.

    Example:
      >>> import gmc_jax
      >>> channel = gmc_jax.all_gather(gmc_jax.top_k(0.001), per_leaf=True)
      >>> tx = gmc_jax.dgc(0.1, channel)

      With clipping, and with the paper's warm-up, which divides the ratio by about 4
      after each of the first epochs:

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
      Through `exact()` it is momentum SGD without factor masking, and SGD with it (with
      `nesterov`, at 1 + momentum times the rate).
      Without factor masking, at a constant rate and for any compressor, w_t - lr mean
      over k of v_k is momentum SGD with the gradients taken at w_t.
      Under the same conditions, with b the momentum, w_t - lr mean over k of v_k - lr b
      / (1 - b) mean over k of u_k moves by -lr / (1 - b) times the mean gradient.
      With factor masking, w_t - lr mean over k of v_k moves by -lr times the mean of
      what was added to v_k.

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
