"""What a pattern can be worth in a training of some length.

Seconds a step say what communication costs. They do not say whether what is
communicated suffices. Three numbers bound that, and none of them needs data: how often
an entry is sent, how long a worker's news lags, and how often workers meet.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

from gmc_jax.costs.patterns import Pattern
from gmc_jax.utils import checks

Verdict: TypeAlias = Literal["safe", "aggressive", "as never meeting"]
"""What can be expected of a pattern in a training."""

ORDER: tuple[Verdict, ...] = ("safe", "aggressive", "as never meeting")
"""Verdicts, the best first."""

# The largest lags that are safe, as shares of the training. They come from the losses
# at equal steps in `experiments/results`: `equal_bytes`, `slowmo_digits`, `small_vit`,
# `small_vit_sparse` and `choices`. Every method there that ends more than 0.1 above
# dense lags longer, draws its entries, or has a caution.
LARGEST = 0.05
"""Where all workers hold the same parameters, and messages hold the largest entries.

What is small waits in a residual. GMC with a lag of 3 % ended 0.08 above dense, and
with 21 % it was far behind.
"""
APART = 0.01
"""Where workers take steps of their own, and drift apart until they meet.

It is 50 meetings in a training. With 15 meetings SlowMo over local SGD ended 0.15 above
dense, and local SGD 0.02.
"""
LONGEST = 100
"""The longest lag, in steps, at which a training there ended near the dense one.

It is that of 1 % at every step. Longer lags may do in long trainings: published ones
send 0.1 %, or meet every 500 steps. Nothing here shows it.
"""


class Worth(NamedTuple):
    """What a pattern can be worth in a training of some steps.

    Attributes:
      steps: the steps of the training.
      coverage: how often every entry is sent in the training, on average.
      lag: steps from a change of an entry on one worker until it has arrived at the
        others, on average; infinite if it never arrives.
      meetings: how often the workers synchronise in the training.
      verdict: `safe`, `aggressive`, or `as never meeting`.
      reason: what the verdict rests on, in words.
    """

    steps: int
    coverage: float
    lag: float
    meetings: float
    verdict: Verdict
    reason: str


def worth(pattern: Pattern, steps: int) -> Worth:
    """Says how often a pattern sends every entry, how long news lags, and what follows.

    A message holds the share r of the entries, r = 1 without a ratio. Workers meet
    every H steps. Then an entry is sent in r / H of the steps, so

        coverage = steps * r / H
        lag = H / r - (H + 1) / 2 + delay + spread

    A change waits (H - 1) / 2 steps for the next meeting, and then for H (1 / r - 1)
    more until its entry is drawn. Through `random_block` both are exact means. Through
    `top_k` the coverage is exact as the mean over entries, and the lag is a model: for
    entries of equal scale with independent noise it is about a sixth too long, and
    changes that are large for their entry's scale arrive sooner. A code of all entries
    counts as if it were exact; what it rounds off arrives soon after.

    The verdict follows from the first of these rules that applies:

    1. Workers meet once at most, or entries are drawn and the lag is as long as the
       training: `as never meeting`. Most changes never arrive.
    2. The pattern has a caution: `aggressive`.
    3. Workers take steps of their own, and the lag exceeds 1 % of the training:
       `aggressive`. For dense messages these are fewer than 50 meetings.
    4. Messages hold some of the entries. Those that are drawn: `aggressive`, since what
       is large waits as long as what is small. The largest: `aggressive` if the lag
       exceeds 5 % of the training.
    5. The lag exceeds 100 steps: `aggressive`. No longer one was measured to be safe.
    6. Otherwise `safe`: on the problems that were measured, no method of this kind
       ended more than 0.1 above the dense one. That is no promise for others.

    Args:
      pattern: which channels workers average through, and how often.
      steps: the steps of the whole training, at least 1.

    Returns:
      The three numbers, the verdict, and its reason.

    Raises:
      TypeError: if `pattern` is no pattern.
      ValueError: if `steps` is not a whole number of at least 1.

    Example:
      >>> import gmc_jax
      >>> from gmc_jax import planning
      >>> blocks = gmc_jax.all_reduce(gmc_jax.random_block(0.01))
      >>> pattern = planning.Pattern("blocks", (planning.Sync(blocks),), ratio=0.01)
      >>> planning.worth(pattern, 300)[1:5]
      (3.0, 99.0, 300.0, 'aggressive')
      >>> largest = gmc_jax.all_gather(gmc_jax.top_k(0.01))
      >>> pattern = planning.Pattern(
      ...     "GMC", (planning.Sync(largest),), ratio=0.01, selection="largest"
      ... )
      >>> planning.worth(pattern, 3000).verdict
      'safe'

    Guarantees:
      With a larger ratio, a shorter period or a shorter delay the lag never grows, the
      coverage never falls, and the verdict is never worse. With more steps the coverage
      grows, and the verdict is never worse.
    """
    if not isinstance(pattern, Pattern):
        raise TypeError(
            f"`pattern` must be a `Pattern`, got {checks.shown(pattern)}. Write "
            "`Pattern(name, (Sync(channel),))`."
        )
    checks.positive_int(steps=steps)
    period = min(sync.period for sync in pattern.syncs)
    delay = max(sync.delay for sync in pattern.syncs)
    share = pattern.ratio or 1.0
    lag = period / share - (period + 1) / 2 + delay + pattern.spread
    known = Worth(steps, steps * share / period, lag, steps / period, "safe", "")
    verdict, reason = _judged(pattern, period, known)
    return known._replace(verdict=verdict, reason=reason)


def _judged(pattern: Pattern, period: int, known: Worth) -> tuple[Verdict, str]:
    """The first rule that applies."""
    part = known.lag / known.steps
    lags = f"news lags {known.lag:.3g} steps, {part:.2g} of the training"
    if period > 1 and known.meetings <= 1:
        return "as never meeting", "workers do not meet before the end"
    if part >= 1 and pattern.selection == "drawn":
        return "as never meeting", f"{lags}, so that most of it never arrives"
    if pattern.caution:
        return "aggressive", pattern.caution
    apart = pattern.spread > 0 or any(sync.period > 1 for sync in pattern.syncs)
    most = APART if apart else LARGEST
    if part > most:
        where = "workers take steps of their own" if apart else "some entries are sent"
        return "aggressive", f"{lags}; where {where}, up to {most:g} is safe"
    if part > 0 and pattern.ratio is not None and pattern.selection == "drawn":
        return "aggressive", f"{lags}; entries are drawn, so that large ones wait too"
    if known.lag > LONGEST:
        return "aggressive", f"{lags}; more than {LONGEST} steps were not measured"
    return "safe", lags
