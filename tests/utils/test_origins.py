"""Tests of what values of a program are made from."""

import jax
import jax.numpy as jnp
import pytest

from gmc_jax.utils.origins import Origin, visit_origins

STEP, WORKER, CLOSED = Origin.STEP, Origin.WORKER, Origin.CLOSED_OVER
NONE = Origin(0)
TABLE = jnp.arange(3.0)


def origins(function, *given: Origin):
    """Of the results, where the arguments are numbers of these origins."""
    program = jax.make_jaxpr(function, axis_env=[("workers", 2)])(*[1.0] * len(given))
    return visit_origins(program, given, "workers", lambda *_: None)


def index():
    return jax.lax.axis_index("workers").astype(float)


def scanned(a, b):
    """A carry, which the next round mixes; what goes round alone; and outputs."""

    def body(carry, x):
        first, second, third = carry
        return (second, first, third + x), (x, third)

    return jax.lax.scan(body, (a, b, 0.0), TABLE)


def looped(a, b):
    return jax.lax.while_loop(
        lambda c: c[0] < 3, lambda c: (c[0] + 1, c[1] * 2), (a, b)
    )


PROGRAMS = {
    "each by itself": (lambda a, b: (a + 1, b * a, 2.0), [STEP, STEP | WORKER, NONE]),
    "a call": (lambda a, b: jax.jit(lambda x, y: (y, x))(a, b), [WORKER, STEP]),
    "what is closed over": (lambda a, b: TABLE[0] + a, [STEP | CLOSED]),
    "the index": (lambda a, b: (index(), index() + a), [WORKER, STEP | WORKER]),
    "a choice": (
        lambda a, b: jax.lax.cond(b > 0, lambda x: (x, 1.0), lambda x: (2.0, x), a),
        [STEP | WORKER] * 2,
    ),
    "a scan": (
        scanned,
        [STEP | WORKER, STEP | WORKER, CLOSED, CLOSED, CLOSED],
    ),
    "a loop": (looped, [STEP | WORKER] * 2),
    "a checkpoint": (jax.checkpoint(lambda a, b: (jnp.sin(b), a)), [WORKER, STEP]),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_origins_of_results(name):
    function, expected = PROGRAMS[name]
    assert origins(function, STEP, WORKER) == expected


def test_equations_are_visited_once_a_call_with_all_their_origins():
    seen = []
    square = jax.jit(lambda x: jnp.sin(x))

    def step(a, b):
        def body(carry, _):
            return square(carry) + b, None

        return square(a) + jax.grad(square)(b), jax.lax.scan(body, a, length=3)[0]

    def visit(equation, operands, in_gradient):
        if equation.primitive.name in ("sin", "cos"):
            seen.append((equation.primitive.name, operands[0], in_gradient))

    program = jax.make_jaxpr(step)(1.0, 1.0)
    visit_origins(program, (STEP, WORKER), "workers", visit)
    assert set(seen) - {("sin", WORKER, True)} == {
        ("sin", STEP, False),
        ("cos", WORKER, True),
        ("sin", STEP | WORKER, False),
    }
