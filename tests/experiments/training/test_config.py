"""The configuration: values that it refuses, and the optimizer that it makes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.training.config import Config


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("data", "mnist", "`data` must be among digits, .* got 'mnist'"),
        ("model", "vgg", "`model` .* mlp, .*resnet20.* got 'vgg'"),
        ("compressor", "top", "`compressor` .* top_k, .* got 'top'"),
        ("partition", "even", "`partition` .* iid, dirichlet, .* got 'even'"),
        ("backend", "tpu", "`backend` .* simulate, distribute, pmap, got 'tpu'"),
        ("methods", ("gmc", "rprop"), "`methods` .* dmsgd, .* got 'rprop'"),
        ("methods", ("gmc", "gmc"), "no method twice"),
        ("methods", (), "at least one method"),
        ("workers", 0, "`workers` must be at least 1, got 0"),
        ("steps", -2, "`steps` must be at least 1, got -2"),
        ("seeds", 0, "`seeds` must be at least 1, got 0"),
        ("fraction", 0.0, "`fraction` .*0.0"),
        ("ratio", 1.5, "`ratio` .*1.5"),
        ("learning_rate", -1.0, "`learning_rate` must be finite .*, got -1.0"),
        ("learning_rates", (("gmc", np.nan),), "`learning_rates gmc` .* got nan"),
        ("weight_decay", np.inf, "`weight_decay` must be finite .* got inf"),
        ("seed", -1, r"`seed` must be in \[0, 2\^32\), got -1"),
    ],
)
def test_a_value_out_of_range_is_an_error(field, value, message):
    with pytest.raises(ValueError, match=message):
        Config(**{field: value})


def test_several_seeds_at_once_need_one_device():
    with pytest.raises(ValueError, match=r"`seeds_at_once` must be 1 .* 'pmap', got 2"):
        Config(backend="pmap", seeds_at_once=2)


def test_a_method_may_have_a_rate_of_its_own():
    config = Config(learning_rate=0.1, learning_rates=(("dgc", 0.3),))

    assert (config.rate("dgc"), config.rate("gmc")) == (0.3, 0.1)


def first_update(**settings):
    tx = Config(methods=("dmsgd",), learning_rates=(), **settings).optimizer(
        "dmsgd", 4, 2
    )
    params, grads = jnp.array([2.0]), jnp.array([1.0])
    update = jax.vmap(
        lambda grads: tx.update(grads, tx.init(params), params)[0],
        axis_name="workers",
    )
    return jnp.asarray(update(grads[None]))[0, 0]


def test_weight_decay_comes_before_the_method():
    decayed = first_update(learning_rate=0.5, weight_decay=0.25)

    np.testing.assert_allclose(decayed, -0.5 * (1.0 + 0.25 * 2.0), rtol=1e-6)


def test_the_rate_falls_to_zero_along_a_cosine_unless_it_is_constant():
    def rates(schedule, warmup=0):
        config = Config(
            methods=("dmsgd",),
            schedule=schedule,
            learning_rate=0.5,
            momentum=0.0,
            warmup=warmup,
        )
        tx = config.optimizer("dmsgd", 4, 2)

        def step(state, grads):
            update, state = tx.update(grads, state, grads)
            return state, update

        def walk(grads):
            return jax.lax.scan(step, tx.init(grads[0]), grads)[1]

        rates = jax.vmap(walk, axis_name="workers")(jnp.ones((1, 5)))
        return -jnp.asarray(rates)[0]

    np.testing.assert_allclose(rates("constant"), [0.5] * 5, rtol=1e-6)
    cosine = [0.25 * (1 + np.cos(np.pi * step / 4)) for step in range(5)]
    np.testing.assert_allclose(rates("cosine"), cosine, rtol=1e-5, atol=1e-7)
    by_epoch = [cosine[step // 2 * 2] for step in range(5)]
    np.testing.assert_allclose(rates("cosine_by_epoch"), by_epoch, rtol=1e-5, atol=1e-7)
    rising = [0.5, 1.0, 1.0, 1.0, 1.0] * np.array(cosine)
    np.testing.assert_allclose(rates("cosine", 2), rising, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": 10**20}, r"`seed` must be in \[0, 2\^32\), got 10"),
        ({"model": "characters"}, "together, got 'characters' with 'digits'"),
        ({"model": "gpt"}, "together, got 'gpt' with 'digits'"),
        ({"devices_each": 2}, r"`devices_each` must be 1 unless .* got 2 with 'sim"),
        ({"bandwidth": "fast"}, "'fast' is not a rate"),
        ({"bandwidth": "1gbit", "latency": "near"}, "'near' is not a time"),
        ({"bandwidth": "1gbit", "step_time": "soon"}, "'soon' is not a time"),
        ({"warmup": -1}, "`warmup` must be"),
        ({"resize": (0, 4)}, "`resize step` must be"),
        ({"data": "text"}, "together, got 'mlp' with 'text'"),
        ({"learning_rates": (("gmc", 1.0), ("gmc", 2.0))}, "no method twice"),
    ],
)
def test_values_that_training_would_refuse_are_refused_at_once(options, message):
    """These options ended in errors of Flax, NumPy or JAX."""
    with pytest.raises(ValueError, match=message):
        Config(**options)
