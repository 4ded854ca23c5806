"""DGC, Deep Gradient Compression."""

import optax

from gmc_jax import checks
from gmc_jax.core import Channel
from gmc_jax.transforms.local_momentum import local_momentum


def dgc(
    learning_rate: optax.ScalarOrSchedule,
    channel: Channel,
    *,
    momentum: float = 0.9,
    factor_masking: bool = True,
) -> optax.GradientTransformationExtraArgs:
    """Deep Gradient Compression: local momentum, accumulated until it is sent.

        u_k <- momentum * u_k + g_k;  v_k <- v_k + u_k
        w_{t+1} = w_t - lr_t mean over k of C(v_k)
        v_k <- v_k - C(v_k);  u_k <- 0 where v_k was sent (with factor masking)

    DGC compresses tensor by tensor: `all_gather(top_k(0.001), per_leaf=True)`; the GMC
    paper compares with the whole vector.

    Args:
      learning_rate: a number, a schedule, or an array from `optax.inject_hyperparams`.
      channel: what averages.
      momentum: in [0, 1).
      factor_masking: whether momentum is cleared where it was just sent.

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

    Guarantees:
      Through `exact()` it is SGD with factor masking and momentum SGD without.
      Without masking, w_t - lr mean of v_k is momentum SGD with the gradients taken at
      w_t, at a constant rate.

    References:
      Lin, Han, Mao, Wang and Dally, "Deep Gradient Compression: Reducing the
      Communication Bandwidth for Distributed Training", ICLR 2018.
    """
    checks.decay(momentum=momentum)
    checks.learning_rate(learning_rate=learning_rate)
    return optax.chain(
        local_momentum(channel, momentum, factor_masking),
        optax.scale_by_learning_rate(learning_rate),
    )
