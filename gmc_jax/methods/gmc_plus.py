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
from gmc_jax.utils.call_repr import call_repr


@call_repr
def gmc_plus(
    learning_rate: optax.ScalarOrSchedule,
    channel: Channel,
    *,
    momentum: float | None = 0.9,
    detach: float = 0.5,
) -> optax.GradientTransformationExtraArgs:
    """GMC whose workers take their gradients at points shifted along their residuals.

        g_k taken at w_t - detach * lr_t e_k
        u_k = e_k + g_k - (momentum / lr_t) (w_t - w_{t-1});  e_k <- u_k - C(u_k)
        w_{t+1} = w_t - lr_t mean over k of C(u_k)

    The chain, where `lr` is `scale_by_learning_rate(learning_rate)`:

        feedback = detached(error_feedback(channel), detach, learning_rate)
        chain(global_momentum(feedback, momentum, learning_rate), lr)

    It is made for compressors whose residuals stay large for long, such as
    `random_block`. A worker takes its gradient where its parameters would be if the
    share `detach` of its residual were sent. The loop gets this point from
    `gmc_jax.query(opt_state, params)`. It differs between workers and costs no
    communication. The model is evaluated at the parameters.

    The scale of the shift is reconstructed, as the published formula was not at hand.
    Here e_k is in units of gradients, so a rate must multiply it. We take lr_t, the
    rate at which e_k would be sent.

    It suits rates that fall, as `gmc` does. Where the rate jumps up again (a warm
    restart), the residual is sent at the new rate, which makes a large step. The point
    of the gradient jumps as well. Weight decay stands in front, as for `gmc`, and
    decays at the third argument of `update` (see `def_sgd`).

    Args:
      learning_rate: lr_t, at least 0: a number or a schedule.
        `optax.inject_hyperparams` may inject all numeric arguments. With an injected
        rate the point is shifted by the last rate, since the next one is not set yet.
      channel: averages the compressed gradients over workers, such as
        `all_reduce(random_block(1 / 64))`.
      momentum: in [0, 1); None means 0. The default, 0.9, is reconstructed from the
        paper's remarks.
      detach: lambda in the paper, in [0, 1]: how far along its residual a worker takes
        its gradient.

    Returns:
      A transformation from gradients to steps, which stands last in its chain.
      Residuals, in units of gradients, differ between workers. The momentum, which is
      the last averaged message, is the same on all.

    Raises:
      TypeError: if `channel` is not a channel.
      ValueError: if `momentum` is not in [0, 1), `detach` is not in [0, 1], or
        `learning_rate` is a negative or non-finite number.

    Example:
      >>> import gmc_jax
      >>> channel = gmc_jax.all_reduce(gmc_jax.random_block(1 / 64))
      >>> tx = gmc_jax.gmc_plus(0.1, channel)

    Guarantees:
      With `detach=0` it is `gmc`.
      Through `exact()` it is `gmc` for every `detach`.
      At a constant rate and for any compressor, with b the momentum, z_t = (w_t - b
      w_{t-1} - lr mean over k of e_{t,k}) / (1 - b) moves by -lr / (1 - b) times the
      mean of the gradients, each taken at its worker's point.
      With `momentum=0`, at a constant rate and for a compressor that commutes with
      scaling, it is `def_sgd` without momentum.
      With one worker, `momentum=0`, `detach=1` and a constant rate, w_t - lr e_t is
      exactly SGD for any compressor; with momentum it is not momentum SGD.

    References:
      Shi, Zhao, Xie, Gao and Li, "Global Momentum Compression for Sparse Communication
      in Distributed Learning", arXiv:1905.12948: Algorithm 2.
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
