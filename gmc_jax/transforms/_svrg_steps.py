"""The steps of SVRG inside an epoch, with an optional projection."""

from collections.abc import Callable

import optax

from gmc_jax.core import Channel, Tree
from gmc_jax.transforms._learning_rate import descent
from gmc_jax.transforms.projected import projected
from gmc_jax.transforms.variance_reduced import variance_reduced
from gmc_jax.utils import checks


def svrg_steps(
    learning_rate: optax.ScalarOrSchedule,
    channel: Channel,
    projection: Callable[[Tree], Tree] | None,
) -> optax.GradientTransformationExtraArgs:
    """Variance-reduced gradients times minus the rate, projected if asked for.

    Raises:
      TypeError: if `learning_rate` is None, `channel` is not a channel, or `projection`
        is not a function.
      ValueError: if a rate is negative or not finite.
    """
    checks.channel(channel=channel)
    checks.learning_rate(learning_rate=learning_rate)
    steps = [variance_reduced(channel), descent(learning_rate)]
    return optax.chain(*steps, *([] if projection is None else [projected(projection)]))
