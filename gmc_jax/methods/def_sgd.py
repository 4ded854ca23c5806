"""DEF, Detached Error Feedback, judged at the parameters."""

from __future__ import annotations

import optax

from gmc_jax.core import Channel
from gmc_jax.transforms._learning_rate import descent
from gmc_jax.transforms._momentum import momentum_trace
from gmc_jax.transforms.detached import detached
from gmc_jax.transforms.error_feedback import error_feedback
from gmc_jax.utils import checks
from gmc_jax.utils.described import described


@described
def def_sgd(
    learning_rate: optax.ScalarOrSchedule,
    channel: Channel,
    *,
    momentum: float | None = 0.9,
    detach: float = 0.3,
) -> optax.GradientTransformationExtraArgs:
    """Error feedback behind local momentum, gradients taken along the residual.

        g_k taken at x_t - detach * e_k;  m_k <- momentum * m_k + g_k
        p_k = e_k + lr_t m_k;  e_k <- p_k - C(p_k)
        x_{t+1} = x_t - mean over k of C(p_k)

    The loop asks `gmc_jax.query(opt_state, params)` for a worker's own point, which
    costs no communication. The model is judged at x_t, the parameters; `def_a` is the
    same training judged elsewhere. Which of the two the paper's names DEF and DEF-A
    mean is unverified: the published code trains in one way and holds both points to
    judge, and this pair of names is our reading of it.

    Weight decay: the published code decays at the point of the gradient.
    `optax.chain(optax.add_decayed_weights(c), def_sgd(...))` decays at the point that
    `update` is given. `tx.update(grads, opt_state, params)` makes that x_t; for the
    point of the gradient put c / 2 times the squared norm into the loss, or call
    `tx.update(grads, opt_state, point)` with what `query` returned (of its third
    argument DEF itself reads the dtypes alone).

    Args:
      learning_rate: a number, a schedule, or an array from `optax.inject_hyperparams`,
        which may inject all numbers.
      channel: what averages, such as `all_reduce(random_block(1 / 64))`.
      momentum: in [0, 1) (None is 0).
      detach: how much of the residual is anticipated, lambda in the paper, in [0, 1].

    Returns:
      A transformation from gradients to steps. Momentum and residual (in units of
      steps, signed as updates are) differ between workers.

    Raises:
      ValueError: if `momentum` does not lie in [0, 1), `detach` not in [0, 1], or a
        rate is negative or not finite.

    Example:
      >>> import gmc_jax
      >>> channel = gmc_jax.all_reduce(gmc_jax.random_block(1 / 64))
      >>> tx = gmc_jax.def_sgd(0.1, channel)

    Guarantees:
      With `detach=0` it is `ef_momentum`; through `exact()` it is `dmsgd` for every
      `detach`, to rounding.
      x_t - mean of e_k moves by -lr_t times the mean of m_k, under any schedule and for
      any compressor.
      With one worker and `detach=1`, x_t - e_t is exactly momentum SGD (the buffer of
      `optax.trace`) under any schedule and for any compressor.

    References:
      Xu and Huang, "Detached Error Feedback for Distributed SGD with Random
      Sparsification", ICML 2022.
    """
    checks.momentum(momentum=momentum)
    checks.learning_rate(learning_rate=learning_rate)
    return optax.chain(
        momentum_trace(momentum),
        descent(learning_rate),
        detached(error_feedback(channel), detach),
    )
