"""Which leaves differ between workers is found out, not declared."""

from typing import Any, NamedTuple

import chex
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.core import Tracer
from jax.sharding import PartitionSpec

import gmc_jax
from gmc_jax import (
    accumulate,
    all_gather,
    averaged,
    exact,
    gmc,
    layout,
    no_communication,
    query,
    top_k,
)
from gmc_jax.core import Tree
from tests.support import problems

WORKERS, D = 8, 20
RING = [(k, (k + 1) % WORKERS) for k in range(WORKERS)]
BATCH = np.random.default_rng(0).normal(size=(WORKERS, D)).astype(np.float32)


def mean(x):
    return jax.lax.pmean(x, "workers")


def start():
    return problems.tree(np.linspace(-2, 2, D, dtype=np.float32))


def step_of(tx):
    """The step that every user writes."""

    def loss_fn(params, target):
        weights = jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(params)])
        return jnp.sum((weights - target) ** 2)

    def step(state, batch):
        params, opt_state = state
        loss, grads = jax.value_and_grad(loss_fn)(query(opt_state, params), batch)
        updates, opt_state = tx.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), loss

    return step


def layout_of(tx, workers: int = WORKERS):
    state = start(), tx.init(start())
    return layout(step_of(tx), state, BATCH[:workers], workers)


def differing(tree: Tree) -> list[str]:
    """The paths of the leaves that are True."""
    return [
        jax.tree_util.keystr(path)
        for path, differs in jax.tree_util.tree_leaves_with_path(tree)
        if differs
    ]


# What differs, method by method.

RESIDUAL = ["['bias']", "['kernel']"]
METHODS = {
    "dmsgd": (gmc_jax.dmsgd(0.1, exact()), ""),
    "dmsgd_local": (gmc_jax.dmsgd_local(0.1, exact()), "[0].trace"),
    "gmc": (gmc(0.1, all_gather(top_k(0.1))), "[0].inner.residual"),
    "gmc, which loses nothing": (gmc(0.1, exact()), ""),
    "ef_sgd": (gmc_jax.ef_sgd(0.1, all_gather(top_k(0.1))), "[1].residual"),
    "accumulate": (accumulate(gmc_jax.dmsgd(0.1, exact()), 3), ".total"),
    "schedule": (
        gmc(optax.cosine_decay_schedule(0.1, 9), all_gather(top_k(0.1))),
        "[0].inner.residual",
    ),
}


@pytest.mark.parametrize("method", METHODS)
def test_parameters_are_the_same_and_residuals_differ(method):
    """Counters, rates and shared momenta are the same, too."""
    tx, place = METHODS[method]
    state_layout = layout_of(tx)
    assert not differing(state_layout.differs[0])
    expected = [place + leaf for leaf in RESIDUAL] if place else []
    assert differing(state_layout.differs[1]) == expected


def test_the_momenta_and_accumulated_gradients_of_dgc_both_differ():
    tx = gmc_jax.dgc(0.1, all_gather(top_k(0.1)))
    assert differing(layout_of(tx).differs) == [
        f"[1][0].{place}{leaf}"
        for place in ("momentum", "feedback.residual")
        for leaf in RESIDUAL
    ]


def test_without_a_channel_all_leaves_that_depend_on_gradients_differ():
    state_layout = layout_of(optax.chain(averaged(no_communication()), optax.adam(0.1)))
    assert differing(state_layout.differs[0]) == RESIDUAL
    adam = state_layout.differs[1][1][0]
    assert not adam.count
    assert all(jax.tree.leaves((adam.mu, adam.nu)))


def test_differing_leaves_are_fed_back_until_nothing_changes():
    """Along a chain of leaves each is reached one pass after the one before."""

    def step(state, batch):
        first, second, third, _ = state
        return (batch, first + 1, second * 2, mean(third)), None

    state = (jnp.zeros(D),) * 4
    state_layout = layout(step, state, BATCH, WORKERS)
    assert state_layout.differs == (True, True, True, False)

    train, laid_out = gmc_jax.simulate(step, state, BATCH, WORKERS)
    for _ in range(4):
        laid_out, _ = train(laid_out, BATCH)
    np.testing.assert_allclose(laid_out[2], 2 * (BATCH + 1), rtol=1e-6)
    np.testing.assert_allclose(laid_out[3], laid_out[2].mean(axis=0), rtol=1e-5)


def test_a_leaf_that_differed_once_keeps_its_axis():
    """It is kept as differing all the same: its place in the state is."""

    def step(state, batch):
        own, met = state
        return (mean(met), own + batch), None

    state_layout = layout(step, (jnp.zeros(D), jnp.zeros(D)), BATCH, WORKERS)
    assert state_layout.differs == (False, True)


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        (lambda w, b: w + mean(b), False),
        (lambda w, b: w + jax.lax.psum(b, "workers"), False),
        (lambda w, b: w + jax.lax.pmax(b, "workers"), False),
        (lambda w, b: w + jax.lax.all_gather(b, "workers")[3], False),
        (lambda w, b: jax.lax.cond(mean(b[0]) > 0, lambda: w, lambda: w + 1), False),
        (lambda w, b: jax.lax.fori_loop(0, 3, lambda i, w: w + mean(b), w), False),
        (lambda w, b: jax.jit(lambda w, b: w + mean(b))(w, b), False),
        (lambda w, b: w + 0 * b, True),
        (lambda w, b: w + jax.lax.axis_index("workers"), True),
        (lambda w, b: jax.lax.cond(b[0] > 0, lambda: w, lambda: w + 1), True),
        (lambda w, b: jax.lax.fori_loop(0, 3, lambda i, w: w + b, w), True),
        (lambda w, b: jax.jit(lambda w, b: w + b)(w, b), True),
        (lambda w, b: jax.checkpoint(lambda w, b: w + b)(w, b), True),
        (lambda w, b: jax.lax.ppermute(b, "workers", RING), True),
    ],
)  # fmt: skip
def test_means_do_not_differ_between_workers(how, expected):
    state_layout = layout(lambda w, b: (how(w, b), None), jnp.zeros(D), BATCH, WORKERS)
    assert state_layout.differs is expected


def test_the_step_is_traced_once_and_never_run():
    runs = []

    def step(state, batch):
        runs.append(isinstance(batch, Tracer))
        return state + batch, None

    layout(step, jnp.zeros(D), BATCH, WORKERS)
    assert runs == [True]


def test_shapes_suffice():
    tx = gmc(0.1, all_gather(top_k(0.1)))
    state = start(), tx.init(start())
    state, batch = jax.eval_shape(lambda *args: args, state, BATCH)
    assert layout(step_of(tx), state, batch, WORKERS) == layout_of(tx)


# The fields and what is made of them.


def test_the_fields_of_a_layout():
    state_layout = layout_of(gmc(0.1, all_gather(top_k(0.1))))
    assert state_layout.workers == WORKERS
    assert state_layout.axis_name == "workers"
    chex.assert_trees_all_equal_shapes_and_dtypes(state_layout.shapes[0], start())
    structure = jax.tree.structure(state_layout.shapes)
    for tree in (state_layout.differs, state_layout.specs):
        assert jax.tree.structure(tree) == structure
    assert {type(flag) for flag in jax.tree.leaves(state_layout.differs)} == {bool}

    params, (momentum, _) = state_layout.specs
    assert params["kernel"] == momentum.step == PartitionSpec()
    assert momentum.inner.residual["kernel"] == PartitionSpec("workers")
    params, (momentum, _) = state_layout.axes
    assert params["kernel"] is None
    assert momentum.step is None
    assert momentum.inner.residual["kernel"] == 0


def test_the_axis_may_have_another_name():
    def step(state, batch):
        return (state[0] + jax.lax.pmean(batch, "hosts"), batch), None

    state = jnp.zeros(D), jnp.zeros(D)
    state_layout = layout(step, state, BATCH, WORKERS, axis_name="hosts")
    assert state_layout.specs == (PartitionSpec(), PartitionSpec("hosts"))


def test_a_state_is_laid_out_by_copies():
    state_layout = layout_of(gmc(0.1, all_gather(top_k(0.1))))
    tx = gmc(0.1, all_gather(top_k(0.1)))
    state = start(), jax.tree.map(lambda leaf: leaf + 7, tx.init(start()))
    params, (momentum, _) = state_layout.lay_out(state)

    chex.assert_trees_all_equal(params, state[0])
    residual = momentum.inner.residual
    np.testing.assert_array_equal(residual["bias"], np.full((WORKERS, 4), 7))
    np.testing.assert_array_equal(momentum.momentum["bias"], np.full(4, 7))
    assert residual["kernel"].shape == (WORKERS, 2, 8)
    for leaf in jax.tree.leaves((params, momentum)):
        leaf.delete()
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(state))


@flax.struct.dataclass
class Training:
    """A state like Flax's `TrainState`."""

    step: int
    params: Tree
    stats: Tree
    name: str = flax.struct.field(pytree_node=False, default="training")


class Parts(NamedTuple):
    """Two parts of a state, one of them each worker's own."""

    own: Tree
    same: Tree


STATES = {
    "dataclass": (
        Training(0, jnp.zeros(D), {"mean": jnp.zeros(D)}),
        lambda s, b: Training(s.step + 1, s.params + mean(b), {"mean": b}),
        Training(False, False, {"mean": True}),
    ),
    "None and empty": (
        {"none": None, "empty": (), "w": jnp.zeros(D), "no size": jnp.zeros((0, 3))},
        lambda s, b: {**s, "w": s["w"] + b},
        {"none": None, "empty": (), "w": True, "no size": False},
    ),
    "nothing": ((), lambda s, b: s, ()),
    "numbers": (
        [1, 2.0, True, np.float32(3)],
        lambda s, b: [s[0] + 1, s[1] * b[0], s[2], 4.0],
        [False, True, False, False],
    ),
    "named": (
        Parts(jnp.zeros(D), 0),
        lambda s, b: Parts(b, s.same),
        Parts(True, False),
    ),
    "a leaf": (np.zeros(D), lambda s, b: s + mean(b), False),
    "typed keys": (
        {"shared": jax.random.key(0), "own": jax.random.key(1)},
        lambda s, b: {
            "shared": jax.random.split(s["shared"])[0],
            "own": gmc_jax.worker_key(s["own"]),
        },
        {"shared": False, "own": True},
    ),
    "raw keys": (
        {"shared": jax.random.PRNGKey(0), "own": jax.random.PRNGKey(1)},
        lambda s, b: {
            "shared": jax.random.split(s["shared"])[0],
            "own": gmc_jax.worker_key(s["own"]),
        },
        {"shared": False, "own": True},
    ),
}


@pytest.mark.parametrize("kind", STATES)
def test_any_pytree_may_be_the_state(kind):
    state, change, expected = STATES[kind]
    state_layout = layout(lambda s, b: (change(s, b), None), state, BATCH, WORKERS)
    assert state_layout.differs == expected

    laid_out = state_layout.lay_out(state)
    for leaf, shape, differs in zip(
        jax.tree.leaves(laid_out),
        jax.tree.leaves(state_layout.shapes),
        jax.tree.leaves(state_layout.differs),
        strict=True,
    ):
        assert leaf.shape == ((WORKERS,) if differs else ()) + shape.shape
        assert leaf.dtype == shape.dtype
    train, laid_out = gmc_jax.distribute(
        lambda s, b: (change(s, b), None), state, BATCH
    )
    laid_out, _ = train(*train(laid_out, BATCH)[:1], BATCH)
    assert jax.tree.structure(laid_out) == jax.tree.structure(state_layout.shapes)


# Errors.


@pytest.mark.parametrize("workers", [0, -1, 2.5])
def test_there_is_at_least_one_worker(workers):
    with pytest.raises(ValueError, match="`workers` must be a whole number"):
        layout(lambda s, b: (s, None), jnp.zeros(D), BATCH, workers)


@pytest.mark.parametrize(
    ("batch", "named", "shape"),
    [
        (BATCH[:4], "batch", r"\(4, 20\)"),
        ({"x": BATCH, "y": [BATCH, np.zeros(3)]}, r"batch\['y'\]\[1\]", r"\(3,\)"),
        ({"x": BATCH, "scale": 1.0}, r"batch\['scale'\]", r"\(\)"),
        (np.zeros((0, 8)), "batch", r"\(0, 8\)"),
    ],
)
def test_a_batch_without_the_leading_axis_is_an_error(batch, named, shape):
    message = rf"leading axis of 8 workers .*shape {shape} for `{named}`.*Reshape"
    with pytest.raises(ValueError, match=message):
        layout(lambda s, b: (s, None), jnp.zeros(D), batch, WORKERS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda s: {**s, "w": s["w"].astype("bfloat16")},
            r"`state\['w'\]` must be float32\[20\], got bfloat16\[20\].*Cast",
        ),
        (
            lambda s: {**s, "w": s["w"][:3]},
            r"`state\['w'\]` must be float32\[20\], got float32\[3\]",
        ),
        (
            lambda s: {**s, "n": s["n"] * 0.5},
            r"`state\['n'\]` must be int32\[\], got float32\[\]",
        ),
        (
            lambda s: {"w": s["w"]},
            r"state of the structure.*`state\['n'\]` must be int32\[\], but is missing",
        ),
        (
            lambda s: {**s, "n": None},
            r"state of the structure.*`state\['n'\]` must be int32\[\], got None",
        ),
        (
            lambda s: (s["w"], s["n"]),
            "state of the structure.*`state` must be a `dict`, got a tuple of 2",
        ),
    ],
)
def test_a_step_must_not_change_the_types_of_the_state(change, message):
    state = {"w": jnp.zeros(D), "n": 0}
    with pytest.raises(ValueError, match=message):
        layout(lambda s, b: (change(s), None), state, BATCH, WORKERS)
    with pytest.raises(ValueError, match=message):
        gmc_jax.simulate(lambda s, b: (change(s), None), state, BATCH, WORKERS)


@pytest.mark.parametrize(
    ("tx", "names"),
    [
        (
            optax.masked(
                gmc(0.1, all_gather(top_k(0.1))), {"bias": False, "kernel": True}
            ),
            r"\(`state\[0\]\['bias'\]`\)",
        ),
        (
            optax.apply_if_finite(gmc(0.1, all_gather(top_k(0.1))), 3),
            r"\(`state\[0\]\['bias'\]`, `state\[0\]\['kernel'\]`\)",
        ),
        (
            optax.chain(averaged(no_communication()), optax.sgd(0.1)),
            r"\(`state\[0\]\['bias'\]`, `state\[0\]\['kernel'\]`\)",
        ),
    ],
)
def test_replicated_leaves_that_differ_are_named(tx, names):
    state_layout = layout_of(tx)
    message = rf"{names}.*`optax.partition`.*`gmc_jax.skip_nonfinite`"
    with pytest.raises(ValueError, match=message):
        state_layout.check_replicated(lambda state: state[0])


def test_a_long_list_of_names_is_cut_short():
    state = {name: jnp.zeros(D) for name in "abcdef"}
    state_layout = layout(
        lambda s, b: (jax.tree.map(lambda w: w + b, s), None), state, BATCH, WORKERS
    )
    with pytest.raises(ValueError, match=r"`state\['d'\]`, \.\.\.\)"):
        state_layout.check_replicated(lambda state: state)


def test_what_is_the_same_passes():
    state_layout = layout_of(gmc(0.1, all_gather(top_k(0.1))))
    state_layout.check_replicated(lambda state: state[0])
    state_layout.check_replicated(
        lambda state: (state[0]["bias"], state[1][0].momentum)
    )
    state_layout.check_replicated(lambda state: ())


# Parts.


def parts_plan():
    def step(state, batch):
        own = jax.tree.map(lambda w: w + batch[0], state.own)
        same = jax.tree.map(lambda w: w + mean(batch[0]), state.same)
        return Parts(own, same), None

    return layout(step, Parts(start(), start()), BATCH, WORKERS)


def test_the_layout_of_a_part():
    state_layout = parts_plan().of(lambda state: state.own)
    assert (state_layout.workers, state_layout.axis_name) == (WORKERS, "workers")
    assert state_layout.differs == {"bias": True, "kernel": True}
    chex.assert_trees_all_equal_shapes_and_dtypes(state_layout.shapes, start())
    assert state_layout.specs["bias"] == PartitionSpec("workers")


def test_an_average_is_over_workers_where_leaves_differ():
    state_layout = parts_plan()
    kept = state_layout.lay_out(Parts(start(), start()))
    draw = np.random.default_rng(1)
    own = jax.tree.map(lambda w: np.float32(draw.normal(size=w.shape)), kept.own)

    averages = state_layout.average(Parts(own, kept.same))
    chex.assert_trees_all_equal(averages.same, kept.same)
    chex.assert_trees_all_close(
        averages.own, jax.tree.map(lambda w: w.mean(axis=0), own), rtol=1e-5, atol=1e-6
    )
    # A part of it is found by its shapes, and named where these do not tell.
    chex.assert_trees_all_equal(state_layout.average(own), averages.own)
    chex.assert_trees_all_equal(state_layout.average(kept.same), kept.same)
    own_plan = state_layout.of(lambda state: state.own)
    chex.assert_trees_all_equal(own_plan.average(own), averages.own)


@pytest.mark.parametrize(
    ("dtype", "values", "expected"),
    [
        ("float32", [1.0, 2.0, 4.0, 4.0], 2.75),
        # Their sums do not fit into these types.
        ("bfloat16", [258.0, 256.0, 258.0, 260.0], 258.0),
        ("float16", [60000.0] * 4, 60000.0),
        ("float32", [2.0**127] * 4, 2.0**127),
        ("float8_e4m3fn", [448.0, 448.0, 416.0, 416.0], 448.0),
        ("int32", [1, 2, 2, 2], 2),
        ("uint8", [200, 200, 200, 202], 200),
        # So far apart that their differences do not fit either.
        ("uint8", [0, 0, 255, 255], 128),
        ("int8", [-128, 127, 127, 126], 63),
        ("int32", [2**31 - 1, -(2**31), 2**31 - 1, -(2**31)], 0),
    ],
)
def test_an_average_keeps_the_dtype(dtype, values, expected):
    def step(state, batch):
        del batch
        return state + jax.lax.axis_index("workers").astype(dtype), None

    state_layout = layout(step, jnp.zeros((), dtype), BATCH[:4], 4)
    average = state_layout.average(jnp.array(values, dtype))
    assert average.dtype == dtype
    assert average.shape == ()
    assert float(average) == expected


@jax.tree_util.register_pytree_node_class
class Incomparable:
    """A container that is equal to none but itself."""

    def __init__(self, leaf):
        self.leaf = leaf

    def tree_flatten(self):
        return (self.leaf,), None

    @classmethod
    def tree_unflatten(cls, aux, leaves):
        return cls(*leaves)


def test_containers_need_no_comparison():
    def step(state, batch):
        return Incomparable(state.leaf + batch), None

    state_layout = layout(step, Incomparable(jnp.zeros(3)), jnp.ones((2, 3)), 2)
    assert state_layout.differs.leaf is True


def test_a_train_function_is_not_a_layout(tmp_path):
    """The kind: `train` where `train.layout` is meant, and a Python error inside."""
    train, state = gmc_jax.simulate(lambda state, _: (state, ()), 0.0, np.ones(2), 2)
    given: Any = train
    for call in (
        lambda: gmc_jax.evaluate((), state, given),
        lambda: gmc_jax.average_workers(state, given),
        lambda: gmc_jax.resize(state, given, 1),
        lambda: gmc_jax.Checkpoints(tmp_path / "none", given),
    ):
        with pytest.raises(TypeError, match=r"`layout`.*`train.layout`.* <a step of"):
            call()
    assert not (tmp_path / "none").exists()
