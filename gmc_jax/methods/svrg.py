"""SVRG, stochastic variance-reduced gradient."""

from __future__ import annotations

from collections.abc import Callable

import optax

from gmc_jax.core import Channel, Tree
from gmc_jax.transforms._svrg_steps import svrg_steps
from gmc_jax.transforms.epochs import epochs
from gmc_jax.utils import checks
from gmc_jax.utils.call_repr import call_repr


@call_repr
def svrg(
    learning_rate: optax.ScalarOrSchedule,
    channel: Channel,
    *,
    epoch_length: int,
    random_length: bool = False,
    seed: int = 0,
    projection: Callable[[Tree], Tree] | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Corrects each mini-batch's gradient by the full gradient at a snapshot.

        mu = full gradient at the snapshot z, at the start of every epoch
        v = mu + mean over k of (g_k(w) - g_k(z)), of the same mini-batch
        w <- projection(w - lr_t v);  z <- w after `epoch_length` steps

    The chain, where `lr` is `scale_by_learning_rate(learning_rate)`:

        epochs(chain(variance_reduced(channel), lr), epoch_length)

    Each mini-batch is spread over the workers. The step computes two gradients of it,
    at the parameters and at the snapshot. The loop computes the full gradients, outside
    the step:

        def step(state, batch):
            params, opt_state = state
            snapshot = gmc_jax.svrg_snapshot(opt_state)
            updates, opt_state = tx.update(
                gradient(params, batch),
                opt_state,
                params,
                snapshot_grads=gradient(snapshot, batch),
            )
            return (optax.apply_updates(params, updates), opt_state), {}

        train, state = gmc_jax.simulate(step, (params, tx.init(params)), batch, 8)
        for batch in batches:
            params, opt_state = state
            if gmc_jax.full_gradient_due(opt_state):
                # All samples of all workers in one batch, without an axis of workers.
                mean = gradient(params, all_samples)
                opt_state = gmc_jax.set_full_gradient(opt_state, params, mean)
            state, _ = train((params, opt_state), batch)

    Args:
      learning_rate: lr_t, at least 0: a number or a schedule.
        `optax.inject_hyperparams` may inject all numeric arguments.
      channel: averages the differences of gradients over workers; `exact()` in the
        papers.
      epoch_length: m, the steps of an epoch: the number of samples over the size of the
        mini-batch.
      random_length: whether the length of each epoch is drawn at random, with mean
        `epoch_length`, as in the theory.
      seed: of the random lengths, an int.
      projection: of the parameters after each step: one of `optax.projections`, or a
        proximal operator. Name it in `static_args` of `optax.inject_hyperparams`.

    Returns:
      A transformation from gradients to steps, which stands last in its chain. Nothing
      differs between workers. The model is evaluated where the last epoch ended.

    Raises:
      TypeError: if `channel` is not a channel, or `projection` not a function; from
        `update` if it is called without `snapshot_grads`.
      ValueError: if `epoch_length` is not a whole number of at least 1, or
        `learning_rate` is a negative or non-finite number.

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
