"""TernGrad, SGD on gradients of three values."""

from __future__ import annotations

import optax

from gmc_jax.channels.all_gather import all_gather
from gmc_jax.compressors.terngrad import terngrad
from gmc_jax.methods.dmsgd import dmsgd
from gmc_jax.utils.call_repr import call_repr


@call_repr
def ternary_sgd(
    learning_rate: optax.ScalarOrSchedule,
    *,
    bucket: int | None = None,
    clip: float | None = 2.5,
    seed: int = 0,
    axis_name: str = "workers",
) -> optax.GradientTransformationExtraArgs:
    """Sends the sign of each entry of a gradient, or zero, at random (TernGrad).

    For each leaf v of worker k's gradient g_k, with standard deviation sigma:

        u_j = v_j, clipped to [-clip * sigma, clip * sigma];  S = max_j |u_j|
        T(v)_j = S * sign(u_j) * b_j, where P(b_j = 1) = |u_j| / S, and b_j = 0 else
        w_{t+1} = w_t - lr_t * mean over k of T(g_k)

    The chain, where `lr` is `scale_by_learning_rate(learning_rate)`:

        chain(averaged(all_gather(terngrad(bucket, clip), per_leaf=True)), lr)

    A large S makes much noise, so the largest entries are clipped. Each worker has an S
    of its own; the paper may also share the largest S of all. For momentum behind the
    mean write `dmsgd(learning_rate, channel)` with this channel. To send a layer
    exactly, as the paper does with the last one, use `optax.partition`.

    Args:
      learning_rate: lr_t, at least 0: a number or a schedule.
        `optax.inject_hyperparams` may inject it, and `seed`; the rest shapes the
        program.
      bucket: the number of entries with one S; None is one S a leaf, as in the paper.
      clip: where to clip, in standard deviations, greater than 0; None for no clipping.
        2.5 is the paper's.
      seed: of the draws.
      axis_name: the named axis whose indices are the workers.

    Returns:
      A transformation from gradients to steps. Nothing differs between workers.

    Raises:
      TypeError: if `axis_name` is not a string.
      ValueError: if `learning_rate` is a negative or non-finite number, or another
        argument is out of range.

    Example:
      >>> import gmc_jax
      >>> tx = gmc_jax.ternary_sgd(0.1)

    Guarantees:
      With `clip=None` it is unbiased: the mean of a step, over draws, is that of SGD on
      the mean gradient. With a clip it is that of SGD on the mean of clipped gradients.
      It is `dmsgd` without momentum through this channel.

    References:
      Wen et al., "TernGrad: Ternary Gradients to Reduce Communication in Distributed
      Deep Learning", NeurIPS 2017: Algorithm 1, with layer-wise ternarizing and
      gradient clipping.
    """
    channel = all_gather(
        terngrad(bucket, clip), per_leaf=True, seed=seed, axis_name=axis_name
    )
    return dmsgd(learning_rate, channel, momentum=None)
