"""DeMo, decoupled momentum whose largest frequencies are sent."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from gmc_jax.channels.in_frequencies import in_frequencies
from gmc_jax.channels.mean_of_senders import mean_of_senders
from gmc_jax.compressors.top_k_of_rows import top_k_of_rows
from gmc_jax.transforms._learning_rate import descent
from gmc_jax.transforms.error_feedback import error_feedback
from gmc_jax.transforms.with_float32_state import with_float32_state
from gmc_jax.utils import checks
from gmc_jax.utils.call_repr import call_repr


@call_repr
def demo(
    learning_rate: optax.ScalarOrSchedule,
    *,
    decay: float = 0.999,
    chunk: int = 64,
    kept: int = 32,
    weight_decay: float = 0.0,
    axis_name: str = "workers",
) -> optax.GradientTransformationExtraArgs:
    """Sends the largest frequencies of a local momentum, and steps by signs.

        delta_k <- decay * delta_k + lr_t g_k
        q_k = the `kept` largest coefficients of each chunk of DCT(delta_k)
        delta_k <- delta_k - DCT^-1(q_k)
        q = mean of q_k over the workers that sent the coefficient
        w_{t+1} = w_t - lr_t (sign(DCT^-1(q)) + weight_decay * w_t)

    The momentum delta_k is a residual that fades: what was sent leaves it. As a chain,
    where `lr` is `scale_by_learning_rate(learning_rate)`:

        sent = mean_of_senders(top_k_of_rows(kept), per_leaf=True)
        feedback = error_feedback(in_frequencies(sent, chunk=chunk), decay)
        chain(lr, feedback, sign, add_decayed_weights(-weight_decay), -lr)

    The signs are those of steps, so the chain keeps -delta_k. Chunks are squares of
    `chunk` by `chunk` entries of matrices, and `chunk` entries of vectors, or the
    largest divisors below that. `kept` counts for all of them.

    The authors' code does the same, but that a selected coefficient of exactly 0 counts
    as sent (see `mean_of_senders`). So the two may part where the momentum of some
    workers, not of all, is 0 in a whole chunk.

    Args:
      learning_rate: lr_t, at least 0: a number or a schedule.
        `optax.inject_hyperparams` may inject the numeric arguments but `chunk` and
        `kept`, which shape the program.
      decay: of the momentum, in [0, 1].
      chunk: the longest side of a chunk, at least 1.
      kept: how many coefficients of a chunk are sent, at least 1.
      weight_decay: decoupled, at least 0.
      axis_name: the named axis whose indices are the workers.

    Returns:
      A transformation from gradients to steps. The momenta differ between workers. They
      are in units of steps and signed as updates are: the state holds -delta_k.

    Raises:
      TypeError: if `axis_name` is not a string.
      ValueError: if `decay` is not in [0, 1], `chunk` or `kept` is not a whole number
        of at least 1, `weight_decay` is negative, or `learning_rate` is a negative or
        non-finite number.

    Example:
      >>> import gmc_jax
      >>> tx = gmc_jax.demo(1e-3)

    Guarantees:
      With `kept=chunk ** 2` all is sent: delta_k is 0 after each step, and the step is
      that of the sign of the mean gradient, where no coefficient is 0.
      If all workers have the same gradients, it is what one worker does alone.

    References:
      Peng, Quesnelle and Kingma, "DeMo: Decoupled Momentum Optimization", 2024,
      arXiv:2411.19870: Algorithm 1, after the public code.
    """
    checks.learning_rate(learning_rate=learning_rate)
    checks.nonnegative(weight_decay=weight_decay)
    kept = checks.whole(kept=kept)
    sent = mean_of_senders(top_k_of_rows(kept), per_leaf=True, axis_name=axis_name)
    sign = with_float32_state(optax.stateless(lambda x, _: jax.tree.map(jnp.sign, x)))
    rate = optax.scale_by_learning_rate(learning_rate, flip_sign=False)
    return optax.chain(
        descent(learning_rate),
        error_feedback(in_frequencies(sent, chunk=chunk), decay),
        sign,
        with_float32_state(optax.add_decayed_weights(-weight_decay)),
        with_float32_state(rate),
    )
