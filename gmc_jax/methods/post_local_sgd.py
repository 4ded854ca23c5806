"""Post-local SGD, which averages after every step at first and periodically later."""

from __future__ import annotations

import jax.numpy as jnp
import optax

from gmc_jax.core import Channel
from gmc_jax.methods.local_sgd import local_sgd
from gmc_jax.transforms.buffers import Buffers
from gmc_jax.utils import checks
from gmc_jax.utils.call_repr import call_repr


@call_repr
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
    """Averages parameters after every step at first, later after every `period` steps.

        period_t = 1 where t < local_from_step, and `period` from then on

    As a chain:

        local_sgd(learning_rate, channel, period=period_t)

    The other equations are those of `local_sgd`. According to the paper, late local
    steps lead to flatter minima. They also save most of the traffic of this late phase,
    in which the rate is small.

    Args:
      learning_rate: lr_t, at least 0: a number or a schedule.
        `optax.inject_hyperparams` may inject all numeric arguments.
      channel: averages the pseudo-gradients over workers; `exact()` in the paper.
      local_from_step: the number of steps before the local phase, at least 1. In the
        paper the local phase starts where the rate first falls.
      period: local steps between two synchronisations, at least 1. It holds from
        `local_from_step` on; 16 in the authors' scripts.
      momentum: each worker's own, in [0, 1); None means 0.
      nesterov: whether the momentum is Nesterov's, as in `optax.sgd`.
      buffers: what a synchronisation does to the inner optimizer's buffers:
        `maintain_buffers()`, the default, `reset_buffers()` or
        `average_buffers(channel)`.

    Returns:
      A transformation from gradients to steps, which stands last in its chain.
      Parameters and momenta differ between workers.

    Raises:
      TypeError: if `channel` is not a channel, or `buffers` not a strategy.
      ValueError: if `momentum` is not in [0, 1), `local_from_step` or `period` is not a
        whole number of at least 1, or `learning_rate` is a negative or non-finite
        number.

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
