"""What is read off a traced program: its parts, its marks, where values flow."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gmc_jax.utils import jaxprs

X = jnp.arange(3.0)


def traced(fn, *args):
    return jax.make_jaxpr(fn, axis_env=[("workers", 4)])(*args)


def psum(x):
    return jax.lax.psum(x, "workers")


def scanned(fn):
    return lambda x: jax.lax.scan(lambda c, _: (fn(c), None), x, length=2)[0]


def looped(fn):
    return lambda x: jax.lax.fori_loop(0, x[0].astype(int), lambda _, c: fn(c), x)


def with_own_jvp(fn):
    wrapped = jax.custom_jvp(fn)
    wrapped.defjvps(lambda t, out, x: t)
    return wrapped


def with_own_vjp(fn):
    wrapped = jax.custom_vjp(fn)
    wrapped.defvjp(lambda x: (fn(x), None), lambda _, g: (g,))
    return wrapped


WRAPPED = {
    "plain": lambda fn: fn,
    "jit": jax.jit,
    "cond": lambda fn: lambda x: jax.lax.cond(x[0] > 0, fn, jnp.zeros_like, x),
    "scan": scanned,
    "while": looped,
    "checkpoint": jax.checkpoint,
    "custom_vmap": jax.custom_batching.sequential_vmap,
    "custom_jvp": with_own_jvp,
    "custom_vjp": with_own_vjp,
    "vmap": lambda fn: lambda x: jax.vmap(fn)(x[None])[0],
    "several": lambda fn: jax.jit(jax.checkpoint(scanned(jax.jit(fn)))),
}
wrapped = pytest.mark.parametrize("how", WRAPPED)


@wrapped
def test_marks_and_collectives_are_found_wherever_they_are(how):
    program = traced(WRAPPED[how](lambda x: jaxprs.mark(psum(x), "here")), X)
    assert jaxprs.marks(program) == {"here"}
    names = [
        equation.primitive.name
        for equation in jaxprs.equations(program)
        if jaxprs.sends(equation, "workers")
    ]
    assert names == ["psum"]
    assert not any(jaxprs.sends(e, "x") for e in jaxprs.equations(program))


def test_marks_survive_functions_that_were_traced_before():
    """They are in the program, and so in what `jax.jit` remembers of it."""
    marked = jax.jit(lambda x: jaxprs.mark(2 * x, "here"))
    marked(X)
    assert jaxprs.marks(traced(lambda x: marked(x) + 1, X)) == {"here"}


def test_axis_index_is_not_a_collective():
    program = traced(lambda x: x * jax.lax.axis_index("workers"), X)
    assert any(jaxprs.axes_of(e) == ("workers",) for e in jaxprs.equations(program))
    assert not any(jaxprs.sends(e, "workers") for e in jaxprs.equations(program))


@pytest.mark.parametrize(
    "dtype",
    ["float32", "bfloat16", "float8_e4m3fn", "int32", "int4", "bool", "key"],
)
def test_a_mark_changes_nothing(dtype):
    """Not a bit of a value, and not a letter of a program."""
    x = jax.random.key(3) if dtype == "key" else jnp.ones(3, dtype)

    def same(mark):
        def fn(x):
            return mark({"x": x})

        return fn

    plain, marked = same(lambda x: x), same(lambda x: jaxprs.mark(x, "here"))
    data = jax.random.key_data if dtype == "key" else jnp.asarray
    np.testing.assert_array_equal(data(marked(x)["x"]), data(x))
    np.testing.assert_array_equal(data(jax.jit(marked)(x)["x"]), data(x))
    assert (
        jax.jit(marked).lower(x).as_text().replace("marked", "fn")
        == jax.jit(plain).lower(x).as_text()
    )


@pytest.mark.parametrize(
    "policy",
    [
        None,
        jax.checkpoint_policies.everything_saveable,
        jax.checkpoint_policies.dots_saveable,
        jax.checkpoint_policies.save_only_these_names("mine"),
        jax.checkpoint_policies.save_any_names_but_these("mine"),
    ],
)
def test_gradients_through_marks_are_the_same_under_every_policy(policy):
    def loss(mark):
        fn = jax.checkpoint(lambda w: jnp.sum(jnp.tanh(mark(w)) ** 2), policy=policy)
        return jax.grad(fn)(X)

    marked = loss(lambda w: jaxprs.mark(w, "here"))
    np.testing.assert_array_equal(marked, loss(lambda w: w))


@wrapped
def test_a_value_flows_where_it_is_used(how):
    def fn(x, y, z):
        return WRAPPED[how](lambda x: x + 1)(x) + y, y, jnp.zeros(3) + z[0]

    assert jaxprs.flow(traced(fn, X, X, X), [True, False, False]) == [
        True, False, False,
    ]  # fmt: skip
    assert jaxprs.flow(traced(fn, X, X, X), [False, True, True]) == [True] * 3


@wrapped
def test_flow_starts_at_collectives(how):
    def fn(x, y):
        return WRAPPED[how](psum)(x), x * y

    found = jaxprs.flow(
        traced(fn, X, X),
        [False, False],
        starts=lambda equation: jaxprs.sends(equation, "workers"),
    )
    assert found == [True, False]


def test_a_condition_does_not_reach_its_results():
    def fn(flag, x):
        return jax.lax.cond(flag, lambda x: 2 * x, lambda x: x, x)

    assert jaxprs.flow(traced(fn, True, X), [True, False]) == [False]
    assert jaxprs.flow(traced(fn, True, X), [False, True]) == [True]


def loss(w):
    return jnp.sum(jnp.tanh(w) ** 2)


@pytest.mark.parametrize(
    ("fn", "expected"),
    [
        (loss, False),
        (jax.grad(loss), True),
        (jax.jit(jax.grad(loss)), True),
        (jax.grad(jax.jit(loss)), True),
        (jax.grad(jax.checkpoint(loss)), True),
        (jax.jacfwd(loss), True),
        (scanned(jax.grad(loss)), True),
        (lambda w: jax.vjp(loss, w)[1](1.0)[0], True),
        (lambda w: w.reshape(3, 1).T, False),
    ],
)
def test_gradients_are_recognised(fn, expected):
    found = map(jaxprs.is_differentiated, jaxprs.equations(traced(fn, X)))
    assert any(found) is expected


def test_unchanged_results_are_found_through_calls():
    """A state that a jitted step returns as it was is no new one."""

    def fn(x, y, z):
        same, other = jax.jit(lambda a, b: (jax.jit(jnp.copy)(b) + 0, a))(x, y)
        return other, z, jax.jit(lambda a: (a, a + 1))(y)[0], same

    program = jax.make_jaxpr(fn)(X, X, X)
    assert jaxprs.passed_through(program) == [0, 2, 1, None]
