"""DiLoCo, Distributed Low-Communication training."""

from __future__ import annotations

import optax

from gmc_jax.core import Channel
from gmc_jax.transforms.averaged import averaged
from gmc_jax.transforms.buffers import Buffers
from gmc_jax.transforms.periodic import periodic
from gmc_jax.transforms.with_float32_state import with_float32_state
from gmc_jax.utils import checks
from gmc_jax.utils.described import described


@described
def diloco(
    inner: optax.GradientTransformation,
    channel: Channel,
    *,
    period: int = 500,
    outer_learning_rate: float = 0.7,
    outer_momentum: float | None = 0.9,
    buffers: Buffers | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Many local steps of AdamW, and a step of Nesterov on how far they led.

        x_k <- x_k + inner(g_k)                          `period` times
        D = z - mean over k of x_k;  m <- outer_momentum * m + D
        z <- z - outer_learning_rate * (D + outer_momentum * m);  x_k <- z

    Here z is where workers last met, and D the outer gradient. Unlike slow momentum it
    is not divided by the base's rate, so that as the rate decays D shrinks. For another
    outer optimizer, or a compressed one, write `periodic` yourself: its outer part here
    is `chain(averaged(channel), optax.sgd(outer_learning_rate, outer_momentum,
    nesterov=True))`.

    Args:
      inner: the base, from gradients to steps, learning rate included; `optax.adamw` in
        the paper. Its state stays each worker's own. All numbers below may be injected
        by `optax.inject_hyperparams`.
      channel: what averages, `exact()` in the paper.
      period: H, local steps between two meetings.
      outer_learning_rate: finite and greater than 0.
      outer_momentum: in [0, 1) (None is 0).
      buffers: what becomes of the base's buffers at a meeting; see `periodic`.

    Returns:
      A transformation from gradients to steps, the last in its chain. Parameters and
      the base's state differ between workers; z and m do not.

    Raises:
      ValueError: if `outer_momentum` does not lie in [0, 1), `outer_learning_rate` is
        not finite and greater than 0, or `period` is not a whole number of at least 1.

    Example:
      >>> import gmc_jax, optax
      >>> tx = gmc_jax.diloco(optax.adamw(4e-4, weight_decay=0.1), gmc_jax.exact())

    Guarantees:
      With `outer_learning_rate=1` and `outer_momentum=0` it is periodic averaging, over
      `optax.sgd` `local_sgd`.

    References:
      Douillard et al., "DiLoCo: Distributed Low-Communication Training of Language
      Models", 2023, arXiv:2311.08105: Algorithm 1.
    """
    checks.momentum(outer_momentum=outer_momentum)
    checks.positive(outer_learning_rate=outer_learning_rate)
    nesterov = with_float32_state(
        optax.sgd(outer_learning_rate, outer_momentum, nesterov=True)
    )
    return periodic(
        inner, optax.chain(averaged(channel), nesterov), period, buffers=buffers
    )
