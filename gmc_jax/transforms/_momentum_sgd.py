"""SGD on one worker: local steps, without communication."""

import optax

from gmc_jax.transforms._learning_rate import descent
from gmc_jax.transforms._momentum import has_no_momentum, momentum_trace
from gmc_jax.utils import checks


def momentum_sgd(
    learning_rate: optax.ScalarOrSchedule,
    momentum: float | None = 0.0,
    nesterov: bool = False,
) -> optax.GradientTransformation:
    """SGD on one worker; steps and momentum are float32 for 16-bit gradients.

    Raises:
      TypeError: if `learning_rate` is None.
      ValueError: if `momentum` does not lie in [0, 1), or a rate is negative or not
        finite.
    """
    checks.momentum(momentum=momentum)
    checks.flag(nesterov=nesterov)
    checks.learning_rate(learning_rate=learning_rate)
    if has_no_momentum(momentum):
        return descent(learning_rate)
    return optax.chain(momentum_trace(momentum, nesterov), descent(learning_rate))
