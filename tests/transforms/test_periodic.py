"""Tests of synchronisations: the branch, the anchor, precision, inner buffers."""

from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gmc_jax
from gmc_jax import (
    average_buffers,
    averaged,
    exact,
    gossip,
    maintain_buffers,
    no_communication,
    periodic,
    reset_buffers,
    topologies,
)
from gmc_jax.transforms.buffers import Buffers
from tests.support import harness, problems
from tests.support.methods import COMPOSITIONS
from tests.support.virtual_iterates import problem

MEAN = optax.chain(averaged(exact()), optax.scale(-1.0))


def test_right_after_a_synchronisation_workers_are_at_the_anchor():
    weights, states = harness.run(periodic(optax.sgd(0.02), MEAN, 5), problem())
    anchors = problems.flat(states.anchor, leading=1)
    size = np.abs(anchors).max()
    for t in range(5, 51, 5):
        distance = np.abs(weights[t] - anchors[t]).max()
        assert distance <= 2e-16 * size
    assert anchors.shape == (51, 20)  # The same on all workers: kept once.
    np.testing.assert_array_equal(states.local, [t % 5 for t in range(51)])
    np.testing.assert_array_equal(states.step, range(51))


@pytest.mark.parametrize(
    "channel", [exact(), no_communication()], ids=["exact", "no_communication"]
)
def test_16_bit_parameters_keep_their_dtypes_and_the_state_is_float32(channel):
    outer = optax.chain(averaged(channel), optax.sgd(0.7, 0.9, nesterov=True))
    tx = periodic(optax.sgd(0.1, 0.9), outer, 2, buffers=reset_buffers())
    params = jax.tree.map(lambda x: x.astype("bfloat16"), harness.start())
    state, _ = harness.drive(
        harness.simulate,
        harness.step_of(tx),
        (params, tx.init(params)),
        harness.targets(params, 5),
    )
    assert {str(x.dtype) for x in jax.tree.leaves(state[0])} == {"bfloat16"}
    assert {str(x.dtype) for x in jax.tree.leaves(state[1].anchor)} == {"float32"}
    assert {str(x.dtype) for x in jax.tree.leaves(state[1].outer)} == {"float32"}


def adam_after(buffers, steps: int):
    """The state of Adam with a schedule, synchronised every four steps."""
    inner = optax.adam(optax.linear_schedule(0.1, 0.0, 100))
    tx = periodic(inner, MEAN, 4, buffers=buffers)
    _, states = harness.run(tx, problem())
    return jax.tree.map(lambda leaf: leaf[steps], states.inner)


def test_buffers_are_maintained_by_default():
    same = adam_after(None, 8), adam_after(maintain_buffers(), 8)
    jax.tree.map(np.testing.assert_array_equal, *same)
    moments = problems.flat(same[0][0].mu, leading=1)
    assert np.ptp(moments, axis=0).max() > 1e-3


def test_reset_buffers_start_again_and_counters_go_on():
    adam, schedule = adam_after(reset_buffers(), 8)
    assert not problems.flat(adam.mu, leading=1).any()
    assert not problems.flat(adam.nu, leading=1).any()
    assert adam.count == schedule.count == 8
    adam, _ = adam_after(reset_buffers(), 9)
    assert problems.flat(adam.mu, leading=1).any()


def test_averaged_buffers_are_the_same_everywhere():
    adam, schedule = adam_after(average_buffers(exact()), 8)
    for moments in (adam.mu, adam.nu):
        everyone = problems.flat(moments, leading=1)
        np.testing.assert_array_equal(everyone, everyone[:1].repeat(4, axis=0))
        assert everyone.any()
    assert adam.count == schedule.count == 8


INNER = {
    **{name: made(4) for name, made in COMPOSITIONS.items()},
    "svrg": gmc_jax.svrg(0.1, exact(), epoch_length=3),
    "katyusha_x": gmc_jax.katyusha_x(0.1, exact(), epoch_length=3),
    "averaged late": averaged(gossip(topologies.ring(4), delay=1)),
    "averaged late messages": averaged(gmc_jax.all_gather(gmc_jax.top_k(0.2), delay=1)),
    "a strategy with a state": periodic(
        optax.sgd(0.1, 0.9),
        MEAN,
        3,
        buffers=Buffers(
            lambda inner, fresh: {"first": fresh},
            lambda inner, own, fresh, state: (own, state),
        ),
    ),
}
BUFFERS = {"momentum", "trace", "mu", "nu", "ema"}
CONSERVED = {
    *("anchor", "buffers", "centre", "correction", "error", "full_gradient"),
    *("last", "residual", "snapshot", "start", "total", "tracker", "weight"),
    *("left", "mean", "messages", "right", "sent", "variance"),
    *("disagreement", "estimate", "in_flight"),
}
COUNTS = {"up", "down", "dense"}


@pytest.mark.parametrize("name", INNER)
def test_what_a_state_conserves_is_no_buffer(name):
    """A reset and an average leave residuals, messages in flight and anchors alone.

    These mirror the parameters too. The test goes through every leaf of every method.
    """
    inner, params = INNER[name], harness.start()
    fresh = inner.init(params)
    own = jax.tree.map(lambda leaf: jnp.full_like(leaf, 2), fresh)
    shifted = exact()._replace(
        average=lambda tree, state: (optax.tree.add(tree, tree), tree, state)
    )
    reset, _ = reset_buffers().synchronise(inner, own, fresh, ())
    average, _ = average_buffers(shifted).synchronise(inner, own, fresh, ())
    for (path, leaf), one, other, before in zip(
        jax.tree_util.tree_leaves_with_path(own),
        *map(jax.tree.leaves, (reset, average, fresh)),
        strict=True,
    ):
        names = [getattr(key, "name", None) for key in path]
        mirrors = jnp.ndim(leaf) > 0 and not COUNTS & set(names)
        assert not mirrors or (BUFFERS | CONSERVED) & set(names), names
        is_buffer = mirrors and not CONSERVED & set(names)
        # What mirrors one fragment does not mirror the parameters.
        is_buffer &= "streaming" not in name or "outer" not in names
        np.testing.assert_array_equal(one, before if is_buffer else leaf)
        np.testing.assert_array_equal(other, 4 if is_buffer else leaf)


def test_injected_rates_are_no_buffers():
    """A reset does not change the rates that a user injects."""
    inner = optax.inject_hyperparams(optax.sgd)(learning_rate=0.5, momentum=0.9)
    tx = periodic(inner, MEAN, 2, buffers=reset_buffers())
    params = harness.start()
    opt_state: Any = tx.init(params)
    hyperparams = {**opt_state.inner.hyperparams, "learning_rate": jnp.array(0.25)}
    opt_state = opt_state._replace(
        inner=opt_state.inner._replace(hyperparams=hyperparams)
    )
    state, _ = harness.drive(
        harness.simulate,
        harness.step_of(tx),
        (params, opt_state),
        harness.targets(params, 4),
    )
    assert state[1].inner.hyperparams["learning_rate"] == 0.25


def test_with_dense_averages_everywhere_no_state_differs():
    tx = periodic(gmc_jax.dmsgd(0.1, exact()), MEAN, 3)
    params = harness.start()
    batch = jax.tree.map(lambda b: b[0], harness.targets(params, 1))
    layout = gmc_jax.layout(
        harness.step_of(tx), (params, tx.init(params)), batch, harness.WORKERS
    )
    assert not any(jax.tree.leaves(layout.differs))


def test_the_model_is_evaluated_at_the_mean():
    tx = periodic(optax.sgd(0.1), MEAN, 10)
    params = harness.start()
    state = params, tx.init(params)
    batches = harness.targets(params, 3)
    step, batch = harness.step_of(tx), jax.tree.map(lambda b: b[0], batches)
    layout = gmc_jax.layout(step, state, batch, harness.WORKERS)
    (weights, opt_state), _ = harness.drive(harness.simulate, step, state, batches)
    evaluated = gmc_jax.evaluate(opt_state, weights, layout)
    harness.close(evaluated, jax.tree.map(lambda x: x.mean(axis=0), weights))


def test_a_synchronisation_is_due_where_the_counter_saturates():
    """One more step does not overflow to a negative count."""
    tx = periodic(optax.sgd(0.1), optax.scale(-1.0), 2)
    state: Any = tx.init(jnp.ones(2))
    late = state._replace(local=jnp.int32(2**31 - 1))
    after: Any
    _, after = tx.update(jnp.ones(2), late, jnp.ones(2))
    assert after.local == 0


def test_errors_name_what_is_wrong():
    with pytest.raises(ValueError, match="`period`"):
        periodic(optax.sgd(0.1), MEAN, 0)
    tx = periodic(optax.sgd(0.1), MEAN, 2)
    with pytest.raises(ValueError, match="`params` must be given"):
        tx.update(np.ones(2), tx.init(np.ones(2)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: periodic(cast(Any, 0.1), MEAN, 2), "`inner` must be an optax"),
        (lambda: periodic(optax.sgd(0.1), cast(Any, None), 2), "`outer` must be"),
        (
            lambda: periodic(optax.sgd(0.1), MEAN, 2, buffers=cast(Any, reset_buffers)),
            "`buffers` must be a strategy",
        ),
        (lambda: average_buffers(cast(Any, gmc_jax.top_k(0.1))), "`channel` must"),
    ],
)
def test_other_kinds_of_parts_are_refused(make, message):
    with pytest.raises(TypeError, match=message):
        make()


@pytest.mark.parametrize("method", [gmc_jax.slowmo, gmc_jax.bmuf, gmc_jax.diloco])
def test_a_schedule_free_inner_optimizer_needs_a_strategy(method):
    """It stores a point of its own, which does not follow synchronisations."""
    inner = optax.contrib.schedule_free_sgd(0.1)
    tx = method(inner, gmc_jax.exact(), period=2)
    with pytest.warns(UserWarning, match=r"`inner` is schedule-free.*reset_buffers"):
        tx.init(harness.start())
    for buffers in (reset_buffers(), gmc_jax.maintain_buffers()):
        tx = method(inner, gmc_jax.exact(), period=2, buffers=buffers)
        tx.init(harness.start())


def test_a_schedule_free_inner_optimizer_restarts_from_the_anchor():
    inner = optax.contrib.schedule_free_sgd(0.1)
    tx = periodic(inner, MEAN, 2, buffers=reset_buffers())
    params = harness.start()
    (params, state), _ = harness.drive(
        harness.simulate,
        harness.step_of(tx),
        (params, tx.init(params)),
        harness.targets(params, 2),
    )
    for point, anchor in zip(
        jax.tree.leaves((params, state.inner.z)),
        jax.tree.leaves((state.anchor, state.anchor)),
        strict=True,
    ):
        expected = np.broadcast_to(anchor, point.shape)
        np.testing.assert_allclose(point, expected, rtol=1e-6)
