"""GMC+, Global Momentum Compression with detached error feedback."""

from __future__ import annotations

import optax

from gmc_jax.core import Channel
from gmc_jax.transforms._learning_rate import descent
from gmc_jax.transforms._momentum import momentum_value
from gmc_jax.transforms.detached import detached
from gmc_jax.transforms.error_feedback import error_feedback
from gmc_jax.transforms.global_momentum import global_momentum
from gmc_jax.utils import checks
from gmc_jax.utils.described import described


@described
def gmc_plus(
    learning_rate: optax.ScalarOrSchedule,
    channel: Channel,
    *,
    momentum: float | None = 0.9,
    detach: float = 0.5,
) -> optax.GradientTransformationExtraArgs:
    """GMC whose workers take their gradients where their own debts would lead them.

        g_k taken at w_t - detach * lr_t e_k
        u_k = e_k + g_k - (momentum / lr_t) (w_t - w_{t-1})
        w_{t+1} = w_t - lr_t mean over k of C(u_k);  e_k <- u_k - C(u_k)

    Made for compressors that owe much for long, such as `random_block`: the gradient is
    taken at the point that a worker would be at if part of its residual were sent. The
    loop asks `gmc_jax.query(opt_state, params)` for that point, which differs between
    workers and costs no communication; the model is judged at the parameters.

    The scale of the residual is reconstructed, as the published formula was not at
    hand: e_k is in units of gradients here, so a rate belongs to it, and lr_t is the
    one it would be sent with. As `gmc` it suits rates that fall: where a rate jumps up
    again (a warm restart) what is still owed is sent at the new rate, a large step, and
    the point of the gradient jumps with it. Weight decay in front, as for `gmc`, decays
    at the point that `update` is given (see `def_sgd`).

    Args:
      learning_rate: a number, a schedule, or an array from `optax.inject_hyperparams`,
        which may inject all numbers (then the point is scaled by the last rate, as
        the next is not known yet).
      channel: what averages, such as `all_reduce(random_block(1 / 64))`.
      momentum: in [0, 1) (None is 0); 0.9 is reconstructed from the paper's remarks.
      detach: how much of the residual is anticipated, lambda in the paper, in [0, 1].

    Returns:
      A transformation from gradients to steps. Its state holds one residual for each
      worker, in units of gradients, and one shared vector, the last averaged message.

    Raises:
      ValueError: if `momentum` does not lie in [0, 1), `detach` not in [0, 1], or a
        rate is negative or not finite.

    Example:
      >>> import gmc_jax
      >>> channel = gmc_jax.all_reduce(gmc_jax.random_block(1 / 64))
      >>> tx = gmc_jax.gmc_plus(0.1, channel)

    Guarantees:
      With `detach=0` it is `gmc`; through `exact()` it is `gmc` for every `detach`.
      At a constant rate, for any compressor, with b the momentum, z_t =
      (w_t - b w_{t-1} - lr mean of e_{t,k}) / (1 - b) moves by -lr / (1 - b) times the
      mean of the gradients, each taken at its worker's own point.
      With `momentum=0`, at a constant rate and for a compressor that commutes with
      scaling, it is `def_sgd` without momentum.
      With one worker, `momentum=0` and `detach=1`, w_t - lr e_t is exactly SGD at a
      constant rate for any compressor; with momentum it is not momentum SGD.

    References:
      Algorithm 2 of Shi, Zhao, Xie, Gao and Li, "Global Momentum Compression for Sparse
      Communication in Distributed Learning", arXiv:1905.12948.
    """
    checks.momentum(momentum=momentum)
    checks.learning_rate(learning_rate=learning_rate)
    return optax.chain(
        global_momentum(
            detached(error_feedback(channel), detach, learning_rate),
            momentum_value(momentum),
            learning_rate,
        ),
        descent(learning_rate),
    )
