"""DEF, Detached Error Feedback, evaluated at the parameters."""

from __future__ import annotations

import optax

from gmc_jax.core import Channel
from gmc_jax.transforms._learning_rate import descent
from gmc_jax.transforms._momentum import momentum_trace
from gmc_jax.transforms.detached import detached
from gmc_jax.transforms.error_feedback import error_feedback
from gmc_jax.utils import checks
from gmc_jax.utils.call_repr import call_repr


@call_repr
def def_sgd(
    learning_rate: optax.ScalarOrSchedule,
    channel: Channel,
    *,
    momentum: float | None = 0.9,
    detach: float = 0.3,
) -> optax.GradientTransformationExtraArgs:
    """Error feedback behind local momentum, with gradients taken along the residual.

        g_k taken at x_t - detach * e_k;  m_k <- momentum * m_k + g_k
        p_k = e_k + lr_t m_k;  e_k <- p_k - C(p_k)
        x_{t+1} = x_t - mean over k of C(p_k)

    The chain, where `lr` is `scale_by_learning_rate(learning_rate)`:

        chain(trace(momentum), lr, detached(error_feedback(channel), detach))

    The loop gets the point of the gradient from `gmc_jax.query(opt_state, params)`. It
    differs between workers and costs no communication. The model is evaluated at the
    parameters, x_t. `def_a` trains in the same way, and evaluates the model at the
    virtual iterate. Which of the two the paper calls DEF and which DEF-A is unverified:
    the published code trains in one way and can evaluate at both points. The two names
    are our reading of it.

    Weight decay: the published code decays at the point of the gradient.
    `optax.chain(optax.add_decayed_weights(c), def_sgd(...))` decays at the third
    argument of `update`, which is x_t in `tx.update(grads, opt_state, params)`. To
    decay at the point of the gradient, add c / 2 times the squared norm to the loss. Or
    call `tx.update(grads, opt_state, point)`, where `query` returned `point`: DEF
    itself reads nothing but dtypes from its third argument.

    Args:
      learning_rate: lr_t, at least 0: a number or a schedule.
        `optax.inject_hyperparams` may inject all numeric arguments.
      channel: averages the compressed steps over workers, such as
        `all_reduce(random_block(1 / 64))`.
      momentum: each worker's own, in [0, 1); None means 0.
      detach: lambda in the paper, in [0, 1]: how far along its residual a worker takes
        its gradient.

    Returns:
      A transformation from gradients to steps. Momenta and residuals differ between
      workers. Residuals are in units of steps and signed as updates are: the state
      holds -e_k.

    Raises:
      TypeError: if `channel` is not a channel.
      ValueError: if `momentum` is not in [0, 1), `detach` is not in [0, 1], or
        `learning_rate` is a negative or non-finite number.

    Example:
      >>> import gmc_jax
      >>> channel = gmc_jax.all_reduce(gmc_jax.random_block(1 / 64))
      >>> tx = gmc_jax.def_sgd(0.1, channel)

    Guarantees:
      With `detach=0` it is `ef_momentum`.
      Through `exact()` it is `dmsgd` for every `detach`, to rounding.
      The virtual iterate, x_t - mean over k of e_k, moves by -lr_t times the mean of
      m_k, under any schedule and for any compressor.
      With one worker and `detach=1` the virtual iterate is exactly momentum SGD (the
      buffer of `optax.trace`), under any schedule and for any compressor.

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
