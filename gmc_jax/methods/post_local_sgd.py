"""Post-local SGD: all workers together at first, and local steps later."""

from __future__ import annotations

import jax.numpy as jnp
import optax

from gmc_jax.core import Channel
from gmc_jax.methods.local_sgd import local_sgd
from gmc_jax.transforms.buffers import Buffers
from gmc_jax.utils import checks
from gmc_jax.utils.described import described


@described
def post_local_sgd(
    learning_rate: optax.ScalarOrSchedule,
    channel: Channel,
    *,
    local_from_step: int,
    period: int = 16,
    momentum: float | None = 0.0,
    nesterov: bool = False,
    buffers: Buffers | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Averages after every step at first, and later after every `period` steps.

        period_t = 1 where t < local_from_step, and `period` from then on

    The other equations are those of `local_sgd`. Late local steps lead to flatter
    minima, the paper says, and save most of the traffic where the rate is small.

    Args:
      learning_rate: a number, a schedule, or an array from `optax.inject_hyperparams`,
        which may inject all numbers.
      channel: what averages, `exact()` in the paper.
      local_from_step: steps before the local phase, at least 1; the paper starts it
        where the rate first falls.
      period: local steps between two meetings from then on; 16 in the authors'
        scripts.
      momentum: in [0, 1) (None is 0).
      nesterov: whether momentum is Nesterov's.
      buffers: what becomes of the momenta at a meeting; see `periodic`.

    Returns:
      A transformation from gradients to steps, the last in its chain. Parameters and
      momenta differ between workers.

    Raises:
      ValueError: if `momentum` does not lie in [0, 1), `local_from_step` or `period` is
        not a whole number of at least 1, or a rate is negative or not finite.

    Example:
      >>> import gmc_jax
      >>> tx = gmc_jax.post_local_sgd(0.1, gmc_jax.exact(), local_from_step=5_000)

    Guarantees:
      Before `local_from_step` it is `local_sgd` with `period=1`.

    References:
      Lin, Stich, Patel and Jaggi, "Don't Use Large Mini-Batches, Use Local SGD", ICLR
      2020.
    """
    checks.steps(local_from_step=local_from_step, period=period)
    return local_sgd(
        learning_rate,
        channel,
        period=lambda step: jnp.where(jnp.asarray(step) < local_from_step, 1, period),
        momentum=momentum,
        nesterov=nesterov,
        buffers=buffers,
    )
