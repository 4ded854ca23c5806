"""Any optimizer on each worker, with detached error feedback behind it."""

from __future__ import annotations

import optax

from gmc_jax.core import Channel
from gmc_jax.transforms.detached import detached
from gmc_jax.transforms.error_feedback import error_feedback
from gmc_jax.transforms.with_float32_state import with_float32_state
from gmc_jax.utils import checks
from gmc_jax.utils.call_repr import call_repr


@call_repr
def detached_optimizer(
    inner: optax.GradientTransformation,
    channel: Channel,
    *,
    detach: float = 0.3,
    decay: float = 1.0,
) -> optax.GradientTransformationExtraArgs:
    """Averages the steps of each worker's optimizer, with detached error feedback.

        g_k taken at x_t + detach * e_k;  u_k = inner(g_k)
        p_k = decay * e_k + u_k;  e_k <- p_k - C(p_k)
        x_{t+1} = x_t + mean over k of C(p_k)

    As a chain:

        chain(inner, detached(error_feedback(channel, decay), detach))

    It is `def_sgd` with any optimizer in the place of momentum SGD. The paper has
    momentum SGD alone; Adam in its place is this library's. Every worker has moments of
    its own, of all of its gradients, and the channel selects among steps. In
    `chain(error_feedback(channel), adam)` it selects among gradients, and the moments
    are of what has arrived.

    The loop gets the point of the gradient from `gmc_jax.query(opt_state, params)`. It
    differs between workers and costs no communication. The parameters x_t are the same
    on all workers, and the model is evaluated there. Wrap it in `at_virtual_iterate` to
    evaluate at x_t + mean over k of e_k instead.

    Decoupled weight decay, as in `optax.adamw`, is a part of u_k. It decays at the
    third argument of `update`, which is x_t in `tx.update(grads, opt_state, params)`.

    Args:
      inner: the optimizer of each worker, from gradients to steps, learning rate
        included: `optax.nadamw`. `optax.inject_hyperparams` may inject all numeric
        arguments.
      channel: averages the steps over workers, such as
        `all_gather(quantised(top_k(0.04), centroids(2)))`.
      detach: lambda in the paper, in [0, 1]: how far along its residual a worker takes
        its gradient. With 0 workers see nothing of their residuals, and with 1 each
        goes on from where all of its own steps lead.
      decay: what the residual is multiplied by before it is added, in [0, 1].

    Returns:
      A transformation from gradients to steps. Residuals and the state of the inner
      optimizer differ between workers. Residuals are in units of steps and signed as
      updates are. Both are float32 for 16-bit trees.

    Raises:
      TypeError: if `inner` is not a transformation, or `channel` is not a channel.
      ValueError: if `detach` or `decay` is not in [0, 1].

    Example:
      About one percent of the bytes of a dense mean:

      >>> import gmc_jax, optax
      >>> code = gmc_jax.quantised(gmc_jax.top_k(0.04), gmc_jax.centroids(2))
      >>> tx = gmc_jax.detached_optimizer(optax.nadamw(1e-3), gmc_jax.all_gather(code))

    Guarantees:
      With `chain(trace(m), scale_by_learning_rate(lr))` as `inner` it is `def_sgd`, bit
        for bit.
      Through `exact()` it steps by the mean of the workers' own steps, for any
        `detach` and `decay`.
      With `decay=1` the virtual iterate, x_t + mean over k of e_k, moves by the mean of
        u_k, for any compressor.

    References:
      Xu and Huang, "Detached Error Feedback for Distributed SGD with Random
      Sparsification", ICML 2022.
    """
    checks.transformation(inner=inner)
    return optax.chain(
        with_float32_state(inner),
        detached(error_feedback(channel, decay), detach),
    )
