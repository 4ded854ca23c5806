"""The steps of SGD that a worker takes by itself."""

import optax

from gmc_jax.transforms._learning_rate import descent
from gmc_jax.transforms._momentum import absent, remembered
from gmc_jax.utils import checks


def momentum_sgd(
    learning_rate: optax.ScalarOrSchedule,
    momentum: float | None = 0.0,
    nesterov: bool = False,
) -> optax.GradientTransformation:
    """SGD whose steps and momentum are float32 for 16-bit gradients, and not averaged.

    Raises:
      TypeError: if `learning_rate` is None.
      ValueError: if `momentum` does not lie in [0, 1), or a rate is negative or not
        finite.
    """
    checks.momentum(momentum=momentum)
    checks.flag(nesterov=nesterov)
    checks.learning_rate(learning_rate=learning_rate)
    if absent(momentum):
        return descent(learning_rate)
    return optax.chain(remembered(momentum, nesterov), descent(learning_rate))
