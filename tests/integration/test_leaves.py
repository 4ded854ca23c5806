"""Leaves that cannot be averaged, through everything that takes trees."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gmc_jax
from tests.support.factories import RIGHT, found, names_of

BAD = {
    "int32": jnp.ones(2, int),
    "bool": jnp.ones(2, bool),
    "complex64": jnp.ones(2, complex),
    "key<fry>": jax.random.key(0),
    "float0": np.zeros(2, jax.dtypes.float0),
}
GOOD = jnp.ones(2)
TRANSFORMATIONS = names_of(optax.GradientTransformation)


def first_update(tx, params, grads):
    """Traces `init` and the update of one of three workers."""

    def step(grads):
        return tx.update(grads, tx.init(params), params, snapshot_grads=grads)[0]

    return jax.make_jaxpr(step, axis_env=[("workers", 3)])(grads)


@pytest.mark.parametrize("dtype", BAD)
@pytest.mark.parametrize("name", TRANSFORMATIONS)
def test_a_leaf_that_is_not_floating_is_named(name, dtype):
    """Every transformation names it and its dtype, and says what to do, at once.

    No error of NumPy or JAX from within, and no numbers that are cut to integers; in
    one wording, whether the leaf is a parameter, a gradient or both.
    """
    tx = found(name)(**RIGHT[name])
    good, bad = {"a": GOOD, "n": GOOD}, {"a": GOOD, "n": BAD[dtype]}
    named = rf"The leaf `\['n'\]` must .* got dtype {dtype}\. Convert .* `optax.part"
    for params, grads in ((bad, good), (bad, bad), (good, bad)):
        if grads is bad and dtype in ("float0", "key<fry>"):
            continue  # No gradient that can be traced.
        with pytest.raises(TypeError, match=named):
            first_update(tx, params, grads)


@pytest.mark.parametrize("dtype", BAD)
@pytest.mark.parametrize("name", names_of(gmc_jax.Channel))
def test_a_channel_names_it_as_well(name, dtype):
    channel, bad = found(name)(**RIGHT[name]), {"n": BAD[dtype]}
    named = rf"The leaf `\['n'\]` must .* got dtype {dtype}\. Convert .* `optax.part"
    with pytest.raises(TypeError, match=named):
        channel.init(bad)
    average = jax.make_jaxpr(channel.average, axis_env=[("workers", 3)])
    if dtype not in ("float0", "key<fry>"):
        with pytest.raises(TypeError, match=named):
            average(bad, channel.init({"n": GOOD}))


@pytest.mark.parametrize("name", TRANSFORMATIONS)
def test_what_is_no_leaf_is_no_fault(name):
    """None, an empty tree, and what `optax.masked` and `partition` leave out."""
    tx = found(name)(**RIGHT[name])
    first_update(tx, {"a": GOOD, "n": None}, {"a": GOOD, "n": None})
    first_update(tx, {}, {})
    if name in ("katyusha_x", "svrg", "variance_reduced"):
        return  # optax masks no extra arguments.
    labels = {"a": "trained", "n": "kept"}
    tx = optax.partition({"trained": tx, "kept": optax.set_to_zero()}, labels)
    params = {"a": GOOD, "n": BAD["int32"]}
    first_update(tx, params, params)


@pytest.mark.parametrize("name", TRANSFORMATIONS)
def test_what_is_no_array_is_named_and_a_number_is_one(name):
    """Texts and functions, as models may hold them, ended in words of NumPy's.

    A Python number, which optax takes, had "no attribute 'dtype'".
    """
    tx = found(name)(**RIGHT[name])
    for strange, shown in (("adam", "'adam'"), (np.tanh, "<ufunc 'tanh'>")):
        with pytest.raises(
            TypeError, match=rf"`\['n'\]` must .* got {shown}\. Convert"
        ):
            tx.init({"a": GOOD, "n": strange})
    tree = {"a": GOOD, "n": 1.0}

    def step(grads):
        state = tx.init(tree)
        return tx.update(grads | {"n": 1.0}, state, tree, snapshot_grads=tree)[0]

    jax.make_jaxpr(step, axis_env=[("workers", 3)])({"a": GOOD})
