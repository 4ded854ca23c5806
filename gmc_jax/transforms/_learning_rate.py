"""Learning rates: their value at a step, and the updates that they scale."""

import jax
import jax.numpy as jnp
import optax

from gmc_jax.transforms.with_float32_state import with_float32_state


def descent(learning_rate: optax.ScalarOrSchedule) -> optax.GradientTransformation:
    """Multiplies updates by minus the rate; they are float32 for 16-bit trees."""
    return with_float32_state(optax.scale_by_learning_rate(learning_rate))


def decayed_descent(
    learning_rate: optax.ScalarOrSchedule, weight_decay: float
) -> optax.GradientTransformation:
    """`descent` with decoupled weight decay, which the rate multiplies as well."""
    return with_float32_state(
        optax.chain(
            optax.add_decayed_weights(weight_decay),
            optax.scale_by_learning_rate(learning_rate),
        )
    )


def rate_at(learning_rate: optax.ScalarOrSchedule | None, step: jax.Array) -> jax.Array:
    """The rate at a step, or 1 where there is no rate.

    Args:
      learning_rate: a number, a schedule, an array, or None.
      step: int32, the step.

    Returns:
      A scalar in the widest float of this program. That is float64 where JAX has it
      switched on, since a rate rounded to float32 would limit float64 trees. Rates
      below the smallest normal float32 become 0: code that divides by a rate tests for
      0 first, and XLA flushes such a number to 0 in some places and keeps it in others.
    """
    value = learning_rate(step) if callable(learning_rate) else learning_rate
    rate = jnp.asarray(1.0 if value is None else value, jnp.result_type(float))
    return jnp.where(rate < float(jnp.finfo(jnp.float32).tiny), 0, rate)


def over_rate(value: jax.typing.ArrayLike, rate: jax.Array) -> jax.Array:
    """A number divided by a rate, or 0 where the rate is 0."""
    is_zero = rate == 0
    return jnp.where(is_zero, 0, value / jnp.where(is_zero, 1, rate))
