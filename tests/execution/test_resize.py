"""Tests of going on with another number of workers."""

import itertools

import chex
import jax
import numpy as np
import pytest
from jax.sharding import Mesh

import gmc_jax
from gmc_jax import resize
from tests.support.harness import close, step_of
from tests.support.methods import COMPOSITIONS
from tests.support.resizing import (
    NUMBERS,
    compiled,
    layout_and_state,
    made_up,
    one,
    pulls,
    train,
    trained,
)

CENTRAL = ["gmc"]


def assert_fits(state, layout):
    layout.check_kept(state)
    chex.assert_tree_all_finite(state)
    assert all(not leaf.committed for leaf in jax.tree.leaves(state))


@pytest.mark.parametrize("name", list(COMPOSITIONS)[::3])
def test_a_resized_state_fits_the_new_layout(name):
    """Of every third method. In the slow run all of them go on, with what fits."""
    layout, _ = layout_and_state(name, 8)
    state = resize(made_up(layout), layout, 6)
    assert_fits(state, layout_and_state(name, 6)[0])


@pytest.mark.parametrize(
    "name",
    [
        "sgp over a star",
        "d2",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("uneven osgp", "d_psgd", "gradient_tracking")
        ),
    ],
)
def test_a_resized_state_fits_any_topology(name):
    """A structure that hangs on a value: of weights that may be 1, or on neighbours."""
    layout, _ = layout_and_state(name, 8)
    state = made_up(layout)
    for workers in (2, 1, 4):
        state = resize(state, layout, workers)
        layout, _ = layout_and_state(name, workers)
        layout.check_kept(state)


def goes_on(name):
    """Trains 8, 2 and 5 workers; the evaluated model must not jump."""
    state, losses = train(name, 8, 6)
    began, first = losses[0], 6
    for before, workers in itertools.pairwise((8, 2, 5)):
        layout, after = compiled(name, before).layout, compiled(name, workers).layout
        params, opt_state = gmc_jax.fetch(state)
        point = gmc_jax.evaluate(opt_state, params, layout)
        state = resize(state, layout, workers)
        assert_fits(state, after)
        now = gmc_jax.evaluate(state[1], state[0], after)
        if "sgp" not in name and name != "partitioned":  # Whose mean is weighed.
            close(now, point)
        state, losses = train(name, workers, 3, first, state)
        first += 3
        chex.assert_tree_all_finite(state)
        assert np.isfinite(losses).all()
        assert max(losses) < 1.5 * began


@pytest.mark.parametrize("name", CENTRAL)
def test_training_continues_without_a_jump(name):
    goes_on(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in COMPOSITIONS if name not in CENTRAL])
def test_training_continues_without_a_jump_with_any_method(name):
    goes_on(name)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        *("local_sgd", "slowmo", "slowmo over local_sgd", "cocod_sgd", "d_psgd", "d2"),
        *("gradient_tracking", "dmsgd_local"),
    ],
)
def test_on_a_linear_problem_the_mean_is_not_affected(name):
    """All workers have the same Hessian, and their targets one mean at every step."""
    state, _ = train(name, 8, 6)
    first = 6
    for before, workers in itertools.pairwise(NUMBERS):
        state = resize(state, compiled(name, before).layout, workers)
        state, _ = train(name, workers, 3, first, state)
        first += 3
    alone, _ = train(name, 8, first)
    ended = [
        gmc_jax.average_workers(
            params, compiled(name, workers).layout.of(lambda s: s[0])
        )
        for params, workers in ((state[0], 6), (alone[0], 8))
    ]
    chex.assert_trees_all_close(*ended, rtol=1e-4, atol=1e-5)


def test_a_resized_state_is_placed_for_distribute():
    name, layout = "d2", layout_and_state("d2", 8)[0]
    state = resize(trained(name), layout, 4)
    step, (_, begun) = step_of(COMPOSITIONS[name](4)), layout_and_state(name, 4)
    mesh = Mesh(np.array(jax.devices()[:4]), ("workers",))
    batch = one(pulls(4, 1))
    run, fresh = gmc_jax.distribute(step, begun, batch, mesh=mesh)
    placed = jax.device_put(state, jax.tree.map(lambda leaf: leaf.sharding, fresh))
    ours, _ = run(placed, batch)
    theirs, _ = train(name, 4, 1, state=resize(trained(name), layout, 4))
    chex.assert_trees_all_close(gmc_jax.fetch(ours), theirs, rtol=1e-5, atol=1e-6)


def test_the_same_number_changes_nothing():
    layout, _ = layout_and_state("sgp", 8)
    state = trained("sgp")
    same = resize(state, layout, 8)
    chex.assert_trees_all_equal(same, state)
    copies = {leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(same)}
    for leaf in jax.tree.leaves(state):
        assert leaf.ctypes.data not in copies


# Errors.


@pytest.mark.parametrize("workers", [0, -2, 1.5])
def test_the_number_of_workers_is_checked(workers):
    layout, _ = layout_and_state("gmc", 8)
    with pytest.raises(ValueError, match="`workers` must be a whole number"):
        resize(made_up(layout), layout, workers)


def test_a_state_of_another_layout_is_refused():
    layout, state = layout_and_state("gmc", 8)
    with pytest.raises(ValueError, match="`state` must be a tuple of 2, got"):
        resize(made_up(layout)[0], layout, 4)
    with pytest.raises(
        ValueError, match=r"layout for 8 workers.*`state\[1\].*residual"
    ):
        resize(state, layout, 4)
    six = layout_and_state("gmc", 6)[0]
    with pytest.raises(ValueError, match=r"float32\[6, 4\], got float32\[8, 4\]"):
        resize(made_up(layout), six, 4)


def test_parameters_that_are_not_the_first_part_must_be_named():
    layout, _ = layout_and_state("sgp", 8)
    params, opt_state = made_up(layout)
    state = {"tx": opt_state, "params": params}
    named = gmc_jax.Layout(
        8,
        "workers",
        dict(zip(("params", "tx"), layout.differs, strict=True)),
        dict(zip(("params", "tx"), layout.shapes, strict=True)),
    )
    with pytest.raises(ValueError, match=r"`params` must select the parameters.*push"):
        resize(state, named, 4)
    ours = resize(state, named, 4, params=lambda state: state["params"])
    expected = resize((params, opt_state), layout, 4)
    chex.assert_trees_all_equal((ours["params"], ours["tx"]), expected)
