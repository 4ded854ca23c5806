"""Tests of states that a step did not make: those that fit are accepted, no others."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.training.train_state import TrainState
from jax.sharding import Mesh

import gmc_jax
from gmc_jax import all_gather, exact, top_k
from tests.support.harness import WORKERS, devices, every_runner, pmap_too, start
from tests.support.vector_steps import GMC, loss_fn, state_of, step_of, targets


def two_by(name: str):
    """A runner of two workers."""

    def by_pmap(step, state, batch):
        layout = gmc_jax.layout(step, state, batch, 2)
        axes = (layout.axes, 0)
        run = jax.pmap(
            step, "workers", in_axes=axes, out_axes=axes, devices=jax.devices()[:2]
        )
        return layout.checked(run), layout.lay_out(state)

    return {
        "simulate": functools.partial(gmc_jax.simulate, workers=2),
        "distribute": functools.partial(
            gmc_jax.distribute, mesh=Mesh(devices(2), ("workers",))
        ),
        "pmap": by_pmap,
    }[name]


def flax_state(tx) -> TrainState:
    return TrainState.create(apply_fn=None, params=start(), tx=tx)


def flax_step(state, batch):
    grads = jax.grad(loss_fn)(state.params, batch)
    return state.apply_gradients(grads=grads), {}


FLAX = flax_state(GMC)


def others(kind: str):
    """A step, its state, and a state that is not of its two workers; what is said."""
    step, mine = step_of(GMC), state_of()
    residual = r"state\[1\]\[0\].inner.residual\['bias'\]` must be float32\[2, 4\]"
    if kind == "four workers":
        kept = gmc_jax.layout(step, mine, targets(4)[0], 4).lay_out(mine)
        return step, mine, kept, residual + r", got float32\[4, 4\].*gmc_jax.resize"
    if kind == "never laid out":
        return step, mine, mine, residual + r", got float32\[4\].*from one call"
    if kind == "another method":
        other = state_of(gmc_jax.dmsgd(0.01, exact()))
        return step, mine, other, r"`state\[1\]\[0\]` must be a .*, got a "
    if kind == "another type":
        layout = gmc_jax.layout(step, mine, targets(2)[0], 2)
        kept = jax.tree.map(lambda leaf: leaf.astype("bfloat16"), layout.lay_out(mine))
        return step, mine, kept, r"must be float32\[4\], got bfloat16\[4\]"
    if kind == "another tx":
        other = flax_state(gmc_jax.gmc(0.01, all_gather(top_k(0.2))))
        other = gmc_jax.layout(flax_step, other, targets(2)[0], 2).lay_out(other)
        return (
            flax_step,
            FLAX,
            other,
            r"`state.tx`, which is not an array, must be",
        )
    other = jax.tree.map(jnp.asarray, flax_state(optax.sgd(0.1)))
    return flax_step, FLAX, other, r"`state.opt_state\[0\]` must be a .*, got a "


@pytest.mark.parametrize("runner", ["simulate", "distribute", "pmap"])
@pytest.mark.parametrize(
    "kind",
    [
        "four workers",
        "never laid out",
        "another method",
        "another type",
        "another tx",
        "another TrainState",
    ],
)
def test_a_foreign_state_is_refused_in_few_words(kind, runner):
    """The kind: a state that fits by chance, and drops workers or mixes up axes.

    Nothing runs and nothing is donated, and one place is named, not two structures.
    """
    step, mine, other, message = others(kind)
    train, state = two_by(runner)(step, mine, targets(2)[0])
    for call in (train, train.lower):
        with pytest.raises(ValueError, match=message) as caught:
            call(other, targets(2)[0])
        assert len(str(caught.value).split("\n")[0]) < 600
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves((state, other)))
    with pytest.raises(ValueError, match="leading axis of 2 workers"):
        train(state, targets(4)[0])


@every_runner
def test_a_state_of_the_right_shapes_may_come_from_anywhere(runner):
    """Fetched, committed to one device, read as numbers: it is the same state."""
    train, state = runner(step_of(GMC), state_of(), targets()[0])
    state, _ = train(state, targets()[0])
    fetched = gmc_jax.fetch(state)
    expected, _ = train(state, targets()[1])
    for other in (
        fetched,
        jax.device_put(fetched, jax.devices()[0]),
        jax.tree.map(lambda leaf: leaf if leaf.ndim else leaf.item(), fetched),
    ):
        if runner is gmc_jax.distribute and other is not fetched:
            other = jax.tree.map(np.asarray, other)
        found, _ = train(other, targets()[1])
        chex.assert_trees_all_equal(gmc_jax.fetch(found), gmc_jax.fetch(expected))


def test_a_state_is_not_laid_out_twice():
    layout = gmc_jax.layout(step_of(GMC), state_of(), targets()[0], WORKERS)
    message = r"`state` must be one worker's.*residual\['bias'\]` must be float32\[4\]"
    with pytest.raises(ValueError, match=message):
        layout.lay_out(layout.lay_out(state_of()))


@pmap_too
def test_train_has_the_layout_of_its_state(runner):
    """So that it need not be traced again, nor the first state be at hand."""
    state = state_of()
    train, kept = runner(step_of(GMC), state, targets()[0])
    layout = gmc_jax.layout(step_of(GMC), state, targets()[0], WORKERS)
    assert train.layout == layout
    assert repr(train) == f"<a step of {layout.workers} workers, compiled>"
    train.layout.check_kept(kept)
    point = gmc_jax.evaluate(kept[1], kept[0], train.layout)
    chex.assert_trees_all_equal(point, start())
