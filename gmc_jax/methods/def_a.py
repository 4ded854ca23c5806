"""DEF-A, Detached Error Feedback, judged with all debts settled."""

from __future__ import annotations

import optax

from gmc_jax.core import Channel
from gmc_jax.methods.def_sgd import def_sgd
from gmc_jax.transforms.at_virtual_iterate import at_virtual_iterate
from gmc_jax.utils.described import described


@described
def def_a(
    learning_rate: optax.ScalarOrSchedule,
    channel: Channel,
    *,
    momentum: float | None = 0.9,
    detach: float = 0.3,
) -> optax.GradientTransformationExtraArgs:
    """DEF that is judged where it would be if all workers sent what they owe.

        g_k taken at x_t - detach * e_k;  m_k <- momentum * m_k + g_k
        p_k = e_k + lr_t m_k;  e_k <- p_k - C(p_k)
        x_{t+1} = x_t - mean over k of C(p_k);  judged: x_t - mean over k of e_k

    Training is that of `def_sgd`, weight decay included; only what
    `gmc_jax.evaluate(opt_state, params, layout)` returns differs. That this point goes
    with the name DEF-A is our reading of the published code and unverified (see
    `def_sgd`).

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
      >>> tx = gmc_jax.def_a(0.1, channel)

    Guarantees:
      Steps and residuals are those of `def_sgd`.
      The point that is judged moves by -lr_t times the mean of m_k.

    References:
      Xu and Huang, "Detached Error Feedback for Distributed SGD with Random
      Sparsification", ICML 2022.
    """
    return at_virtual_iterate(
        def_sgd(learning_rate, channel, momentum=momentum, detach=detach)
    )
