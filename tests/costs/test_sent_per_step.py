"""Tests of the steps at which transformations send, and of how much."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

import gmc_jax
from gmc_jax import all_gather, averaged, exact, message_bits, top_k
from gmc_jax.costs.sent_per_step import bits_of_steps, traffic_of_steps
from gmc_jax.transforms._average_in_dtype import average_in_dtype

PARAMS = {"bias": jnp.zeros(4), "kernel": jnp.zeros((4, 4))}
DENSE, SPARSE = 32 * 20, 64 * 2
CHANNEL = all_gather(top_k(0.1))


def sent(tx, steps, params=PARAMS, **extra_args):
    return bits_of_steps(tx, params, steps, "workers", extra_args).tolist()


def on_fourth_steps(channel):
    """A transformation of a user's own, with a counter and a conditional."""

    def init(params):
        return jnp.zeros((), jnp.int32), channel.init(params)

    def update(updates, state, params=None):
        step, inner = state

        def average():
            mean, _, after = average_in_dtype(channel, updates, inner, updates)
            return mean, after

        updates, inner = lax.cond(step % 4 == 3, average, lambda: (updates, inner))
        return updates, (step + 1, inner)

    return optax.GradientTransformation(init, update)


def test_steps_send_when_workers_synchronise():
    local = gmc_jax.local_sgd(0.1, exact(), period=3)
    assert sent(local, 7) == [0, 0, DENSE, 0, 0, DENSE, 0]
    assert sent(gmc_jax.accumulate(local, 2), 8) == [0, 0, 0, 0, 0, DENSE, 0, 0]
    nested = gmc_jax.periodic(local, averaged(exact()), 4)
    assert sent(nested, 7) == [0, 0, DENSE, DENSE, 0, 0, DENSE]


def test_a_period_may_be_a_schedule_of_steps():
    tx = gmc_jax.local_sgd(
        0.1, exact(), period=lambda t: jnp.where(jnp.asarray(t) < 4, 2, 3)
    )
    assert sent(tx, 10) == [0, DENSE, 0, DENSE, 0, 0, DENSE, 0, 0, DENSE]


def test_a_period_may_be_read_from_a_long_table():
    table = jnp.full(5000, 2).at[0].set(1)
    tx = gmc_jax.local_sgd(0.1, exact(), period=lambda step: table[step])
    assert sent(tx, 5) == [DENSE, 0, DENSE, 0, DENSE]


def test_each_of_joined_channels_counts_in_its_own_steps():
    joined = gmc_jax.join_channels([exact(), CHANNEL], [2])
    assert sent(gmc_jax.gmc(0.1, joined), 4) == [DENSE, DENSE, SPARSE, SPARSE]
    local = gmc_jax.local_sgd(0.1, joined, period=2)
    assert sent(local, 6) == [0, DENSE, 0, DENSE, 0, SPARSE]


def test_wrappers_of_optax_and_of_users_are_read():
    """`MultiSteps` sends at every step and selects afterwards."""
    assert sent(on_fourth_steps(exact()), 5) == [0, 0, 0, DENSE, 0]
    assert sent(optax.flatten(on_fourth_steps(exact())), 4) == [0, 0, 0, DENSE]
    multi = optax.MultiSteps(averaged(exact()), 3).gradient_transformation()
    assert sent(multi, 3) == [DENSE] * 3
    injected = optax.inject_hyperparams(
        lambda rate: gmc_jax.local_sgd(rate, exact(), period=2)
    )(rate=optax.linear_schedule(0.1, 0.0, 10))
    assert sent(injected, 4) == [0, DENSE, 0, DENSE]


def test_loops_count_their_rounds_and_unknown_conditionals_the_most():
    def update(updates, state, params=None):
        del params

        def again(carry, _):
            return averaged(exact()).update(carry, ())[0], None

        many, _ = lax.scan(again, updates, length=3)
        most = lax.cond(
            jnp.sum(updates["bias"]) > 0,
            lambda: averaged(CHANNEL).update(many, CHANNEL.init(many))[0],
            lambda: averaged(exact()).update(many, ())[0],
        )
        return most, state

    tx = optax.GradientTransformation(lambda params: (), update)
    assert sent(tx, 2) == [4 * DENSE] * 2


@pytest.mark.parametrize("passes_first", [True, False])
def test_a_guard_counts_as_if_it_let_all_steps_pass(passes_first):
    """So counters inside it count on, and periods keep their length."""
    inner = gmc_jax.local_sgd(0.1, exact(), period=3)
    guarded = gmc_jax.skip_nonfinite(inner)
    assert sent(guarded, 4) == [64, 64, 64 + DENSE, 64]

    def update(updates, state, params=None):
        def go():
            return inner.update(updates, state, params)

        def stay():
            return jax.tree.map(jnp.zeros_like, updates), state

        good = jnp.isfinite(updates["bias"]).all()
        return lax.cond(good, go, stay) if passes_first else lax.cond(~good, stay, go)

    own = optax.GradientTransformation(inner.init, update)
    assert sent(own, 4) == [0, 0, DENSE, 0]


def test_a_channel_of_your_own_counts_the_bits_it_says():
    """This holds only if it sends something. The collectives inside do not count."""
    half = exact()._replace(bits=lambda tree: 7)
    assert sent(averaged(half), 2) == [7, 7]
    assert sent(averaged(gmc_jax.count_entries(half)), 2) == [7, 7]
    dropping = gmc_jax.drop_all()._replace(bits=lambda tree: 7)
    assert sent(averaged(dropping), 2) == [0, 0]


def test_collectives_outside_channels_count_their_operands():
    def update(updates, state, params=None):
        del params
        return lax.pmean(updates, "workers"), state

    assert sent(optax.GradientTransformation(lambda params: (), update), 1) == [DENSE]


def test_cached_traces_of_jax_have_no_influence():
    """The jitted update was traced before, over the same axis or for another count."""
    inner = averaged(exact()._replace(bits=lambda tree: 7))
    tx = optax.GradientTransformation(inner.init, jax.jit(inner.update))
    many = jax.tree.map(lambda leaf: jnp.stack([leaf] * 2), PARAMS)

    def mean():
        return jax.vmap(lambda u: tx.update(u, ())[0], axis_name="workers")(many)

    before = mean()
    assert sent(tx, 2) == sent(tx, 2) == [7, 7]
    chex.assert_trees_all_equal(mean(), before)


def test_the_number_of_workers_is_that_of_the_topology():
    ring = gmc_jax.topologies.ring(8)
    assert sent(gmc_jax.d_psgd(0.1, ring), 2) == [2 * DENSE] * 2
    other = gmc_jax.gossip(gmc_jax.topologies.ring(5))
    with pytest.raises(ValueError, match="got one of 5"):
        sent(optax.chain(gmc_jax.d_psgd(0.1, ring), averaged(other)), 2)


def test_states_may_hold_keys_and_large_counters():
    noisy = optax.chain(optax.add_noise(0.1, 0.5, jax.random.key(0)), averaged(exact()))
    assert sent(noisy, 2) == [DENSE] * 2

    def init(params):
        return jax.random.key(0), jnp.zeros((40, 40), jnp.int32)

    def update(updates, state, params=None):
        key, table = state
        return updates, (jax.random.fold_in(key, 1), table + 1)

    own = optax.chain(optax.GradientTransformation(init, update), averaged(exact()))
    assert sent(own, 2) == [DENSE] * 2


@pytest.mark.parametrize("jit", [True, False])
def test_switches_of_jax_change_nothing(jit):
    with jax.disable_jit(not jit), jax.enable_x64(True):
        params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), PARAMS)
        assert sent(gmc_jax.local_sgd(0.1, exact(), period=2), 2, params) == [
            0,
            2 * DENSE,
        ]


def test_extra_arguments_reach_the_update():
    tx = gmc_jax.svrg(0.1, exact(), epoch_length=3)
    assert message_bits(tx, PARAMS, snapshot_grads=PARAMS) == DENSE
    with pytest.raises(TypeError, match="snapshot_grads"):
        message_bits(tx, PARAMS)


@pytest.mark.parametrize("workers", [2, 8])
def test_the_traffic_of_a_step_is_that_of_its_channels(workers):
    """Of all of them together, in the steps in which they send."""
    ring = gmc_jax.topologies.ring(workers)
    for channel in (exact(), CHANNEL, gmc_jax.gossip(ring)):
        once = gmc_jax.link_traffic(channel, PARAMS, workers)
        tx = gmc_jax.periodic(optax.sgd(0.1), averaged(channel), 3)
        expected = [(0, 0), (0, 0), once] * 2
        np.testing.assert_allclose(traffic_of_steps(tx, PARAMS, 6, workers), expected)
    both = optax.chain(averaged(exact()), averaged(CHANNEL))
    of_each = [gmc_jax.link_traffic(it, PARAMS, workers) for it in (exact(), CHANNEL)]
    expected = [np.sum(of_each, axis=0)]
    np.testing.assert_allclose(traffic_of_steps(both, PARAMS, 1, workers), expected)


def test_the_traffic_of_collectives_outside_channels():
    def update(updates, state, params=None):
        del params
        return lax.pmean(updates, "workers"), state

    tx = optax.GradientTransformation(lambda params: (), update)
    (found,) = traffic_of_steps(tx, PARAMS, 1, 4)
    np.testing.assert_allclose(found, [1.5 * DENSE / 8, 6])
    assert traffic_of_steps(optax.sgd(0.1), PARAMS, 3, 4).tolist() == [[0, 0]] * 3
