"""Streaming DiLoCo, which synchronises one fragment of the model at a time."""

from __future__ import annotations

import optax

from gmc_jax.core import Channel
from gmc_jax.transforms._fragments import Fragments
from gmc_jax.transforms.averaged import averaged
from gmc_jax.transforms.merges import Merge, mix
from gmc_jax.transforms.streaming import streaming
from gmc_jax.transforms.with_float32_state import with_float32_state
from gmc_jax.utils import checks
from gmc_jax.utils.call_repr import call_repr


@call_repr
def streaming_diloco(
    inner: optax.GradientTransformation,
    channel: Channel,
    *,
    period: int = 100,
    fragments: Fragments = None,
    delay: int = 1,
    merge: Merge | None = None,
    outer_learning_rate: float = 0.4,
    outer_momentum: float | None = 0.9,
) -> optax.GradientTransformationExtraArgs:
    """DiLoCo over one fragment of the model at a time, without waiting for it.

        x_k <- x_k + inner(g_k)                          at every step
        where fragment p is due, on p alone:
        s_k <- x_k
        `delay` steps later:
        D = z - mean over k of s_k;  m <- outer_momentum * m + D
        z <- z - outer_learning_rate * (D + outer_momentum * m)
        x_k <- (1 - alpha) z + alpha x_k                 or another `merge`

    As a chain:

        outer = sgd(outer_learning_rate, outer_momentum, nesterov=True)
        streaming(inner, averaged(channel), outer, period, ...)

    Each of P fragments synchronises once in `period` steps, one after another. So the
    most that a step sends is P times less than in `diloco`. For another outer
    optimizer, or for error feedback, use `streaming` with your own `average` and
    `outer`.

    torchft's code merges a fragment where it is due, and sends it `delay` steps
    earlier. Here it is sent where it is due, and merged later. Otherwise they are the
    same: to be in step with torchft, count from the delay on,
    `tx.init(params)._replace(step=jnp.asarray(delay, jnp.int32))`.

    Args:
      inner: the inner optimizer, from gradients to steps, learning rate included. The
        paper has `optax.adamw`. `optax.inject_hyperparams` may inject all numeric
        arguments but `period`, `fragments` and `delay`.
      channel: averages the pseudo-gradients over workers, and sends them in few bits if
        it is compressed.
      period: local steps between two synchronisations of a fragment, at least 1 and at
        least the number of fragments. It is H in the paper.
      fragments: how leaves are divided into fragments: None for a fragment a layer, a
        number of fragments to which layers are dealt in turn, or a function from paths
        to numbers. See `streaming`.
      delay: steps from sending to merging, from 0 to `period`. It is tau in the paper.
      merge: how workers take in what arrives: `mix(alpha)`, `corrected()` or `eager()`;
        by default `mix(0.5)`.
      outer_learning_rate: greater than 0. 0.4 is the paper's.
      outer_momentum: in [0, 1); None means 0. 0.9 is the paper's.

    Returns:
      A transformation from gradients to steps, which stands last in its chain.
      Parameters and the state of the inner optimizer differ between workers. z and m
      are the same on all, but for `eager()`.

    Raises:
      TypeError: if `inner` is not a transformation, `channel` not a channel,
        `fragments` neither a number nor a function, or `merge` not a strategy. If
        `period`, `fragments` or `delay` is traced; name it in `static_args` of
        `optax.inject_hyperparams`.
      ValueError: if `outer_momentum` is not in [0, 1), `outer_learning_rate` is not
        finite and greater than 0, `period` is not a whole number of at least 1, `delay`
        not one from 0 to `period`, or the strategy cannot have this delay. From `init`
        if there are more fragments than layers or than steps in a period.

    Example:
      >>> import gmc_jax, optax
      >>> tx = gmc_jax.streaming_diloco(
      ...     optax.adamw(4e-4, weight_decay=0.1), gmc_jax.exact(), fragments=8
      ... )

    Guarantees:
      With one fragment, no delay and `mix(0.0)` it is `diloco`, bit for bit.
      Without a delay and with `mix(0.0)`, each coordinate has one outer step in
        `period` steps.
      With `eager()` it is `diloco` through `gossip(topologies.complete(K), delay=1)`,
        fragment by fragment, to rounding.

    References:
      Douillard et al., "Streaming DiLoCo with Overlapping Communication: Towards a
      Distributed Free Lunch", 2025, arXiv:2501.18512. The default period, delay, alpha
      and rate are as reported elsewhere, and not checked against the paper.
    """
    checks.momentum(outer_momentum=outer_momentum)
    checks.positive(outer_learning_rate=outer_learning_rate)
    nesterov = with_float32_state(
        optax.sgd(outer_learning_rate, outer_momentum, nesterov=True)
    )
    return streaming(
        inner,
        averaged(channel),
        nesterov,
        period,
        fragments=fragments,
        delay=delay,
        merge=mix(0.5) if merge is None else merge,
    )
