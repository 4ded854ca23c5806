"""The interpreter of counters, on programs made by hand."""

import jax
import jax.numpy as jnp
from jax import lax

from gmc_jax.costs._walk import Walk, messages


def traced(function, *arguments):
    return jax.make_jaxpr(function, axis_env=[("workers", 2)])(*arguments)


def test_only_the_branch_that_a_known_counter_takes_sends():
    def step(count, grads):
        mean = lax.cond(
            count % 2 == 1, lambda: lax.psum(grads, "workers"), lambda: 2 * grads
        )
        return count + 1, mean

    program = traced(step, jnp.zeros((), jnp.int32), jnp.zeros(10))
    sizes = messages(program, "workers", {})
    assert list(sizes.values()) == [320]
    walk = Walk("workers", sizes)

    for count in (0, 1, 2):
        sent, (after, mean) = walk.run(program, [jnp.asarray(count), None])
        assert sent.tolist() == [count % 2]
        assert after is not None
        assert int(after) == count + 1
        assert mean is None  # It depends on the gradient, which is unknown.


def test_an_unknown_counter_takes_the_branch_that_sends_most():
    def step(count, grads):
        return lax.cond(
            count > 0, lambda: grads, lambda: lax.psum(grads, "workers") / 2
        )

    program = traced(step, jnp.zeros((), jnp.int32), jnp.zeros(10))
    walk = Walk("workers", messages(program, "workers", {}))

    sent, _ = walk.run(program, [None, None])

    assert sent.tolist() == [1]


def test_large_arrays_are_never_computed():
    program = traced(lambda x: (x + 1, x[:5].sum()), jnp.zeros(2**16 + 1))

    _, (large, small) = Walk("workers", {}).run(program, [jnp.zeros(2**16 + 1)])

    assert large is None
    assert small is not None  # Its operand was known.
