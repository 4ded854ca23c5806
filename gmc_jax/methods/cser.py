"""CSER, Communication-efficient SGD with Error Reset."""

from __future__ import annotations

import optax

from gmc_jax.core import Channel
from gmc_jax.transforms._learning_rate import descent
from gmc_jax.transforms._momentum import momentum_trace
from gmc_jax.transforms.partial_sync import partial_sync
from gmc_jax.utils import checks
from gmc_jax.utils.call_repr import call_repr


@call_repr
def cser(
    learning_rate: optax.ScalarOrSchedule,
    channel: Channel,
    reset_channel: Channel,
    *,
    period: int,
    momentum: float | None = 0.9,
    nesterov: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """Applies unsent parts of steps locally and averages these errors periodically.

        m_k <- momentum * m_k + g_k, taken at x_k;  p_k = lr_t m_k;  r_k = p_k - C2(p_k)
        x_k <- x_k - mean over j of C2(p_j) - r_k;  e_k <- e_k - r_k
        after every `period` steps:
        x_k <- x_k + mean over j of C1(e_j) - C1(e_k);  e_k <- e_k - C1(e_k)

    C2 is what the channel sends, and C1 what the channel of the resets sends. e_k is an
    error: the part of worker k's own steps that the other workers have not received.
    With `nesterov`, p_k = lr_t (momentum * m_k + g_k).

    The chain, where `lr` is `scale_by_learning_rate(learning_rate)`:

        sync = partial_sync(channel, reset_channel, period)
        chain(trace(momentum, nesterov), lr, sync)

    Parameters differ between workers. Leave them out of `replicated` of `simulate` and
    `distribute`. Evaluate the model at their mean, which `gmc_jax.evaluate` returns.

    Every step sends `message_bits(channel, params)`. Every reset also sends
    `message_bits(reset_channel, params)`. The average a step, which is `message_bits`
    of the method, is

        bits(channel) + bits(reset_channel) / period

    With blocks of ratios 1 / R2 and 1 / R1 that is a share of 1 / R2 + 1 / (R1 period)
    of all entries.
    `wire_bytes` of the training function counts the bytes of both channels; its
    `.always` counts those of the channel alone, since the reset is conditional. For
    `relative_cost` count both channels, with `count_entries(channel)` and
    `count_entries(reset_channel, extra=True)`.

    Special cases: with `drop_all()` as the channel and `period=1` it is CSEA (error
    assimilation). With `drop_all()` and a longer period it is partial local SGD
    (CSER-PL). If the reset is also `exact()`, that is local SGD whose buffers stay
    local.

    Weight decay stands in front, as part of g_k. Whatever else moves the parameters is
    undone (see `partial_sync`).

    Args:
      learning_rate: lr_t, at least 0: a number or a schedule.
        `optax.inject_hyperparams` may inject all numeric arguments.
      channel: C2, averages the compressed steps over workers.
      reset_channel: C1, averages the compressed errors over workers. If both channels
        draw at random, give them different seeds. With the same seed and `period=1`, a
        reset would send the entries that were just averaged, which have no error.
      period: steps between two resets of the errors, at least 1.
      momentum: each worker's own, in [0, 1); None means 0.
      nesterov: whether the momentum is Nesterov's, as in `optax.sgd`. The official code
        has Nesterov's; the code of DEF compares with heavy ball.

    Returns:
      A transformation from gradients to steps, which stands last in its chain.
      Parameters, momenta and errors (in units of steps) differ between workers.

    Raises:
      TypeError: if `channel` or `reset_channel` is not a channel.
      ValueError: if the channels average over different axes, `momentum` is not in
        [0, 1), `period` is not a whole number of at least 1, or `learning_rate` is a
        negative or non-finite number.

    Example:
      A share of 1/1024 of all entries, as DGC and GMC have in the experiments of the
      GMC paper. The paper's settings of CSER were not at hand. These are reconstructed
      by the rule of the official scripts: half of the share for steps, half for resets.

      >>> from gmc_jax import all_reduce, cser, random_block
      >>> tx = cser(
      ...     0.1,
      ...     all_reduce(random_block(1 / 2048)),
      ...     all_reduce(random_block(1 / 16), seed=1),
      ...     period=128,
      ... )

    Guarantees:
      For any two channels, x_k - e_k is the same on all workers, to rounding, and the
      mean of x_k moves by minus the mean of p_k.
      With `exact()` as the channel it is `dmsgd` and e_k is zero, for any reset.
      With `drop_all()` as the channel and `exact()` as the reset it is local SGD:
      parameters are averaged every `period` steps.

    References:
      Xie, Zheng, Koyejo, Gupta, Li and Lin, "CSER: Communication-efficient SGD with
      Error Reset", NeurIPS 2020: M-CSER, written after the published code, not the
      paper.
    """
    checks.momentum(momentum=momentum)
    checks.flag(nesterov=nesterov)
    checks.learning_rate(learning_rate=learning_rate)
    return optax.chain(
        momentum_trace(momentum, nesterov=nesterov),
        descent(learning_rate),
        partial_sync(channel, reset_channel, period),
    )
