"""EASGD, elastic averaging SGD."""

from __future__ import annotations

import optax

from gmc_jax.core import Channel
from gmc_jax.transforms._of_floating import of_floating
from gmc_jax.transforms.elastic_sync import elastic_sync
from gmc_jax.utils import checks
from gmc_jax.utils.call_repr import call_repr


@call_repr
def easgd(
    inner: optax.GradientTransformation,
    channel: Channel,
    *,
    period: int,
    centre_rate: float = 0.9,
) -> optax.GradientTransformationExtraArgs:
    """Takes local steps; workers and a centre attract each other periodically.

        x_i <- x_i + inner(g_i)                          `period` times
        d_i = alpha (x_i - c);  x_i <- x_i - d_i;  c <- c + sum over i of d_i

    Here alpha = centre_rate / K for K workers. As a chain:

        chain(inner, elastic_sync(channel, centre_rate, period))

    Workers never take over the centre, and so explore on their own. The centre moves a
    part of the way to their mean: c <- c + centre_rate * (mean over i of x_i - c). The
    model is the centre: `gmc_jax.evaluate` returns it.

    EAMSGD, its momentum form, is Nesterov's momentum as the inner optimizer:
    `optax.sgd(rate, momentum=0.99, nesterov=True)`. The paper writes the momentum with
    gradients taken at x_i + momentum * v_i. optax moves that very point. The elastic
    move then acts there, too, where the paper has it at x_i.

    The elastic move follows the step, as in the code of Wang, Liang and Joshi. In the
    paper's synchronous equations both are taken from the same x_i at every step.
    Algorithms 1 and 2 of the paper are asynchronous.

    Args:
      inner: the inner optimizer, from gradients to steps, learning rate included.
        `optax.inject_hyperparams` may inject all numeric arguments. The paper has
        `optax.sgd`.
      channel: averages the differences x_i - c over workers; `exact()` in the paper.
      period: local steps between two synchronisations, at least 1. It is tau in the
        paper, which compares 1 to 64.
      centre_rate: beta in the paper, in [0, 1]; 0.9 in the paper.

    Returns:
      A transformation from gradients to steps, which stands last in its chain.
      Parameters and the state of the inner optimizer differ between workers. The centre
      is the same on all.

    Raises:
      TypeError: if `inner` is not a transformation, or `channel` not a channel.
      ValueError: if `centre_rate` is not in [0, 1], or `period` is not a whole number
        of at least 1.

    Example:
      >>> import gmc_jax, optax
      >>> tx = gmc_jax.easgd(optax.sgd(0.1), gmc_jax.exact(), period=10)

    Guarantees:
      The elastic move keeps the sum of all x_i and c, for any channel.
      With `centre_rate=0` each worker trains alone, and c stays at the start.
      With one worker and `centre_rate=1`, the elastic move swaps x and c.
      Where all x_i are c, the elastic move does nothing.

    References:
      Zhang, Choromanska and LeCun, "Deep Learning with Elastic Averaging SGD", NeurIPS
      2015.
    """
    checks.transformation(inner=inner)
    return optax.chain(of_floating(inner), elastic_sync(channel, centre_rate, period))
