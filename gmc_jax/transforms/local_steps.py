"""The steps of SGD that a worker takes by itself."""

import optax
from jax.core import Tracer

from gmc_jax import checks
from gmc_jax.transforms.widened import widened


def local_steps(
    learning_rate: optax.ScalarOrSchedule,
    momentum: float = 0.0,
    nesterov: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """SGD whose steps and momentum are float32 for 16-bit gradients, and not averaged.

    Raises:
      TypeError: if `learning_rate` is None.
      ValueError: if `momentum` does not lie in [0, 1), or a rate is negative or not
        finite.
    """
    checks.decay(momentum=momentum)
    checks.learning_rate(learning_rate=learning_rate)
    descent = optax.scale_by_learning_rate(learning_rate)
    if isinstance(momentum, Tracer) or momentum:
        descent = optax.chain(optax.trace(momentum, nesterov=nesterov), descent)
    return widened(descent)
