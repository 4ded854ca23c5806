"""SparseLoCo, local steps whose sparse pseudo-gradients have error feedback."""

from __future__ import annotations

import optax

from gmc_jax.core import Channel
from gmc_jax.transforms.buffers import Buffers
from gmc_jax.transforms.error_feedback import error_feedback
from gmc_jax.transforms.periodic import Period, periodic
from gmc_jax.transforms.with_float32_state import with_float32_state
from gmc_jax.utils import checks
from gmc_jax.utils.call_repr import call_repr


@call_repr
def sparse_loco(
    inner: optax.GradientTransformation,
    channel: Channel,
    *,
    period: Period = 15,
    decay: float = 0.95,
    outer_learning_rate: float = 1.0,
    buffers: Buffers | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Sends few entries of each pseudo-gradient; what is not sent fades.

        x_k <- x_k + inner(g_k)                          `period` times
        p_k = decay * e_k + z - x_k;  e_k <- p_k - C(p_k)
        z <- z - outer_learning_rate * mean of C(p_k);  x_k <- z

    As a chain:

        outer = chain(error_feedback(channel, decay), scale(-outer_learning_rate))
        periodic(inner, outer, period)

    Here z is the anchor, where all workers last synchronised. The outer step has no
    momentum: the residual, which fades, takes its place. The channel says what the mean
    is. Through `all_gather` it is over all workers. The authors' code takes it over the
    workers that sent an entry: `mean_of_senders`. There an entry moves up to K times as
    far. Here the outer rate counts once, as in their deployed code. Their first code
    multiplies z - x_k by it before it is added to the residual, and what arrives once
    more, so its `outer` is

        chain(scale(alpha), error_feedback(channel, decay), scale(-alpha))

    At the default rate of 1 these two are the same. The deployed code also shrinks what
    a worker sent of a tensor to the median norm over workers; this library does not.

    Args:
      inner: the inner optimizer, from gradients to steps, learning rate included.
        `optax.inject_hyperparams` may inject all numeric arguments. The paper has
        `optax.adamw`.
      channel: averages the pseudo-gradients over workers. The paper sends 1 to 3
        percent of the entries, the largest of each block, in two bits each.
      period: local steps between two synchronisations, at least 1: a number, or a
        function of the step. It is H in the paper, 15 to 250.
      decay: what the residual is multiplied by at a synchronisation, in [0, 1].
      outer_learning_rate: greater than 0; alpha in the paper.
      buffers: what a synchronisation does to the inner optimizer's buffers:
        `maintain_buffers()`, the default, `reset_buffers()` or
        `average_buffers(channel)`.

    Returns:
      A transformation from gradients to steps, which stands last in its chain.
      Parameters, residuals and the state of the inner optimizer differ between workers.
      z is the same on all. Residuals are in units of pseudo-gradients.

    Raises:
      TypeError: if `inner` is not a transformation, `channel` not a channel, or
        `buffers` not a strategy.
      ValueError: if `decay` is not in [0, 1], `outer_learning_rate` is not finite and
        greater than 0, or `period` is a number but not a whole number of at least 1.

    Example:
      >>> import gmc_jax, optax
      >>> channel = gmc_jax.mean_of_senders(gmc_jax.top_k(0.03), per_leaf=True)
      >>> tx = gmc_jax.sparse_loco(optax.adamw(4e-4), channel)

    Guarantees:
      With `decay=1` it is Qsparse-local-SGD.
      With `decay=1`, `period=1` and `optax.sgd` as `inner` it is `ef_sgd`.
      Through `exact()` it is `diloco` with the same outer rate and without outer
      momentum, for any `decay`.

    References:
      Sarfi et al., "Communication Efficient LLM Pre-training with SparseLoCo", 2025,
      arXiv:2508.15706. Defaults are those of the authors' code.
    """
    checks.positive(outer_learning_rate=outer_learning_rate)
    outer = optax.chain(
        error_feedback(channel, decay),
        with_float32_state(optax.scale(-outer_learning_rate)),
    )
    return periodic(inner, outer, period, buffers=buffers)
