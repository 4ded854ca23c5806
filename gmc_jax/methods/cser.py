"""CSER, Communication-efficient SGD with Error Reset."""

from __future__ import annotations

import optax

from gmc_jax.core import Channel
from gmc_jax.transforms._learning_rate import descent
from gmc_jax.transforms._momentum import momentum_trace
from gmc_jax.transforms.partial_sync import partial_sync
from gmc_jax.utils import checks
from gmc_jax.utils.described import described


@described
def cser(
    learning_rate: optax.ScalarOrSchedule,
    channel: Channel,
    reset_channel: Channel,
    *,
    period: int,
    momentum: float | None = 0.9,
    nesterov: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """Takes at once, alone, what was not sent, and averages these errors periodically.

        m_k <- momentum * m_k + g_k, taken at x_k;  p_k = lr_t m_k
        x_k <- x_k - mean over j of C2(p_j) - r_k;  e_k <- e_k - r_k
        with r_k = p_k - C2(p_k); after every `period` steps:
        x_k <- x_k + mean over j of C1(e_j) - C1(e_k);  e_k <- e_k - C1(e_k)

    With `nesterov`, p_k = lr_t (momentum * m_k + g_k). Parameters differ between
    workers: leave them out of `replicated` of `simulate` and `distribute`, and judge
    the model at their mean, which `gmc_jax.evaluate` returns.

    A step sends `message_bits(channel, params)`, and one of `period` also
    `message_bits(reset_channel, params)`, so on average (`message_bits` of the method)

        bits(channel) + bits(reset_channel) / period

    and with ratios 1 / R2 and 1 / R1 of blocks a share of 1 / R2 + 1 / (R1 period).
    In `wire_bytes` of the training function the bytes of the channel are `.always`,
    those of the reset are conditional, and the number itself has both. For
    `relative_cost` count both, the second as an addition to the first:
    `count_entries(channel)` and `count_entries(reset_channel, extra=True)`.

    Special cases: with `drop_all()` as the channel and `period=1` it is CSEA (error
    assimilation); with `drop_all()` and a longer period partial local SGD (CSER-PL),
    and local SGD if the reset is `exact()`, with buffers that stay local.

    Weight decay belongs in front, as part of g_k; what moves the parameters elsewhere
    is undone (see `partial_sync`).

    Args:
      learning_rate: a number, a schedule, or an array from `optax.inject_hyperparams`,
        which may inject all numbers.
      channel: C2, what averages steps.
      reset_channel: C1, what averages errors. If both draw at random they need two
        seeds: with one and the same, a reset every step would send the coordinates that
        were just averaged and have no error.
      period: after how many steps errors are reset, at least 1.
      momentum: in [0, 1) (None is 0).
      nesterov: whether momentum is Nesterov's, as in the official code; heavy ball is
        what the code of DEF compares with.

    Returns:
      A transformation from gradients to steps, the last in its chain. Parameters,
      momenta and errors (in units of steps) differ between workers.

    Raises:
      ValueError: if `momentum` does not lie in [0, 1), `period` is not a whole number
        of at least 1, or a rate is negative or not finite.

    Example:
      An overall share of 1/1024, as DGC's and GMC's in the experiments of the GMC
      paper. Its own settings were not at hand; these are reconstructed by the rule of
      the official scripts, which spend half on steps and half on resets:

      >>> from gmc_jax import all_reduce, cser, random_block
      >>> tx = cser(
      ...     0.1,
      ...     all_reduce(random_block(1 / 2048)),
      ...     all_reduce(random_block(1 / 16), seed=1),
      ...     period=128,
      ... )

    Guarantees:
      Whatever the channels, x_k - e_k is the same on all workers, to rounding, and the
      mean of x_k moves by minus the mean of p_k.
      With `exact()` as the channel it is `dmsgd` and e_k is zero, for any reset.
      With `drop_all()` and `exact()` it is local SGD: parameters are averaged every
      `period` steps.

    References:
      Xie, Zheng, Koyejo, Gupta, Li and Lin, "CSER: Communication-efficient SGD with
      Error Reset", NeurIPS 2020, M-CSER; read from code, not from the paper.
    """
    checks.momentum(momentum=momentum)
    checks.flag(nesterov=nesterov)
    checks.learning_rate(learning_rate=learning_rate)
    return optax.chain(
        momentum_trace(momentum, nesterov=nesterov),
        descent(learning_rate),
        partial_sync(channel, reset_channel, period),
    )
