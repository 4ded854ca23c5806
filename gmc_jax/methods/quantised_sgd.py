"""QSGD, SGD on gradients that are rounded at random."""

from __future__ import annotations

import optax

from gmc_jax.channels.all_gather import all_gather
from gmc_jax.compressors.qsgd import qsgd
from gmc_jax.methods.dmsgd import dmsgd
from gmc_jax.utils.call_repr import call_repr


@call_repr
def quantised_sgd(
    learning_rate: optax.ScalarOrSchedule,
    *,
    levels: int = 7,
    bucket: int | None = 512,
    seed: int = 0,
    axis_name: str = "workers",
) -> optax.GradientTransformationExtraArgs:
    """Sends gradients whose entries are rounded at random to a few levels (QSGD).

    For each bucket v of worker k's gradient g_k, leaf by leaf, with s levels:

        Q(v)_j = |v|_2 * sign(v_j) * xi_j / s,  xi_j = l or l + 1
        l = floor(s |v_j| / |v|_2),             P(xi_j = l + 1) = s |v_j| / |v|_2 - l
        w_{t+1} = w_t - lr_t * mean over k of Q(g_k)

    The chain, where `lr` is `scale_by_learning_rate(learning_rate)`:

        chain(averaged(all_gather(qsgd(levels, bucket), per_leaf=True)), lr)

    Rounding is unbiased, so nothing is remembered of what it loses: it adds noise to
    the gradients. More levels or smaller buckets make less noise, and larger messages.
    For momentum behind the mean write `dmsgd(learning_rate, channel)` with this
    channel.

    Every worker receives all codes. With dozens of workers, `two_phase(qsgd(levels))`
    in the place of `all_gather` sends fewer bytes.

    Args:
      learning_rate: lr_t, at least 0: a number or a schedule.
        `optax.inject_hyperparams` may inject it, and `seed`; the rest shapes the
        program.
      levels: s, 1 to 127. 7 levels, their signs and zero take 4 bits an entry, as in
        the paper's experiments.
      bucket: the number of entries with one norm; None is one bucket a leaf. 512 is the
        paper's for 4 bits.
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
      >>> tx = gmc_jax.quantised_sgd(0.1)

    Guarantees:
      It is unbiased: the mean of a step, over draws, is that of SGD on the mean
      gradient.
      The variance of Q(v) is at most min(b / s^2, sqrt(b) / s) |v|^2 for a bucket of b
      entries. Workers draw for themselves, so the variance of the mean of K workers is
      the sum of theirs over K^2.
      It is `dmsgd` without momentum through this channel.

    References:
      Alistarh, Grubic, Li, Tomioka and Vojnovic, "QSGD: Communication-Efficient SGD via
      Gradient Quantization and Encoding", NeurIPS 2017: Algorithm 1. Its Elias codes,
      whose length depends on the data, are codes of a fixed width here.
    """
    channel = all_gather(
        qsgd(levels, bucket), per_leaf=True, seed=seed, axis_name=axis_name
    )
    return dmsgd(learning_rate, channel, momentum=None)
