"""SVRG, stochastic variance reduced gradient."""

from __future__ import annotations

from collections.abc import Callable

import optax

from gmc_jax.core import Channel, Tree
from gmc_jax.transforms._svrg_steps import svrg_steps
from gmc_jax.transforms.epochs import epochs
from gmc_jax.utils import checks
from gmc_jax.utils.described import described


@described
def svrg(
    learning_rate: optax.ScalarOrSchedule,
    channel: Channel,
    *,
    epoch_length: int,
    random_length: bool = False,
    seed: int = 0,
    projection: Callable[[Tree], Tree] | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Steps by gradients that are compared with those at a snapshot.

        mu = full gradient at the snapshot z, at the start of every epoch
        v = mu + mean over k of (g_k(w) - g_k(z)), of the same mini-batch
        w <- projection(w - lr_t v);  z <- w after `epoch_length` steps

    Workers share each mini-batch. The loop provides the full gradients, outside the
    step, and the step those at the snapshot:

        def step(state, batch):
            params, opt_state = state
            there = gradient(gmc_jax.svrg_snapshot(opt_state), batch)
            here = gradient(params, batch)
            updates, opt_state = tx.update(
                here, opt_state, params, snapshot_grads=there
            )
            return (optax.apply_updates(params, updates), opt_state), {}

        train, state = gmc_jax.simulate(step, (params, tx.init(params)), batch, 8)
        for batch in batches:
            params, opt_state = state
            if gmc_jax.full_gradient_due(opt_state):
                # All samples of all workers in one batch, without an axis of workers.
                mean = gradient(params, everything)
                opt_state = gmc_jax.set_full_gradient(opt_state, params, mean)
            state, _ = train((params, opt_state), batch)

    Args:
      learning_rate: a number, a schedule, or an array from `optax.inject_hyperparams`,
        which may inject all numbers.
      channel: what averages the differences, `exact()` in the papers.
      epoch_length: m, steps in an epoch; samples over the mini-batch's size.
      random_length: whether lengths are drawn, with this mean, as the theory has it.
      seed: of the draws.
      projection: of parameters, from `optax.projections`, or a proximal operator; one
        of `static_args` where numbers are injected.

    Returns:
      A transformation from gradients to steps, the last in its chain. Nothing differs
      between workers. It is judged where the last epoch ended.

    Raises:
      ValueError: if `epoch_length` is not a whole number of at least 1, or a rate is
        negative or not finite.
      TypeError: from the update if it is called without `snapshot_grads`.

    Example:
      >>> import gmc_jax
      >>> tx = gmc_jax.svrg(0.1, gmc_jax.exact(), epoch_length=100)

    Guarantees:
      With one sample in all it is gradient descent.

    References:
      Johnson and Zhang, "Accelerating Stochastic Gradient Descent using Predictive
      Variance Reduction", NeurIPS 2013.
    """
    checks.steps(epoch_length=epoch_length)
    return epochs(
        svrg_steps(learning_rate, channel, projection),
        epoch_length,
        random_length=random_length,
        seed=seed,
    )
