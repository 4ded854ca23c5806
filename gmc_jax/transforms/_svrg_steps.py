"""Steps of variance-reduced gradients, perhaps into a set."""

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
    """The steps inside an epoch.

    Raises:
      TypeError: if `learning_rate` is None, `channel` no channel, or `projection` no
        function.
      ValueError: if a rate is negative or not finite.
    """
    checks.learning_rate(learning_rate=learning_rate)
    steps = [
        variance_reduced(channel),
        descent(learning_rate),
    ]
    return optax.chain(*steps, *([] if projection is None else [projected(projection)]))
