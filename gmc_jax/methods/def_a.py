"""DEF-A, Detached Error Feedback, evaluated at the virtual iterate."""

from __future__ import annotations

import optax

from gmc_jax.core import Channel
from gmc_jax.methods.def_sgd import def_sgd
from gmc_jax.transforms.at_virtual_iterate import at_virtual_iterate
from gmc_jax.utils.call_repr import call_repr


@call_repr
def def_a(
    learning_rate: optax.ScalarOrSchedule,
    channel: Channel,
    *,
    momentum: float | None = 0.9,
    detach: float = 0.3,
) -> optax.GradientTransformationExtraArgs:
    """DEF whose model is evaluated as if every residual had been sent.

        g_k taken at x_t - detach * e_k;  m_k <- momentum * m_k + g_k
        p_k = e_k + lr_t m_k;  e_k <- p_k - C(p_k)
        x_{t+1} = x_t - mean over k of C(p_k);  evaluated at x_t - mean over k of e_k

    As a chain:

        at_virtual_iterate(def_sgd(learning_rate, channel))

    Training is that of `def_sgd`, weight decay included. Only
    `gmc_jax.evaluate(opt_state, params, layout)` returns another point, the virtual
    iterate. That the name DEF-A belongs to this point is our reading of the published
    code and unverified (see `def_sgd`).

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
      >>> tx = gmc_jax.def_a(0.1, channel)

    Guarantees:
      Steps and residuals are those of `def_sgd`.
      The virtual iterate, x_t - mean over k of e_k, moves by -lr_t times the mean of
      m_k.

    References:
      Xu and Huang, "Detached Error Feedback for Distributed SGD with Random
      Sparsification", ICML 2022.
    """
    return at_virtual_iterate(
        def_sgd(learning_rate, channel, momentum=momentum, detach=detach)
    )
